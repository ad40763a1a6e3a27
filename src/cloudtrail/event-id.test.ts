import { describe, expect, it } from 'vitest';
import { firstPlaceAt, nextEventId, placesOf } from './event-id.ts';

describe('nextEventId', () => {
  it('never repeats or goes back, even when the clock does', () => {
    const now = Date.now() + 1_000_000;
    let last = 0;
    const ids = new Set<string>();
    for (let i = 0; i < 10_000; i++) {
      const { seq, eventId } = nextEventId(i % 3 === 0 ? now - 5000 : now);
      expect(seq).toBeGreaterThan(last);
      last = seq;
      ids.add(eventId);
    }
    expect(ids.size).toBe(10_000);
  });
  it('makes version 7 UUIDs whose place can be read from them', () => {
    for (let i = 0; i < 5000; i++) {
      const { seq, eventId } = nextEventId(Date.now());
      expect(eventId).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      const places = placesOf(eventId)!;
      expect(seq).toBeGreaterThanOrEqual(places.from);
      expect(seq).toBeLessThan(places.until);
    }
  });
  it('gives places that numbers hold exactly until the year 2090', () => {
    const { seq, eventId } = nextEventId(Date.UTC(2089, 11, 31));
    expect(Number.isSafeInteger(seq)).toBe(true);
    expect(nextEventId(0).seq).toBe(seq + 1);
    expect(placesOf(eventId)!.from).toBe(seq);
    expect(firstPlaceAt(Date.UTC(2089, 11, 31))).toBe(seq);
  });
  it('knows an id that is not one of ours', () => {
    expect(placesOf('1f4b6c1e-9d3c-4b52-8a0e-6d1f1c3a9b77')).toBeUndefined();
    expect(placesOf("' or 1=1 --")).toBeUndefined();
  });
});
