import type { StaticOperationSchema } from '@smithy/types';
import type { Migration } from '../database/migrations.ts';
import type { Call } from './call.ts';
import type { AwsError } from './errors.ts';

/** A policy document as JSON (IAM's grammar, version 2012-10-17). */
export interface PolicyDocument {
  readonly Version?: string;
  readonly Id?: string;
  readonly Statement: PolicyStatement | readonly PolicyStatement[];
}
export interface PolicyStatement {
  readonly Sid?: string;
  readonly Effect: 'Allow' | 'Deny';
  readonly Principal?: unknown;
  readonly NotPrincipal?: unknown;
  readonly Action?: string | readonly string[];
  readonly NotAction?: string | readonly string[];
  readonly Resource?: string | readonly string[];
  readonly NotResource?: string | readonly string[];
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>;
}

/** A KMS grant as the evaluator needs it. */
export interface GrantStatement {
  readonly grantId: string;
  readonly granteePrincipal: string;
  readonly operations: readonly string[];
  readonly encryptionContextEquals?: Readonly<Record<string, string>>;
  readonly encryptionContextSubset?: Readonly<Record<string, string>>;
  /** The resource on whose behalf a service must make the request. */
  readonly sourceArn?: string;
}

/** One thing the caller must be allowed to do before the operation runs. */
export interface AccessRequest {
  /** `kms:Decrypt`, `ec2:CreateVolume` */
  readonly action: string;
  /** The resource's ARN, or `*` where the action knows none. */
  readonly resource: string;
  readonly resourceAccount: string;
  /** The policy on the resource itself, where it has one (a KMS key always does). */
  readonly resourcePolicy?: PolicyDocument;
  /**
   * Set for an AWS managed key: the service through which alone its account's principals may use it
   * (`ec2.amazonaws.com` for `alias/aws/ebs`). Reads of its metadata are open to the account.
   */
  readonly onlyVia?: string;
  /** Grants on the resource that may apply to the caller; loaded only when nothing else decides. */
  readonly grants?: () => Promise<readonly GrantStatement[]>;
  /** What the error of a refusal calls the resource where the caller may not know it. Default: `this resource`. */
  readonly hiddenAs?: string;
  /** Condition keys of this request (`kms:EncryptionContext:aws:ebs:id` …), beside the global ones. */
  readonly context?: Readonly<Record<string, string | readonly string[]>>;
}

/** Why a call was refused; the service words the error in its own form. */
export interface Denial {
  readonly request: AccessRequest;
  readonly explicit: boolean;
  /**
   * Refused by another account's resource, or as if it were: the caller may not know whether it exists, so the error must not
   * depend on it.
   */
  readonly isHidden?: boolean;
  /**
   * The end of the sentence "… is not authorized to perform: A on resource: R because ‹reason›", or, for an explicit deny,
   * "… with ‹reason›" (denial.ts).
   */
  readonly reason: string;
}

/** What the trail shows of a call beyond what every record has. Never any plaintext, ciphertext or key material. */
export interface RecordDetails {
  readonly requestParameters?: Readonly<Record<string, unknown>> | null;
  readonly responseElements?: Readonly<Record<string, unknown>> | null;
  readonly resources?: ReadonlyArray<{ readonly ARN: string; readonly accountId: string; readonly type?: string }>;
  /**
   * What LookupEvents finds the record by and lists as its resources (`AWS::EC2::Volume`, `vol-…`). Default: the ARNs and
   * types of `resources`.
   */
  readonly lookupResources?: ReadonlyArray<{ readonly type: string; readonly name: string }>;
  /** CloudTrail's `additionalEventData`. */
  readonly additionalEventData?: Readonly<Record<string, unknown>>;
  /** For what a service does by itself (rotates a key): the record is an AwsServiceEvent, with these details if it has any. */
  readonly serviceEventDetails?: Readonly<Record<string, unknown>>;
}

/**
 * What an operation with effect `reads` may answer with instead of its output: the rest of its work takes long (an RSA
 * signature), and needs no database. It is done while others have the database, and the call is recorded when it is done.
 */
export class Later<Output> {
  /** Does the rest. Uses nothing of the call's database. */
  readonly finish: () => Promise<Output>;
  /** Called instead of `finish` when there is too much to do: frees what `finish` would have used. */
  readonly drop: () => void;

