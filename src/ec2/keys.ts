/**
 * What EC2 asks of KMS for a caller: is this key usable, a data key for a volume, a grant for the host of an instance, its
 * end. Each is an ordinary KMS call through the pipeline, authorized and recorded for the caller.
 * Source: KMS developer guide, "How Amazon Elastic Block Store (Amazon EBS) uses AWS KMS".
 */
import type {
  CreateGrantResponse,
  DescribeKeyResponse,
  GenerateDataKeyWithoutPlaintextResponse,
  KeyMetadata,
  ReEncryptResponse,
} from '@aws-sdk/client-kms';
import { parseArn, partitionOf } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import { AwsError, isAwsError } from '../aws/errors.ts';

/** The AWS managed key for EBS; KMS makes it when it is first used. */
export const managedKeyAlias = 'alias/aws/ebs';
const dataKeyBytes = 64;
const contextName = 'aws:ebs:id';

/** The encryption context of a volume's data key: the only name is `aws:ebs:id`. */
export function encryptionContext(volumeId: string): Record<string, string> {
  return { [contextName]: volumeId };
}

/** The session as which an instance's host asks KMS for data keys. */
export function infrastructurePrincipalArn(account: string, region: string, instanceId: string): string {
  return `arn:${partitionOf(region)}:sts::${account}:assumed-role/aws:ec2-infrastructure/${instanceId}`;
}

/** Why a key can't be used: the EC2 error to answer with, and the cause as events state it. */
export class KeyUnusable extends AwsError {
  readonly keyArn: string | undefined;
  readonly eventCause: string;
  constructor(error: AwsError, details: { keyArn?: string | undefined; eventCause: string }) {
    super(error.code, error.message, { httpStatus: error.httpStatus, cause: error });
    this.keyArn = details.keyArn;
    this.eventCause = details.eventCause;
  }
}

/**
 * The ARN of a key that can encrypt volumes.
 * @param named key id, key ARN, alias name or alias ARN
 * @throws {KeyUnusable} missing, another's, not symmetric, or in a state in which it can't be used
 */
export async function usableKey(call: Call, named: string): Promise<string> {
  const { KeyMetadata: key } = await asking(named, undefined, () =>
    call.invoke<DescribeKeyResponse>('kms', 'DescribeKey', { KeyId: named }),
  );
  checkKey(named, key!);
  return key!.Arn!;
}

/** A new data key for `volumeId`, as KMS encrypted it under the key that was named. */
export async function newDataKey(
  call: Call,
  named: string,
  volumeId: string,
): Promise<{ keyArn: string; encryptedDataKey: Uint8Array }> {
  const keyArn = await usableKey(call, named);
  const answer = await asking(named, keyArn, () =>
    call.invoke<GenerateDataKeyWithoutPlaintextResponse>('kms', 'GenerateDataKeyWithoutPlaintext', {
      KeyId: named,
      NumberOfBytes: dataKeyBytes,
      EncryptionContext: encryptionContext(volumeId),
    }),
  );
  return { keyArn: answer.KeyId!, encryptedDataKey: answer.CiphertextBlob! };
}

/** A data key as KMS encrypted it, and the value of its encryption context. */
export interface WrappedDataKey {
  readonly keyArn: string;
  readonly encryptedDataKey: Uint8Array;
  readonly contextId: string;
}

/** The same data key, encrypted under the key and for the context of `to`. */
export async function rewrapDataKey(
  call: Call,
  from: WrappedDataKey,
  to: { readonly keyArn: string; readonly contextId: string },
): Promise<Uint8Array> {
  const answer = await asking(from.keyArn, from.keyArn, () =>
    call.invoke<ReEncryptResponse>('kms', 'ReEncrypt', {
      CiphertextBlob: from.encryptedDataKey,
      SourceKeyId: from.keyArn,
      SourceEncryptionContext: encryptionContext(from.contextId),
      DestinationKeyId: to.keyArn,
      DestinationEncryptionContext: encryptionContext(to.contextId),
    }),
  );
  return answer.CiphertextBlob!;
}

