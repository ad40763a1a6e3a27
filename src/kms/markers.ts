/** Pages of a list: a marker is where the last page ended, wrapped so that nobody builds on its inside. */
import { AwsError } from '../aws/errors.ts';

interface PageInput {
  Limit?: number | undefined;
  Marker?: string | undefined;
}

/** Where a page begins (after this key of the list's order) and how many items it has at most. */
export interface Page {
  readonly after: string;
  readonly size: number;
}

/**
 * @param list what is listed; a marker of another list is refused
 * @param sizes items in a page when the request names no limit, and at most
 * @throws {AwsError} InvalidMarkerException
 */
export function pageOf(list: string, input: PageInput, sizes: { default: number; max: number }): Page {
  return {
    after: input.Marker === undefined || input.Marker === null ? '' : openMarker(list, input.Marker),
    size: Math.min(input.Limit ?? sizes.default, sizes.max),
  };
}

/** Cuts `rows`, which has one more than the page if there are more, and says how to go on. */
export function pageResult<Row>(list: string, page: Page, rows: readonly Row[], key: (row: Row) => string) {
  const items = rows.slice(0, page.size);
  const isTruncated = rows.length > page.size;
  return {
    items,
    end: isTruncated ? { Truncated: true, NextMarker: newMarker(list, key(items.at(-1)!)) } : { Truncated: false },
  };
}

function newMarker(list: string, after: string): string {
  return Buffer.from(JSON.stringify([list, after])).toString('base64');
}

function openMarker(list: string, marker: string): string {
  try {
    const [, after] = JSON.parse(Buffer.from(marker, 'base64').toString()) as unknown[];
    // Made again it must be the same: of this list, and nothing added.
    if (typeof after === 'string' && newMarker(list, after) === marker) return after;
  } catch {
    // Not one of ours; said below.
  }
  throw new AwsError('InvalidMarkerException', 'The marker is not one that this operation returned for this list.');
}
