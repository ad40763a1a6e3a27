/** Availability zones: names and ids as AWS has them. */
import { regions } from '../aws/regions.ts';

export interface Zone {
  /** `us-east-1a` */
  readonly name: string;
  /** `use1-az1` */
  readonly id: string;
}

/** The zones of a region; a name that AWS doesn't have gets three. */
export function zonesOf(region: string): readonly Zone[] {
  const [prefix, letters] = regions[region] ?? [region.replaceAll('-', ''), 'abc'];
  return [...letters].map((letter, index) => ({ name: `${region}${letter}`, id: `${prefix}-az${index + 1}` }));
}

export function zoneIdOf(region: string, zoneName: string): string {
  return zonesOf(region).find((zone) => zone.name === zoneName)?.id ?? '';
}
