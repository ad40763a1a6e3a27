/**
 * The canonical request of Signature Version 4, made from the wire form.
 * Source: IAM user guide, "Create a signed AWS API request".
 */
import { hash } from 'node:crypto';
import type { Headers } from './protocols/protocol.ts';

export const emptyHash = hash('sha256', '', 'hex');

/**
 * The path with `.` and `..` resolved and repeated slashes made one, percent-encoding untouched. Requests are routed by
 * this form too, so that what was signed is what runs.
 */
export function normalizePath(path: string): string {
  if (!path.includes('//') && !path.includes('/.')) return path === '' ? '/' : path;
  const segments: string[] = [];
  for (const segment of path.split('/')) {
    if (segment === '..') segments.pop();
    else if (segment !== '' && segment !== '.') segments.push(segment);
  }
  const trailing = segments.length > 0 && path.endsWith('/') ? '/' : '';
  return `/${segments.join('/')}${trailing}`;
}

/** Every service but S3 encodes the path as it is on the wire once more. */
export function canonicalPath(path: string): string {
  const normalized = normalizePath(path);
  return /^[A-Za-z0-9\-._~/]*$/.test(normalized) ? normalized : normalized.split('/').map(uriEncode).join('/');
}

/** A parameter of the query string, decoded. */
export type QueryParameter = readonly [name: string, value: string];

/** @returns undefined when the percent-encoding is not valid UTF-8 */
export function parseQuery(query: string): QueryParameter[] | undefined {
  if (query === '') return [];
  const parameters: QueryParameter[] = [];
  try {
    for (const pair of query.split('&')) {
      if (pair === '') continue;
      const equals = pair.indexOf('=');
      parameters.push(
        equals < 0 ? [decode(pair), ''] : [decode(pair.slice(0, equals)), decode(pair.slice(equals + 1))],
      );
    }
  } catch {
    return undefined;
  }
  return parameters;
}

function decode(text: string): string {
  return decodeURIComponent(text.includes('+') ? text.replaceAll('+', ' ') : text);
}

/** Parameters encoded anew and sorted by encoded name, then value; the signature itself left out. */
export function canonicalQuery(parameters: readonly QueryParameter[]): string {
  if (parameters.length === 0) return '';
  return parameters
    .filter(([name]) => name !== 'X-Amz-Signature')
    .map(([name, value]) => [uriEncode(name), uriEncode(value)] as const)
    .sort((left, right) => compare(left[0], right[0]) || compare(left[1], right[1]))
    .map(([name, value]) => `${name}=${value}`)
    .join('&');
}

/** Encoded text is ASCII, where comparing UTF-16 units is comparing bytes. */
function compare(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}

/** RFC 3986: everything but unreserved characters. */
function uriEncode(text: string): string {
  return encodeURIComponent(text.toWellFormed()).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** @returns undefined when a signed header is not in the request */
export function canonicalHeaders(headers: Headers, signedHeaders: readonly string[]): string | undefined {
  let canonical = '';
  for (const name of signedHeaders) {
    const value = headers.get(name);
    if (value === undefined) return undefined;
    canonical += `${name}:${trimmed(value)}\n`;
  }
  return canonical;
}

function trimmed(value: string): string {
  // Node.js gives header bytes as Latin-1; clients sign the UTF-8 that they mean.
  const text = /[\x80-\xff]/.test(value) ? Buffer.from(value, 'latin1').toString('utf8') : value;
  return /[\t\r\n]| {2}|^ | $/.test(text) ? text.trim().replace(/[ \t\r\n]+/g, ' ') : text;
}

/** Builds the canonical request and returns its SHA-256, hexadecimal. */
export function canonicalRequestHash(parts: {
  method: string;
  path: string;
  query: readonly QueryParameter[];
  canonicalHeaders: string;
  signedHeaders: string;
  payloadHash: string;
}): string {
  const canonical = `${parts.method}\n${canonicalPath(parts.path)}\n${canonicalQuery(parts.query)}\n${parts.canonicalHeaders}\n${parts.signedHeaders}\n${parts.payloadHash}`;
  return hash('sha256', canonical, 'hex');
}
