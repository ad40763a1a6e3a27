import type { Kysely } from 'kysely';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import type { BusEvent } from './bus-event.ts';
import type { EventTables } from './records.ts';

const limitDefault = 100;
const limitMax = 1000;
const waitMaxMs = 20_000;

export interface ListEventsInput {
  /** Answer events after this position only; absent: the newest `Limit` events. */
  readonly After?: number;
  readonly Limit?: number;
  /** With `After`: how long to wait for an event when there is none yet, at most 20,000 ms. */
  readonly WaitMs?: number;
}

export interface ListEventsOutput {
  /** Oldest first. */
  readonly Events: readonly BusEvent[];
  /** Pass it as `After` to continue. */
  readonly Last: number;
}

/** ListEvents (internal): what went over the account's bus, of all regions, to read or to follow. */
export const listEvents = operation<ListEventsInput, ListEventsOutput>({
  name: 'ListEvents',
  effect: 'waits',
  readOnly: true,
  access: (call) => [{ action: 'coffer:ListEvents', resource: '*', resourceAccount: call.account }],
  resolve(_call, { After, Limit, WaitMs }) {
    checkNumber('After', After, Number.MAX_SAFE_INTEGER);
    checkNumber('Limit', Limit, limitMax);
    checkNumber('WaitMs', WaitMs, waitMaxMs);
  },
  async handle(call, { After, Limit = limitDefault, WaitMs = 0 }) {
    const deadline = performance.now() + WaitMs;
    for (;;) {
      const version = call.signals.version('events');
      const found = await call.transaction(async ({ db }) => {
        const bus: Kysely<EventTables> = db;
        const query = bus
          .selectFrom('bus_events')
          .select(['seq', 'document'])
          .where('account', '=', call.account)
          .limit(Limit);
        if (After !== undefined) return query.where('seq', '>', After).orderBy('seq').execute();
        return (await query.orderBy('seq', 'desc').execute()).reverse();
      });
      const timeLeftMs = deadline - performance.now();
      const isWorthWaiting = found.length === 0 && After !== undefined && timeLeftMs > 0;
      if (isWorthWaiting && (await call.signals.changed('events', version, timeLeftMs, call.cancelled))) continue;
      return {
        Events: found.map((row) => JSON.parse(row.document) as BusEvent),
        Last: found[found.length - 1]?.seq ?? After ?? 0,
      };
    }
  },
});

function checkNumber(name: string, value: unknown, max: number): void {
  if (value === undefined) return;
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0 || value > max)
    throw new AwsError('ValidationException', `${name} must be a whole number from 0 to ${max}.`);
}
