import type { Kysely } from 'kysely';
import type { Clock } from './clock.ts';
import type { Signals } from './signals.ts';

/** Who makes a call. `arn` is what policies match and what the trail shows. */
export interface Principal {
  readonly type: 'Root' | 'IAMUser' | 'AssumedRole' | 'AWSService';
  readonly account: string;
  readonly arn: string;
  /** CloudTrail's `principalId`, STS's `UserId`. */
  readonly principalId: string;
  readonly accessKeyId?: string;
  readonly userName?: string;
  /** For an assumed role: the role behind the session, as CloudTrail's `sessionContext.sessionIssuer` shows it. */
  readonly sessionIssuer?: { readonly arn: string; readonly principalId: string; readonly userName: string };
  /** For temporary credentials: when they were made and when they end, ms since the epoch. */
  readonly session?: {
    readonly createdAt: number;
    readonly expiresAt: number;
    /** What was asked for with the session: it can do no more than these policies allow (a document as JSON; ARNs). */
    readonly policy?: string;
    readonly policyArns?: readonly string[];
    /** Tags of the session, beside those of the role. */
    readonly tags?: Readonly<Record<string, string>>;
    /** Those of its tags that sessions it asks for have as well. */
    readonly transitiveTagKeys?: readonly string[];
    /** Who is behind the session, as was said when it was made; handed on to sessions that it asks for. */
    readonly sourceIdentity?: string;
  };
}

/** An event for the bus, in the fields that the source decides; the bus adds id, time, account and region. */
export interface EventDraft {
  readonly source: string;
  readonly detailType: string;
  readonly resources: readonly string[];
  readonly detail: Readonly<Record<string, unknown>>;
}

// biome-ignore lint/suspicious/noExplicitAny: each service narrows it to its own tables.
export type AnyDatabase = Kysely<any>;

/**
 * One API call on its way: who, where, when, on whose behalf. Handlers get everything they need of the world through it.
 */
export interface Call {
  readonly requestId: string;
  readonly principal: Principal;
  /** The account that the call acts in: the principal's. */
  readonly account: string;
  readonly region: string;
  readonly clock: Clock;
  readonly sourceIp: string;
  readonly userAgent: string;
  /** Whether the request came over TLS. */
  readonly isSecure?: boolean;
  /** The service that makes this call for the principal (`ec2.amazonaws.com`), if one does. */
  readonly via?: string;
  /** Aborted when the client has gone away or the server shuts down; only operations that wait need look at it. */
  readonly cancelled: AbortSignal;

  /**
   * The database. In an operation with effect `reads` or `writes` it is this operation's own transaction; in one with
   * effect `waits` it exists only inside `transaction`.
   */
  readonly db: AnyDatabase;
  /**
   * For operations with effect `waits`: runs `work` as one transaction, and resolves when it is on disk. The call given to
   * `work` is this one with a database.
   */
  transaction<T>(work: (call: Call) => Promise<T>): Promise<T>;

  /**
   * Calls another service's operation through the same pipeline, for the same principal, on behalf of which this service
   * acts (`via`): authorized and recorded like any call. Inside a transaction it joins it; outside of one it is a call of
   * its own, durable when it resolves (and may be one that waits).
   * @throws {AwsError} what the operation throws
   */
  invoke<Output>(service: string, operation: string, input: object): Promise<Output>;

  /**
   * This call, made by the service itself in an account and region: for work that no caller asked for (a host's report,
   * housekeeping). Shares the transaction, if there is one.
   */
  asItself(account: string, region: string): Call;

  /**
   * This call as it goes on in another region, for the same principal: what a service does there with `invoke` is
   * authorized and recorded there. Shares the transaction, if there is one.
   */
  inRegion(region: string): Call;

  /**
   * Raises a signal for whoever waits on `topic` (another operation, a host's Sync), once this call's changes are on disk.
   * Not raised when the call fails.
   */
  raise(topic: string): void;
  /** To wait for signals; only in operations with effect `waits`, outside a transaction. */
  readonly signals: Signals;

  /** Puts an event on the bus, together with this call's outcome (also when the call fails). */
  emit(event: EventDraft): void;
}
