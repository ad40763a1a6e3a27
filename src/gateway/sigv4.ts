/**
 * Signature Version 4, verified: requests signed in the Authorization header and presigned ones, from the wire form.
 * Source: IAM user guide, "AWS Signature Version 4 for API requests". The wording of errors is AWS's.
 */
import { createHmac, hash, timingSafeEqual } from 'node:crypto';
import type { Clock } from '../aws/clock.ts';
import { AuthError } from './auth-errors.ts';
import {
  canonicalHeaders,
  canonicalRequestHash,
  emptyHash,
  parseQuery,
  type QueryParameter,
} from './canonical-request.ts';
import type { CredentialStore, FoundCredentials } from './credentials.ts';
import type { WireRequest } from './protocols/protocol.ts';
import { SigningKeys } from './signing-keys.ts';

const algorithm = 'AWS4-HMAC-SHA256';
const requiredTerminator = 'aws4_request';
const skewMaxMs = 5 * 60_000;
const presignedMaxSeconds = 7 * 24 * 3600;
const unsignedPayload = 'UNSIGNED-PAYLOAD';

/** Who claims to have signed, in which scope and which headers. */
export interface Identity {
  readonly accessKeyId: string;
  /** `20300131/us-east-1/kms/aws4_request` */
  readonly scope: string;
  readonly date: string;
  readonly region: string;
  readonly service: string;
  readonly terminator: string;
  readonly signedHeaders: readonly string[];
  /** The same, as sent: separated by semicolons. */
  readonly signedHeaderList: string;
}

/** A request's signature and all that is said about it; nothing of it is verified yet. */
export interface Authorization {
  readonly isPresigned: boolean;
  readonly identity: Identity;
  /** 64 hexadecimal digits. */
  readonly signature: string;
  /** `20300131T235959Z` */
  readonly timestamp: string;
  readonly signedAtMs: number;
  /** Presigned requests only. */
  readonly expiresSeconds?: number;
  readonly sessionToken?: string;
  readonly query: readonly QueryParameter[];
}

/**
 * Reads the signature's parameters from header or query string.
 * @throws {AuthError} when there are none, or they are incomplete or contradictory
 */
export function readAuthorization(request: Pick<WireRequest, 'headers' | 'query'>): Authorization {
  const query = parseQuery(request.query);
  if (!query)
    throw new AuthError('incomplete', 'The query string contains a percent-encoding that is not valid UTF-8.');
  const header = request.headers.get('authorization');
  const isPresigned = query.some(([name]) => name === 'X-Amz-Algorithm' || name === 'X-Amz-Signature');
  if (header !== undefined && isPresigned)
    throw new AuthError(
      'mismatch',
      "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
    );
  if (isPresigned) return readPresigned(query);
  if (!header?.startsWith('AWS4-')) throw new AuthError('missing', 'Request is missing Authentication Token');
  return readHeader(header, request, query);
}

/** Where the header ends: the signature, 64 hexadecimal digits. What is before it a client repeats all day. */
const signatureLength = 64;
const identitiesMax = 1000;
/** No client's header is longer, but for its session token, which is elsewhere. */
const identityLengthMax = 1024;
const identities = new Map<string, Identity>();

function readHeader(
  header: string,
  request: Pick<WireRequest, 'headers'>,
  query: readonly QueryParameter[],
): Authorization {
  const beforeSignature = header.slice(0, -signatureLength);
  const usual = identities.get(beforeSignature) ?? rememberIdentity(header, beforeSignature);
  const { identity, signature } = usual
    ? { identity: usual, signature: header.slice(-signatureLength) }
    : readUnusualHeader(header);
  const { timestamp, signedAtMs } = readDate(request);
  return {
    isPresigned: false,
    identity,
    signature: readSignature(signature),
    timestamp,
    signedAtMs,
    sessionToken: request.headers.get('x-amz-security-token'),
    query,
  };
}

