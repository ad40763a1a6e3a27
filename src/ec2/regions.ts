/** Regions and availability zones. Names are AWS's, so that clients find what they know; a region is only a name space. */
import {
  DescribeAvailabilityZones$,
  type DescribeAvailabilityZonesRequest,
  type DescribeAvailabilityZonesResult,
  DescribeRegions$,
  type DescribeRegionsRequest,
  type DescribeRegionsResult,
} from '@aws-sdk/client-ec2';
import { AwsError } from '../aws/errors.ts';
import { matchesFilters, parseFilters } from '../aws/filters.ts';
import { regions } from '../aws/regions.ts';
import { operation } from '../aws/service.ts';
import { allow } from './access.ts';
import { stopIfDryRun } from './errors.ts';
import { type Zone, zoneIdOf, zonesOf } from './zones.ts';

export { type Zone, zoneIdOf, zonesOf };

/**
 * The zone that a request names by name or id.
 * @throws {AwsError} InvalidParameterCombination for both, InvalidZone.NotFound for one that the region lacks
 */
export function findZone(region: string, name: string | undefined, id: string | undefined): Zone | undefined {
  if (name && id)
    throw new AwsError(
      'InvalidParameterCombination',
      'Only one of AvailabilityZone and AvailabilityZoneId may be specified.',
    );
  if (!name && !id) return undefined;
  const zone = zonesOf(region).find((candidate) => (name ? candidate.name === name : candidate.id === id));
  if (!zone) throw new AwsError('InvalidZone.NotFound', `The zone '${name ?? id}' does not exist.`);
  return zone;
}

export const describeRegions = operation<DescribeRegionsRequest, DescribeRegionsResult>({
  name: 'DescribeRegions',
  schema: DescribeRegions$,
  effect: 'reads',
  access: (call) => [allow(call, 'DescribeRegions')],
  handle(call, input) {
    const filters = parseFilters(input.Filters, new Set(['endpoint', 'opt-in-status', 'region-name']));
    stopIfDryRun(input);
    const names = new Set([...Object.keys(regions), call.region]);
    const unknown = (input.RegionNames ?? []).filter((name) => !names.has(name));
    if (unknown.length > 0)
      throw new AwsError('InvalidParameterValue', `Invalid region(s) specified: [${unknown.join(', ')}]`);
    const found = [...names].sort().map((name) => ({
      RegionName: name,
      Endpoint: `ec2.${name}.amazonaws.com${name.startsWith('cn-') ? '.cn' : ''}`,
      OptInStatus: 'opt-in-not-required',
    }));
    return {
      Regions: found.filter(
        (region) =>
          (!input.RegionNames?.length || input.RegionNames.includes(region.RegionName)) &&
          matchesFilters(filters, (name) => [
            { endpoint: region.Endpoint, 'opt-in-status': region.OptInStatus, 'region-name': region.RegionName }[name]!,
          ]),
      ),
    };
  },
});

/** Every zone of the region is there: a host that serves it may come at any time. */
export const describeAvailabilityZones = operation<DescribeAvailabilityZonesRequest, DescribeAvailabilityZonesResult>({
  name: 'DescribeAvailabilityZones',
  schema: DescribeAvailabilityZones$,
  effect: 'reads',
  access: (call) => [allow(call, 'DescribeAvailabilityZones')],
  handle(call, input) {
    const filters = parseFilters(
      input.Filters,
      new Set([
        'group-name',
        'group-long-name',
        'message',
        'opt-in-status',
        'parent-zone-id',
        'parent-zone-name',
        'region-name',
        'state',
        'zone-id',
        'zone-type',
        'zone-name',
      ]),
    );
    for (const name of input.ZoneNames ?? []) findZone(call.region, name, undefined);
    for (const id of input.ZoneIds ?? []) findZone(call.region, undefined, id);
    stopIfDryRun(input);
    const zones = zonesOf(call.region).filter(
      (zone) =>
        (!input.ZoneNames?.length || input.ZoneNames.includes(zone.name)) &&
        (!input.ZoneIds?.length || input.ZoneIds.includes(zone.id)) &&
        matchesFilters(filters, (name) => {
          const values: Record<string, string> = {
            'group-name': `${call.region}-zg-1`,
            'opt-in-status': 'opt-in-not-required',
            'region-name': call.region,
            state: 'available',
            'zone-id': zone.id,
            'zone-type': 'availability-zone',
            'zone-name': zone.name,
          };
          return values[name] === undefined ? [] : [values[name]];
        }),
    );
    return {
      AvailabilityZones: zones.map((zone) => ({
        State: 'available',
        OptInStatus: 'opt-in-not-required',
        Messages: [],
        RegionName: call.region,
        ZoneName: zone.name,
        ZoneId: zone.id,
        GroupName: `${call.region}-zg-1`,
        NetworkBorderGroup: call.region,
        ZoneType: 'availability-zone',
      })),
    };
  },
});
