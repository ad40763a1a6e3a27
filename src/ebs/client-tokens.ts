/**
 * The client tokens of StartSnapshot: the same token with the same parameters has the same answer, with others it is a
 * conflict. Source: EBS user guide, "Ensure idempotency in StartSnapshot API requests".
 */
import { createHash } from 'node:crypto';
import type { StartSnapshotRequest, StartSnapshotResponse } from '@aws-sdk/client-ebs';
import type { Kysely } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import type { EbsTables } from './records.ts';

/** How long a token is remembered, ms. */
const tokenLifeMs = 24 * 3600_000;

const tables = (call: Call): Kysely<EbsTables> => call.db;

/**
 * What an earlier request with this token was answered, if there was one.
 * @throws {AwsError} ConflictException when it had other parameters
 */
export async function earlierAnswer(
  call: Call,
  input: StartSnapshotRequest,
): Promise<StartSnapshotResponse | undefined> {
  const token = input.ClientToken;
  if (token === undefined) return undefined;
  const earlier = await tables(call)
    .selectFrom('ebs_client_tokens')
    .selectAll()
    .where('account', '=', call.account)
    .where('region', '=', call.region)
    .where('token', '=', token)
    .executeTakeFirst();
  if (!earlier) return undefined;
  if (earlier.parameters_digest !== digestOf(input))
    throw new AwsError(
      'ConflictException',
      `The client token '${token}' was used for a request with other parameters, which made '${earlier.snapshot_id}'.`,
      { httpStatus: 409 },
    );
  const answer = JSON.parse(earlier.answer) as StartSnapshotResponse;
  return { ...answer, StartTime: new Date(answer.StartTime!) };
}

export async function rememberAnswer(
  call: Call,
  input: StartSnapshotRequest,
  answer: StartSnapshotResponse,
): Promise<void> {
  if (input.ClientToken === undefined) return;
  await tables(call)
    .insertInto('ebs_client_tokens')
    .values({
      account: call.account,
      region: call.region,
      token: input.ClientToken,
      parameters_digest: digestOf(input),
      snapshot_id: answer.SnapshotId!,
      answer: JSON.stringify(answer),
      created_at: call.clock.now(),
    })
    .execute();
}

/** The request has come to nothing: its token is free again. */
export async function forgetAnswer(call: Call, input: StartSnapshotRequest): Promise<void> {
  if (input.ClientToken === undefined) return;
  await tables(call)
    .deleteFrom('ebs_client_tokens')
    .where('account', '=', call.account)
    .where('region', '=', call.region)
    .where('token', '=', input.ClientToken)
    .execute();
}

/** Forgets old tokens. */
export async function housekeeping(call: Call): Promise<void> {
  await call.transaction(async (inside) => {
    await tables(inside)
      .deleteFrom('ebs_client_tokens')
      .where('created_at', '<', inside.clock.now() - tokenLifeMs)
      .execute();
  });
}

function digestOf({ ClientToken: _, ...parameters }: StartSnapshotRequest): string {
  return createHash('sha256')
    .update(JSON.stringify(Object.entries(parameters).sort()))
    .digest('hex');
}