/** Parses the part of a header in the usual form that stays the same, and keeps it; undefined for any other form. */
function rememberIdentity(header: string, beforeSignature: string): Identity | undefined {
  const usual = /^AWS4-HMAC-SHA256 Credential=([^\s,=]+), ?SignedHeaders=([^\s,=]+), ?Signature=[0-9a-f]{64}$/.exec(
    header,
  );
  if (!usual) return undefined;
  const identity = readIdentity({ Credential: usual[1]!, SignedHeaders: usual[2]! });
  if (identities.size >= identitiesMax) identities.clear();
  if (header.length <= identityLengthMax) identities.set(beforeSignature, identity);
  return identity;
}

/** Reads a header that is written in an unusual way, or wrong. */
function readUnusualHeader(header: string): { identity: Identity; signature: string } {
  const [name, ...rest] = header.split(/[\s,]+/);
  requireAlgorithm(name!);
  const parameters = new Map<string, string>();
  for (const part of rest.filter((part) => part !== '')) {
    const equals = part.indexOf('=');
    if (equals < 0)
      throw new AuthError(
        'incomplete',
        `'${part}' not a valid key=value pair (missing equal-sign) in Authorization header.`,
      );
    const key = part.slice(0, equals);
    if (parameters.has(key)) throw new AuthError('incomplete', `Authorization header has '${key}' more than once.`);
    parameters.set(key, part.slice(equals + 1));
  }
  const missing = ['Credential', 'Signature', 'SignedHeaders'].filter((key) => !parameters.get(key));
  if (missing.length > 0)
    throw new AuthError(
      'incomplete',
      missing.map((key) => `Authorization header requires '${key}' parameter.`).join(' '),
    );
  return {
    identity: readIdentity({
      Credential: parameters.get('Credential')!,
      SignedHeaders: parameters.get('SignedHeaders')!,
    }),
    signature: parameters.get('Signature')!,
  };
}

const presignedParameters = ['Algorithm', 'Credential', 'Date', 'Expires', 'SignedHeaders', 'Signature'] as const;

function readPresigned(query: readonly QueryParameter[]): Authorization {
  const values = new Map<string, string>();
  for (const [name, value] of query) {
    if (!name.startsWith('X-Amz-')) continue;
    if (values.has(name))
      throw new AuthError('incomplete', `The query-string parameter '${name}' is given more than once.`);
    values.set(name, value);
  }
  const missing = presignedParameters.filter((name) => !values.get(`X-Amz-${name}`));
  if (missing.length > 0)
    throw new AuthError(
      'incomplete',
      `${missing.map((name) => `AWS query-string parameters must include 'X-Amz-${name}'.`).join(' ')} Re-examine the query-string parameters.`,
    );
  requireAlgorithm(values.get('X-Amz-Algorithm')!);
  const expires = values.get('X-Amz-Expires')!;
  const expiresSeconds = Number(expires);
  if (!/^[0-9]{1,7}$/.test(expires) || expiresSeconds < 1 || expiresSeconds > presignedMaxSeconds)
    throw new AuthError('incomplete', `X-Amz-Expires must be between 1 and ${presignedMaxSeconds} seconds.`);
  const timestamp = values.get('X-Amz-Date')!;
  return {
    isPresigned: true,
    identity: readIdentity({
      Credential: values.get('X-Amz-Credential')!,
      SignedHeaders: values.get('X-Amz-SignedHeaders')!,
    }),
    signature: readSignature(values.get('X-Amz-Signature')!),
    timestamp,
    signedAtMs: readTimestamp(timestamp),
    expiresSeconds,
    sessionToken: values.get('X-Amz-Security-Token'),
    query,
  };
}

function requireAlgorithm(name: string): void {
  if (name !== algorithm)
    throw new AuthError(
      'incomplete',
      `Unsupported AWS 'algorithm': '${name.slice(0, 64)}' (only ${algorithm} for now).`,
    );
}

function readIdentity(parts: { Credential: string; SignedHeaders: string }): Identity {
  const credential = parts.Credential;
  const elements = credential.split('/');
  if (elements.length !== 5 || elements.includes(''))
    throw new AuthError(
      'incomplete',
      `Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '${credential.slice(0, 256)}'`,
    );
  const [accessKeyId, date, region, service, terminator] = elements as [string, string, string, string, string];
  const scope = credential.slice(accessKeyId.length + 1);
  const signedHeaders = readSignedHeaders(parts.SignedHeaders);
  return {
    accessKeyId,
    scope,
    date,
    region,
    service,
    terminator,
    signedHeaders,
    signedHeaderList: parts.SignedHeaders,
  };
}

