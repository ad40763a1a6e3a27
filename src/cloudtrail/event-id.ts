import { randomUUID } from 'node:crypto';

/** Records that one millisecond has room for; past that they borrow from the next. */
const recordsPerMs = 4096;
/** From here places count: from 1970 they would outgrow the integers that numbers hold exactly in 2039, so in 2090. */
const firstMs = Date.UTC(2021, 0, 1);

let lastSeq = 0;

/**
 * The next record's place in the trail and its public id. The place is `time since 2021 × 4096 + counter` and never
 * repeats or goes back, even when the clock does. The id is a UUID of version 7 (RFC 9562) whose time is the place's, so
 * that an event is found by its id without an index of its own.
 */
export function nextEventId(timeMs: number): { seq: number; eventId: string } {
  lastSeq = Math.max(lastSeq + 1, firstPlaceAt(timeMs));
  const time = (Math.floor(lastSeq / recordsPerMs) + firstMs).toString(16).padStart(12, '0');
  // Node.js draws random UUIDs from a pool, which is several times cheaper than random bytes; all but the time and the
  // version digit is kept.
  const eventId = `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`;
  return { seq: lastSeq, eventId };
}

/** Continues after a trail that has reached `seq` (at start). */
export function continueAfter(seq: number): void {
  lastSeq = Math.max(lastSeq, seq);
}

/** The places that an event with this id can have: a half-open range; undefined when no id of ours looks like that. */
export function placesOf(eventId: string): { from: number; until: number } | undefined {
  const match = /^([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.exec(eventId);
  if (!match) return undefined;
  const timeMs = Number.parseInt(match[1]! + match[2]!, 16);
  return { from: firstPlaceAt(timeMs), until: firstPlaceAt(timeMs + 1) };
}

/** The first place at or after a time, to turn a range of times into a range of places. */
export function firstPlaceAt(timeMs: number): number {
  return (timeMs - firstMs) * recordsPerMs;
}