/**
 * Lets a host, as the session `sessionName` (an instance's id, or that of the volume or snapshot that a task is about),
 * decrypt the data keys whose context is `contextId`, and nothing else. Resolves with the grant's id.
 */
export async function grantDecrypt(
  call: Call,
  keyArn: string,
  contextId: string,
  sessionName: string,
): Promise<string> {
  const answer = await asking(keyArn, keyArn, () =>
    call.invoke<CreateGrantResponse>('kms', 'CreateGrant', {
      KeyId: keyArn,
      GranteePrincipal: infrastructurePrincipalArn(call.account, call.region, sessionName),
      Operations: ['Decrypt'],
      Constraints: { EncryptionContextSubset: encryptionContext(contextId) },
    }),
  );
  return answer.GrantId!;
}

/** Ends a grant. One that is gone already (revoked, or its key deleted) is as good. */
export async function retireGrant(call: Call, keyArn: string, grantId: string): Promise<void> {
  const key = parseArn(keyArn)!;
  try {
    await call.asItself(key.account, key.region).invoke('kms', 'RetireGrant', { KeyId: keyArn, GrantId: grantId });
  } catch (error) {
    if (!isAwsError(error, 'NotFoundException') && !isAwsError(error, 'InvalidGrantIdException')) throw error;
  }
}

/** What KMS said about a key, as EC2 says it. For a host's report too, which passes KMS's code and message on. */
export function keyError(code: string, message: string, named: string, keyArn: string | undefined): KeyUnusable {
  switch (code) {
    case 'DisabledException':
    case 'KMSInvalidStateException':
      return new KeyUnusable(new AwsError('InvalidKMSKey.InvalidState', `The KMS key can't be used: ${message}`), {
        keyArn,
        eventCause: message,
      });
    case 'AccessDeniedException':
      return new KeyUnusable(
        new AwsError('UnauthorizedOperation', `You are not authorized to use the KMS key '${named}'. ${message}`, {
          httpStatus: 403,
        }),
        { keyArn, eventCause: message },
      );
    default:
      return new KeyUnusable(
        new AwsError('InvalidParameterValue', `Value (${named}) for parameter KmsKeyId is invalid. ${message}`),
        { keyArn, eventCause: message },
      );
  }
}

/** Whether an error code of KMS is about the key and the caller, rather than about trouble in the system. */
export function isKeyError(code: string): boolean {
  return /^(Disabled|KMSInvalidState|AccessDenied|NotFound|InvalidArn|InvalidKeyUsage|UnsupportedOperation|Validation)Exception$/.test(
    code,
  );
}

async function asking<T>(named: string, keyArn: string | undefined, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof AwsError && isKeyError(error.code)) throw keyError(error.code, error.message, named, keyArn);
    throw error;
  }
}

function checkKey(named: string, key: KeyMetadata): void {
  const arn = key.Arn!;
  if (key.KeySpec !== 'SYMMETRIC_DEFAULT' || key.KeyUsage !== 'ENCRYPT_DECRYPT') {
    const kind = key.KeyUsage === 'GENERATE_VERIFY_MAC' ? 'an HMAC key' : 'an asymmetric key';
    throw keyError(
      'InvalidKeyUsageException',
      `${arn} is ${kind} (${key.KeySpec}); volumes need a symmetric encryption key.`,
      named,
      arn,
    );
  }
  if (key.KeyState !== 'Enabled')
    throw keyError('KMSInvalidStateException', `${arn} ${stateSentence(key.KeyState)}`, named, arn);
}

/** The end of KMS's sentence about a key's state. Source: KMS developer guide, "Key states of AWS KMS keys". */
function stateSentence(state: string | undefined): string {
  const sentences: Record<string, string> = {
    Disabled: 'is disabled.',
    PendingDeletion: 'is pending deletion.',
    PendingImport: 'is pending import.',
    PendingReplicaDeletion: 'is pending replica deletion.',
    Unavailable: 'is unavailable.',
    Creating: 'is creating.',
    Updating: 'is updating.',
  };
  return sentences[state ?? ''] ?? `is in state ${state}.`;
}