function readSignedHeaders(list: string): readonly string[] {
  const names = list.split(';');
  if (!names.includes('host'))
    throw new AuthError('mismatch', "'Host' must be a 'SignedHeader' in the AWS Authorization.");
  if (new Set(names).size !== names.length)
    throw new AuthError('incomplete', 'A header is named more than once in SignedHeaders.');
  return names;
}

function readSignature(signature: string): string {
  if (!/^[0-9a-f]{64}$/.test(signature))
    throw new AuthError('incomplete', 'The signature must be 64 lower-case hexadecimal digits.');
  return signature;
}

function readDate(request: Pick<WireRequest, 'headers'>): { timestamp: string; signedAtMs: number } {
  const amzDate = request.headers.get('x-amz-date');
  if (amzDate !== undefined) return { timestamp: amzDate, signedAtMs: readTimestamp(amzDate) };
  const date = request.headers.get('date');
  if (date === undefined)
    throw new AuthError(
      'incomplete',
      "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
    );
  if (/^\d{8}T/.test(date)) return { timestamp: date, signedAtMs: readTimestamp(date) };
  const signedAtMs = Date.parse(date);
  if (Number.isNaN(signedAtMs)) throw badDate(date);
  return { timestamp: basicFormat(signedAtMs), signedAtMs };
}

/** The last timestamp read: within a second, requests have the same. */
let lastTimestamp = { text: '', timeMs: 0 };

function readTimestamp(text: string): number {
  if (text === lastTimestamp.text) return lastTimestamp.timeMs;
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text);
  if (!match) throw badDate(text);
  const [, year, month, day, hour, minute, second] = match;
  const timeMs = Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(second));
  if (basicFormat(timeMs) !== text) throw badDate(text);
  lastTimestamp = { text, timeMs };
  return timeMs;
}

function badDate(text: string): AuthError {
  return new AuthError('incomplete', `Date must be in ISO-8601 'basic format'. Got '${text.slice(0, 64)}'.`);
}

/** `20300131T235959Z` */
function basicFormat(timeMs: number): string {
  return `${new Date(timeMs).toISOString().slice(0, 19).replace(/[-:]/g, '')}Z`;
}

/** What the operation that a request is for allows. */
export interface SignaturePolicy {
  /** The service's name in signatures. */
  readonly service: string;
  /** Whether the body may go unsigned (`UNSIGNED-PAYLOAD`). */
  readonly allowsUnsignedPayload: boolean;
}

export type Authenticated = Pick<FoundCredentials, 'principal' | 'audience'> & { readonly region: string };

/** Verifies signatures against a store of credentials. */
export class SignatureVerifier {
  readonly #credentials: CredentialStore;
  readonly #clock: Clock;
  readonly #signingKeys = new SigningKeys();

  constructor(credentials: CredentialStore, clock: Clock) {
    this.#credentials = credentials;
    this.#clock = clock;
  }

  /**
   * Resolves with who signed `request`.
   * @throws {AuthError}
   */
  async verify(request: WireRequest, authorization: Authorization, policy: SignaturePolicy): Promise<Authenticated> {
    this.#requireTime(authorization);
    requireScope(authorization, policy);
    requireSignedMeaning(request, authorization);
    const { identity } = authorization;
    const found = await this.#credentials.find(identity.accessKeyId, authorization.sessionToken);
    if ('problem' in found) {
      if (found.problem === 'expired')
        throw new AuthError('expiredToken', 'The security token included in the request is expired');
      throw new AuthError('unknownKey', 'The security token included in the request is invalid.');
    }
    const headers = canonicalHeaders(request.headers, identity.signedHeaders);
    if (headers === undefined)
      throw new AuthError('mismatch', 'A header that SignedHeaders names is not in the request.');
    const requestHash = canonicalRequestHash({
      method: request.method,
      path: request.path,
      query: authorization.query,
      canonicalHeaders: headers,
      signedHeaders: identity.signedHeaderList,
      payloadHash: payloadHash(request, authorization, policy),
    });
    const key = this.#signingKeys.get(identity, found.secretAccessKey);
    const expected = createHmac('sha256', key)
      .update(`${algorithm}\n${authorization.timestamp}\n${identity.scope}\n${requestHash}`)
      .digest();
    if (!timingSafeEqual(expected, Buffer.from(authorization.signature, 'hex'))) throw mismatch();
    return { principal: found.principal, audience: found.audience, region: identity.region };
  }

