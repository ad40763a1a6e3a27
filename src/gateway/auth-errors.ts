/**
 * What goes wrong when a caller is authenticated, and how each protocol says it. Codes, wording and statuses are AWS's:
 * "Common error types" of the API references; EC2's "Error codes for the Amazon EC2 API".
 */
import { AwsError } from '../aws/errors.ts';
import type { Protocol } from '../aws/service.ts';

export type AuthProblem =
  /** No signature at all. */
  | 'missing'
  /** A signature that lacks parts or is written wrong. */
  | 'incomplete'
  /** No such access key, or it is inactive, or its session token is not its own. */
  | 'unknownKey'
  /** The session has ended. */
  | 'expiredToken'
  /** The signature is not the one of this request, or not for this service. */
  | 'mismatch'
  /** Signed too long ago, or for too far in the future. */
  | 'skewed'
  /** A presigned request whose time is over. */
  | 'expired';

export class AuthError extends Error {
  readonly problem: AuthProblem;
  constructor(problem: AuthProblem, message: string) {
    super(message);
    this.problem = problem;
  }
}

type Rendering = readonly [code: string, httpStatus: number];

const query: Record<AuthProblem, Rendering> = {
  missing: ['MissingAuthenticationToken', 403],
  incomplete: ['IncompleteSignature', 400],
  unknownKey: ['InvalidClientTokenId', 403],
  expiredToken: ['ExpiredToken', 403],
  mismatch: ['SignatureDoesNotMatch', 403],
  skewed: ['SignatureDoesNotMatch', 403],
  expired: ['SignatureDoesNotMatch', 403],
};

const ec2: Record<AuthProblem, Rendering> = {
  ...query,
  missing: ['MissingAuthenticationToken', 403],
  unknownKey: ['AuthFailure', 401],
  expiredToken: ['RequestExpired', 400],
  skewed: ['RequestExpired', 400],
  expired: ['RequestExpired', 400],
};

const json: Record<AuthProblem, Rendering> = {
  missing: ['MissingAuthenticationTokenException', 400],
  incomplete: ['IncompleteSignatureException', 400],
  unknownKey: ['UnrecognizedClientException', 400],
  expiredToken: ['ExpiredTokenException', 400],
  mismatch: ['InvalidSignatureException', 400],
  skewed: ['InvalidSignatureException', 400],
  expired: ['InvalidSignatureException', 400],
};

const rest = Object.fromEntries(
  Object.entries(json).map(([problem, [code]]) => [problem, [code, 403]]),
) as unknown as Record<AuthProblem, Rendering>;

const renderings: Record<Protocol, Record<AuthProblem, Rendering>> = {
  awsQuery: query,
  ec2Query: ec2,
  awsJson1_1: json,
  internalJson: json,
  restJson1: rest,
};

/** The error that a client of `protocol` knows. */
export function renderAuthError(error: AuthError, protocol: Protocol): AwsError {
  const [code, httpStatus] = renderings[protocol][error.problem];
  const message =
    protocol !== 'ec2Query'
      ? error.message
      : error.problem === 'unknownKey'
        ? 'AWS was not able to validate the provided access credentials'
        : code === 'RequestExpired'
          ? `Request has expired. ${error.message}`
          : error.message;
  return new AwsError(code, message, { httpStatus });
}
