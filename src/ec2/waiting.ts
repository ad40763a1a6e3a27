/** Waiting for a host to do what was wished: bounded, and woken as soon as something changes. */
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { tables } from './records.ts';

/** How long an API call waits for hosts before it answers with the state as it is, ms. */
const hostWaitMaxMs = 10_000;

/** When a call that begins to wait now must answer; in real time, so that a test that stops the clock never hangs. */
export function waitDeadline(): number {
  return performance.now() + hostWaitMaxMs;
}

/**
 * Looks again each time `topic` is raised, until `look` finds what it looks for. Resolves with that, or with what `look`
 * gives when told that time is up.
 * @param look runs in a transaction; undefined means: not yet
 */
export async function waitFor<T>(
  call: Call,
  topic: string,
  look: (inside: Call, isLastLook: boolean) => Promise<T | undefined>,
  deadline = waitDeadline(),
): Promise<T | undefined> {
  for (;;) {
    const version = call.signals.version(topic);
    const isLastLook = performance.now() >= deadline || call.cancelled.aborted;
    const found = await call.transaction((inside) => look(inside, isLastLook));
    if (found !== undefined || isLastLook) return found;
    await call.signals.changed(topic, version, deadline - performance.now(), call.cancelled);
  }
}

/** Throws why the wish with this generation was undone, if it was. */
export async function throwFailure(call: Call, generations: readonly number[]): Promise<void> {
  if (generations.length === 0) return;
  const failure = await tables(call)
    .selectFrom('ec2_failures')
    .selectAll()
    .where('generation', 'in', generations as number[])
    .executeTakeFirst();
  if (!failure) return;
  throw new AwsError(failure.code, failure.message, {
    httpStatus: failure.code === 'UnauthorizedOperation' ? 403 : 400,
  });
}
