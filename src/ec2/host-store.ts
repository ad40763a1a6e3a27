/** Hosts where they are kept, and where instances and tasks find theirs. */
import type { Call } from '../aws/call.ts';
import { type HostRow, tables } from './records.ts';

/** A host that has not synced for this long is taken for gone, ms. Its Sync waits 20 s at most. */
export const hostLiveMs = 60_000;

/** Raised when what a host shall have changes. */
export function hostTopic(hostId: string): string {
  return `ec2/host/${hostId}`;
}

/** Raised when a volume or one of its attachments changes. */
export function volumeTopic(volumeId: string): string {
  return `ec2/volume/${volumeId}`;
}

/** Raised when an instance's state changes. */
export function instanceTopic(instanceId: string): string {
  return `ec2/instance/${instanceId}`;
}

export function servesZone(host: { readonly zones: string }, zone: string): boolean {
  const zones = JSON.parse(host.zones) as string[] | '*';
  return zones === '*' || zones.includes(zone);
}

export function isLive(call: Call, host: { readonly last_seen_at: number } | undefined): boolean {
  return host !== undefined && call.clock.now() - host.last_seen_at < hostLiveMs;
}

export async function findHost(call: Call, hostId: string): Promise<HostRow | undefined> {
  return tables(call).selectFrom('ec2_hosts').selectAll().where('host_id', '=', hostId).executeTakeFirst();
}

/**
 * The live host of the zone that has the fewest instances, or undefined when there is none: then the first one that
 * comes takes what was left for it.
 */
export async function placeInZone(call: Call, zone: string): Promise<string | undefined> {
  const hosts = await tables(call).selectFrom('ec2_hosts').selectAll().execute();
  const candidates = hosts.filter((host) => isLive(call, host) && servesZone(host, zone));
  if (candidates.length <= 1) return candidates[0]?.host_id;
  const counts = await tables(call)
    .selectFrom('ec2_instances')
    .select((select) => ['host_id', select.fn.countAll<number>().as('instances')])
    .where('state', '!=', 'terminated')
    .groupBy('host_id')
    .execute();
  const instancesOn = new Map(counts.map((row) => [row.host_id, Number(row.instances)]));
  const load = (host: HostRow) => instancesOn.get(host.host_id) ?? 0;
  return candidates.reduce((best, host) => (load(host) < load(best) ? host : best)).host_id;
}
