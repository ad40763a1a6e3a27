/**
 * ClientToken: the same token with the same parameters gives the same resource; with other parameters, or once that
 * resource is gone, IdempotentParameterMismatch. Source: EC2 API reference, "Ensuring idempotency".
 */
import { createHash } from 'node:crypto';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { invalidValue } from './errors.ts';
import { preparedQuery } from './records.ts';

const tokenLengthMax = 64;
/** How long a token is remembered after it was used, ms. */
export const tokenLifeMs = 30 * 24 * 3600 * 1000;

interface TokenRequest {
  readonly ClientToken?: string | undefined;
}

const selectToken = preparedQuery<{ parameters_digest: string; resource_id: string }>((db) =>
  db
    .selectFrom('ec2_client_tokens')
    .select(['parameters_digest', 'resource_id'])
    .where('account', '=', '')
    .where('region', '=', '')
    .where('operation', '=', '')
    .where('token', '=', ''),
);

const insertToken = preparedQuery<never>((db) =>
  db.insertInto('ec2_client_tokens').values({
    account: '',
    region: '',
    operation: '',
    token: '',
    parameters_digest: '',
    resource_id: '',
    created_at: 0,
  }),
);

/** @throws {AwsError} InvalidParameterValue */
export function checkClientToken(input: TokenRequest): void {
  const token = input.ClientToken;
  if (token && (token.length > tokenLengthMax || !/^[\x20-\x7e]+$/.test(token)))
    throw invalidValue(
      `Value for parameter ClientToken is invalid. A token has at most ${tokenLengthMax} ASCII characters; this one has ${token.length}.`,
    );
}

/**
 * The id of what an earlier request with this token made, or undefined for a token that is new here.
 * @throws {AwsError} IdempotentParameterMismatch when that request had other parameters
 */
export async function earlierResult(call: Call, operation: string, input: TokenRequest): Promise<string | undefined> {
  if (!input.ClientToken) return undefined;
  const { rows } = await selectToken(call, [call.account, call.region, operation, input.ClientToken]);
  const row = rows[0];
  if (row && row.parameters_digest !== digestOf(input)) throw tokenMismatch(input.ClientToken);
  return row?.resource_id;
}

export function tokenMismatch(token: string): AwsError {
  return new AwsError(
    'IdempotentParameterMismatch',
    `The client token '${token}' was used before, with other parameters or for a resource that no longer exists.`,
  );
}

export async function rememberResult(
  call: Call,
  operation: string,
  input: TokenRequest,
  resourceId: string,
): Promise<void> {
  if (!input.ClientToken) return;
  await insertToken(call, [
    call.account,
    call.region,
    operation,
    input.ClientToken,
    digestOf(input),
    resourceId,
    call.clock.now(),
  ]);
}

function digestOf(input: object): string {
  const { ClientToken: _token, DryRun: _dryRun, ...parameters } = input as Record<string, unknown>;
  return createHash('sha256').update(canonicalJson(parameters)).digest('base64url');
}

function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`);
    return `{${members.join(',')}}`;
  }
  return JSON.stringify(value) ?? 'null';
}
