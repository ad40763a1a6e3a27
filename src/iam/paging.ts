/** `Marker`, `MaxItems` and `IsTruncated`: a page goes on after the last key shown, whatever comes or goes meanwhile. */
import { integer, text } from '../aws/validate.ts';
import { validationError } from './errors.ts';

const itemsDefault = 100;

/** The constraints of the two members. */
export const pageRules = { Marker: text({ min: 1, max: 320 }), MaxItems: integer({ min: 1, max: 1000 }) };

export interface PageInput {
  readonly Marker?: string;
  readonly MaxItems?: number;
}

/** The key after which the page starts; the empty string without a marker. */
export function pageAfter({ Marker }: PageInput): string {
  if (Marker === undefined) return '';
  const match = /^v1:(.+)$/s.exec(Buffer.from(Marker, 'base64url').toString('utf8'));
  if (!match) throw validationError('Invalid Marker.');
  return match[1]!;
}

/** How many rows to read: one more than the page shows, to see whether it is the last. */
export const pageRows = ({ MaxItems }: PageInput) => (MaxItems ?? itemsDefault) + 1;

/** The page's rows, and how it goes on. */
export function pageOf<Row>(
  rows: readonly Row[],
  input: PageInput,
  keyOf: (row: Row) => string,
): { rows: readonly Row[]; rest: { IsTruncated: boolean; Marker?: string } } {
  const size = input.MaxItems ?? itemsDefault;
  if (rows.length <= size) return { rows, rest: { IsTruncated: false } };
  const shown = rows.slice(0, size);
  const marker = Buffer.from(`v1:${keyOf(shown.at(-1)!)}`, 'utf8').toString('base64url');
  return { rows: shown, rest: { IsTruncated: true, Marker: marker } };
}
