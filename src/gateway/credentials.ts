import type { Principal } from '../aws/call.ts';

/** What the gateway knows of an access key while it verifies a signature. */
export interface FoundCredentials {
  /** Still belongs to the store: the gateway neither keeps nor wipes it. */
  readonly secretAccessKey: Buffer;
  readonly principal: Principal;
  /** Whose credentials they are: an account's, or a host's. */
  readonly audience: 'account' | 'host';
}

/**
 * Why an access key can't be used. `unknown`: there is none. `inactive`: it was switched off. `expired`: the session has
 * ended. `token`: the session token is missing, not this key's, or given with a key that has none.
 */
export interface CredentialProblem {
  readonly problem: 'unknown' | 'inactive' | 'expired' | 'token';
}

/** Where access keys are looked up; src/iam has it. */
export interface CredentialStore {
  find(accessKeyId: string, sessionToken: string | undefined): Promise<FoundCredentials | CredentialProblem>;
}
