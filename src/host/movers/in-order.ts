/** Works on many items at once and takes the results in the order of the items. */

/** Longest stretch without giving way to the thread's other work, ms. */
const turnMs = 10;

export interface InOrderOptions {
  /** Results that may be outstanding. */
  readonly limit: number;
  readonly signal: AbortSignal;
}

/**
 * Calls `work` for each item and `take` with each result in the order of the items. Results that are there at once cost no
 * promise. Rejects with the first error, once the signal that all work was given is aborted and none is under way any more.
 */
export async function inOrder<Item, Result>(
  items: Iterable<Item>,
  { limit, signal: outer }: InOrderOptions,
  work: (item: Item, signal: AbortSignal) => Result | Promise<Result>,
  take: (result: Result, item: Item) => void,
): Promise<void> {
  const failed = new AbortController();
  const signal = AbortSignal.any([outer, failed.signal]);
  const pending: { readonly item: Item; readonly result: Promise<Result> }[] = [];
  const takeOldest = async () => {
    const { item, result } = pending.shift()!;
    take(await result, item);
  };
  let turnEnds = performance.now() + turnMs;
  try {
    for (const item of items) {
      signal.throwIfAborted();
      const result = work(item, signal);
      if (result instanceof Promise) {
        // Handled when its turn comes; until then it must not count as unhandled.
        result.catch(() => {});
        pending.push({ item, result });
      } else if (pending.length === 0) take(result, item);
      else pending.push({ item, result: Promise.resolve(result) });
      while (pending.length >= limit) await takeOldest();
      if (performance.now() > turnEnds) {
        await new Promise((resolve) => setImmediate(resolve));
        turnEnds = performance.now() + turnMs;
      }
    }
    while (pending.length > 0) await takeOldest();
  } catch (error) {
    failed.abort(error);
    throw error;
  } finally {
    await Promise.allSettled(pending.map(({ result }) => result));
  }
}
