/**
 * What a message holds at most, characters: some repeat what the client sent, which may be a whole body. The ids that a
 * request may name, 1,000, fit: clients look for theirs in the message that says which are not there.
 */
const messageLengthMax = 32_768;

/**
 * Errors in the form AWS clients know: a code, a message, who is at fault, and the HTTP status. They are thrown where the
 * rule lives and rendered once, by the protocol of the call that failed.
 */
export class AwsError extends Error {
  readonly code: string;
  readonly httpStatus: number;
  readonly fault: 'client' | 'server';
  /** Members that some modelled exceptions carry beside the message (EBS direct's `Reason`, for one). */
  readonly members: Readonly<Record<string, unknown>>;

  /**
   * @param code the error code as the AWS service names it (`NotFoundException`, `InvalidVolume.NotFound`)
   * @param message what is wrong and what to do about it; names the resource, the missing permission or the limit
   */
  constructor(
    code: string,
    message: string,
    options: { httpStatus?: number; members?: Record<string, unknown>; cause?: unknown } = {},
  ) {
    super(bounded(message), { cause: options.cause });
    this.name = 'AwsError';
    this.code = code;
    this.httpStatus = options.httpStatus ?? 400;
    this.fault = this.httpStatus >= 500 ? 'server' : 'client';
    this.members = options.members ?? {};
  }
}

function bounded(message: string): string {
  return message.length <= messageLengthMax ? message : `${message.slice(0, messageLengthMax - 1)}…`;
}

/** Whether `error` is an AwsError, of the given code when one is named. */
export function isAwsError(error: unknown, code?: string): error is AwsError {
  return error instanceof AwsError && (code === undefined || error.code === code);
}