  constructor(finish: () => Promise<Output>, drop: () => void = () => {}) {
    this.finish = finish;
    this.drop = drop;
  }
}

/**
 * One operation of one service. The pipeline runs `resolve`, then authorizes what `access` lists, then runs `handle`, then
 * records. `subject` is what the request is about (a key, a volume), looked up once and shared by the steps.
 */
// biome-ignore lint/suspicious/noExplicitAny: a table of operations holds many types; each definition is typed by itself.
export interface Operation<Input = any, Output = any, Subject = any> {
  readonly name: string;
  /** The official schema; absent for the system's own internal operations, whose bodies are plain JSON. */
  readonly schema?: StaticOperationSchema;
  /**
   * `reads`: changes nothing. `writes`: one transaction, rolled back if it throws. `waits`: waits for something outside
   * the database; makes its own transactions through `call.transaction`, and resolves its subject there too.
   */
  readonly effect: 'reads' | 'writes' | 'waits';
  /** CloudTrail's `readOnly`. Default: effect is `reads`. */
  readonly readOnly?: boolean;
  /** CloudTrail's `eventName`, for one that is a part of another operation. Default: `name`. */
  readonly eventName?: string;
  /** False for the system's own chatter (a host's Sync), which is not an API call of a customer. Default true. */
  readonly recorded?: boolean;
  /**
   * Who may call it at all: `account` any authenticated principal, subject to `access`; `host` only host credentials;
   * `operator` only the first administrator account's root; `service` only other services through `invoke`.
   * Default `account`.
   */
  readonly audience?: 'account' | 'host' | 'operator' | 'service';
  /** Validates the input and looks up what it is about. Throws AwsError for bad input or a missing resource. */
  readonly resolve?: (call: Call, input: Input) => Promise<Subject> | Subject;
  /** Whether its body may go unsigned (`UNSIGNED-PAYLOAD`): it is nothing but data, whose checksum a signed header has. */
  readonly takesUnsignedBody?: true;
  readonly access: (call: Call, input: Input, subject: Subject) => readonly AccessRequest[];
  readonly handle: (
    call: Call,
    input: Input,
    subject: Subject,
  ) => Promise<Output | Later<Output>> | Output | Later<Output>;
  /** Also called for a failed call, with what is known of it by then. */
  readonly record?: (
    call: Call,
    input: Input,
    output: Output | undefined,
    subject: Subject | undefined,
  ) => RecordDetails;
}

export type Protocol = 'awsJson1_1' | 'awsQuery' | 'ec2Query' | 'restJson1' | 'internalJson';

/** One service: how it is spoken to, and the operations it has. */
export interface Service {
  /** Its name in signatures and in `invoke` (`kms`, `ec2`, `sts`, `cloudtrail`, `coffer`, `coffer-host`). */
  readonly name: string;
  /** Its name in policies' conditions and in the trail (`kms.amazonaws.com`). */
  readonly eventSource: string;
  readonly protocol: Protocol;
  /** JSON protocols: what stands before the dot in `X-Amz-Target` (`TrentService`). May have several spellings. */
  readonly targetPrefixes?: readonly string[];
  /** Query protocols: the API version that requests name, and the namespace of answers. */
  readonly apiVersion?: string;
  readonly xmlNamespace?: string;
  readonly operations: Readonly<Record<string, Operation>>;
  /** Every operation that the official SDK lists, whether we have it or not. */
  readonly catalogue: Readonly<Record<string, StaticOperationSchema>>;
  readonly migrations: readonly Migration[];
  /** The error for a refused call, in this service's form. */
  readonly accessDenied: (call: Call, denial: Denial) => AwsError;
  /** Work to do regularly (expired keys to delete …). Runs as the service itself, at start and then every minute. */
  readonly housekeeping?: (call: Call) => Promise<void>;
}

/** What services tell each other: no one else may ask, it takes nobody's leave, and the trail has nothing of it. */
export const betweenServices = { audience: 'service', recorded: false, access: () => [] } as const;

/** Defines an operation; exists so that input, output and subject are inferred from the functions given. */
export function operation<Input, Output, Subject = undefined>(
  definition: Operation<Input, Output, Subject>,
): Operation<Input, Output, Subject> {
  return definition;
}
