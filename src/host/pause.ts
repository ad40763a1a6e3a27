/** Resolves after `ms`. @throws the signal's reason when that is aborted first */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timer = setTimeout(done, ms);
  signal.addEventListener('abort', done, { once: true });
  function done() {
    clearTimeout(timer);
    signal.removeEventListener('abort', done);
    if (signal.aborted) reject(signal.reason);
    else resolve();
  }
  if (signal.aborted) done();
  return promise;
}