  #requireTime({ isPresigned, signedAtMs, timestamp, expiresSeconds }: Authorization): void {
    const now = this.#clock.now();
    if (signedAtMs > now + skewMaxMs)
      throw new AuthError(
        'skewed',
        `Signature not yet current: ${timestamp} is still later than ${basicFormat(now + skewMaxMs)} (${basicFormat(now)} + 5 min.)`,
      );
    if (isPresigned && now > signedAtMs + expiresSeconds! * 1000)
      throw new AuthError(
        'expired',
        `Signature expired: ${basicFormat(signedAtMs + expiresSeconds! * 1000)} is now earlier than ${basicFormat(now)}`,
      );
    if (!isPresigned && signedAtMs < now - skewMaxMs)
      throw new AuthError(
        'skewed',
        `Signature expired: ${timestamp} is now earlier than ${basicFormat(now - skewMaxMs)} (${basicFormat(now)} - 5 min.)`,
      );
  }
}

/** Region names are free, in AWS's form: `us-east-1`, or one's own, such as `berlin-1`. */
const regionName = /^(?=.{3,32}$)[a-z][a-z0-9]*(?:-[a-z0-9]+)+$/;

function requireScope({ identity, timestamp }: Authorization, policy: SignaturePolicy): void {
  const { date, region, service, terminator } = identity;
  const problems: string[] = [];
  if (!regionName.test(region))
    problems.push(`Credential should be scoped to a valid region, not '${region.slice(0, 64)}'.`);
  if (service !== policy.service) problems.push(`Credential should be scoped to correct service: '${policy.service}'.`);
  if (terminator !== requiredTerminator)
    problems.push(
      `Credential should be scoped with a valid terminator: '${requiredTerminator}', not '${terminator.slice(0, 64)}'.`,
    );
  if (!timestamp.startsWith(date) || date.length !== 8)
    problems.push(
      `Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '${date.slice(0, 64)}' != '${timestamp.slice(0, 8)}', from '${timestamp}'.`,
    );
  if (problems.length > 0) throw new AuthError('mismatch', problems.join(' '));
}

/** Headers that say what is asked for must be covered by the signature, or a bystander could change them. */
function requireSignedMeaning(request: WireRequest, { identity: { signedHeaders } }: Authorization): void {
  for (const name of request.headers.keys()) {
    if (name.startsWith('x-amz-') && name !== 'x-amz-user-agent' && !signedHeaders.includes(name))
      throw new AuthError(
        'mismatch',
        `The header '${name.slice(0, 64)}' must be a 'SignedHeader' in the AWS Authorization: there were headers present in the request which were not signed.`,
      );
  }
}

function payloadHash(request: WireRequest, authorization: Authorization, policy: SignaturePolicy): string {
  const declared =
    request.headers.get('x-amz-content-sha256') ??
    (authorization.isPresigned
      ? authorization.query.find(([name]) => name === 'X-Amz-Content-Sha256')?.[1]
      : undefined);
  if (declared === unsignedPayload) {
    if (policy.allowsUnsignedPayload) return declared;
    throw new AuthError(
      'mismatch',
      `This operation of ${policy.service} requires the request body to be signed; ${unsignedPayload} is not accepted.`,
    );
  }
  const actual = request.body.length === 0 ? emptyHash : hash('sha256', request.body, 'hex');
  if (declared !== undefined && declared !== actual)
    throw new AuthError('mismatch', "The provided 'x-amz-content-sha256' does not match what was computed.");
  return actual;
}

function mismatch(): AuthError {
  return new AuthError(
    'mismatch',
    'The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.',
  );
}
