/**
 * Computations that would hold everything else up for milliseconds (private RSA keys, the larger curves), or for seconds (new
 * RSA keys), run on other threads, libuv's. One processor stays free of each kind for everything else; who waits is a call
 * in flight, of which the pipeline limits how many there are.
 */
import { availableParallelism } from 'node:os';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { Later } from '../aws/service.ts';
import type { Computation } from '../crypto/computation.ts';

const atOnceMax = Math.max(1, availableParallelism() - 1);

/** Runs work in the order in which it comes, so much of it at once and no more. */
class Turns {
  #inWork = 0;
  readonly #waiting: Array<() => void> = [];

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#inWork < atOnceMax) this.#inWork++;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      // The place goes to the next in line, or is free.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#inWork--;
    }
  }
}

/** For what takes milliseconds. */
export const shortTurns = new Turns();
/** For new RSA keys, behind which nothing else is to wait. */
export const longTurns = new Turns();

/** The answer that `finish` makes of a computation's result. A client that has gone away is not computed for. */
export function laterAnswer<T, Output>(
  call: Call,
  computation: Computation<T>,
  finish: (result: T) => Output,
): Later<Output> {
  const { cancelled } = call;
  return new Later(
    async () => {
      try {
        const result = await shortTurns.run(async () => {
          if (cancelled.aborted)
            throw new AwsError('KMSInternalException', 'The client went away before its turn.', { httpStatus: 500 });
          return computation.start();
        });
        return finish(result);
      } finally {
        computation.end();
      }
    },
    () => computation.end(),
  );
}
