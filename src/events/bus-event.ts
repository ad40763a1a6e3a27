import { randomUUID } from 'node:crypto';
import type { Call, EventDraft } from '../aws/call.ts';

/** An event as it travels and as rules match it. Source: EventBridge user guide, "Event structure". */
export interface BusEvent {
  readonly version: '0';
  readonly id: string;
  readonly 'detail-type': string;
  readonly source: string;
  readonly account: string;
  /** ISO 8601, UTC, whole seconds. */
  readonly time: string;
  readonly region: string;
  readonly resources: readonly string[];
  readonly detail: Readonly<Record<string, unknown>>;
}

export function busEvent(call: Call, draft: EventDraft): BusEvent {
  return {
    version: '0',
    id: randomUUID(),
    'detail-type': draft.detailType,
    source: draft.source,
    account: call.account,
    time: new Date(call.clock.now()).toISOString().replace(/\.\d{3}Z$/, 'Z'),
    region: call.region,
    resources: draft.resources,
    detail: draft.detail,
  };
}
