import { describe, expect, it } from 'vitest';
import { Signals } from './signals.ts';

describe('Signals', () => {
  it('loses nothing between reading a version and waiting for the next', async () => {
    const signals = new Signals();
    const version = signals.version('t');
    signals.raise('t');
    expect(await signals.changed('t', version, 10_000)).toBe(true);
  });
  it('wakes all that wait on the topic and nobody else', async () => {
    const signals = new Signals();
    const waits = [signals.changed('a', 0, 10_000), signals.changed('a', 0, 10_000), signals.changed('b', 0, 5)];
    signals.raise('a');
    expect(await Promise.all(waits)).toEqual([true, true, false]);
  });
  it('gives up when the caller goes away', async () => {
    const signals = new Signals();
    const gone = new AbortController();
    const wait = signals.changed('a', 0, 10_000, gone.signal);
    gone.abort();
    expect(await wait).toBe(false);
    expect(await signals.changed('a', 0, 10_000, gone.signal)).toBe(false);
  });
});
