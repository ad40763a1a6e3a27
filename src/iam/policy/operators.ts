/**
 * The condition operators: whether one value of the request meets one value of the policy.
 * Source: IAM user guide, "IAM JSON policy elements: Condition operators".
 */
import { BlockList, isIP } from 'node:net';
import { matchesWildcard } from '../wildcard.ts';
import { literally, plainText } from './variables.ts';

export interface Operator {
  /** `wanted` is the policy's value with variables put in; both are as text. */
  readonly matches: (actual: string, wanted: string) => boolean;
  /** The operator is the opposite of `matches`, and is met when the request doesn't have the key. */
  readonly isNegated: boolean;
}

const equals = (actual: string, wanted: string) => actual === plainText(wanted);
const equalsIgnoringCase = (actual: string, wanted: string) => actual.toLowerCase() === plainText(wanted).toLowerCase();
const like = (actual: string, wanted: string) => matchesWildcard(wanted, literally(actual));
const numeric = (compare: (a: number, b: number) => boolean) => (actual: string, wanted: string) => {
  const [a, b] = [toNumber(actual), toNumber(plainText(wanted))];
  return a !== undefined && b !== undefined && compare(a, b);
};
const date = (compare: (a: number, b: number) => boolean) => (actual: string, wanted: string) => {
  const [a, b] = [toTime(actual), toTime(plainText(wanted))];
  return a !== undefined && b !== undefined && compare(a, b);
};
const operator = (matches: Operator['matches'], isNegated = false): Operator => ({ matches, isNegated });

/** By name in lower case; `Null`, the set operators and `IfExists` are the business of conditions.ts. */
export const operators: Readonly<Record<string, Operator>> = {
  stringequals: operator(equals),
  stringnotequals: operator(equals, true),
  stringequalsignorecase: operator(equalsIgnoringCase),
  stringnotequalsignorecase: operator(equalsIgnoringCase, true),
  stringlike: operator(like),
  stringnotlike: operator(like, true),
  numericequals: operator(numeric((a, b) => a === b)),
  numericnotequals: operator(
    numeric((a, b) => a === b),
    true,
  ),
  numericlessthan: operator(numeric((a, b) => a < b)),
  numericlessthanequals: operator(numeric((a, b) => a <= b)),
  numericgreaterthan: operator(numeric((a, b) => a > b)),
  numericgreaterthanequals: operator(numeric((a, b) => a >= b)),
  dateequals: operator(date((a, b) => a === b)),
  datenotequals: operator(
    date((a, b) => a === b),
    true,
  ),
  datelessthan: operator(date((a, b) => a < b)),
  datelessthanequals: operator(date((a, b) => a <= b)),
  dategreaterthan: operator(date((a, b) => a > b)),
  dategreaterthanequals: operator(date((a, b) => a >= b)),
  bool: operator(equalsIgnoringCase),
  binaryequals: operator(equals),
  ipaddress: operator(inAddressRange),
  notipaddress: operator(inAddressRange, true),
  arnequals: operator(arnLike),
  arnlike: operator(arnLike),
  arnnotequals: operator(arnLike, true),
  arnnotlike: operator(arnLike, true),
};

function toNumber(text: string): number | undefined {
  return /^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*$/.test(text) ? Number(text) : undefined;
}

/** ISO 8601 or seconds since the epoch, as ms since the epoch. */
function toTime(text: string): number | undefined {
  if (/^-?\d+$/.test(text)) return text.length <= 4 ? Date.parse(text) : Number(text) * 1000;
  if (!/^\d{4}-\d{2}(-\d{2})?/.test(text)) return undefined;
  const time = Date.parse(text);
  return Number.isNaN(time) ? undefined : time;
}

function inAddressRange(actual: string, wanted: string): boolean {
  const address = plainText(actual).replace(/^::ffff:(?=\d+\.)/i, '');
  const [network, prefixText] = plainText(wanted).split('/') as [string, string?];
  const family = isIP(network);
  if (family === 0 || isIP(address) !== family) return false;
  const bits = family === 4 ? 32 : 128;
  const prefix = prefixText === undefined ? bits : Number(prefixText);
  if (!Number.isInteger(prefix) || prefix < 0 || prefix > bits || prefixText === '') return false;
  const type = family === 4 ? 'ipv4' : 'ipv6';
  const range = new BlockList();
  range.addSubnet(network, prefix, type);
  return range.check(address, type);
}

/** ARNs match part by part: a wildcard never reaches over one of the first five colons. */
export function arnLike(actual: string, wanted: string): boolean {
  const actualParts = splitArn(actual);
  const wantedParts = splitArn(wanted);
  if (!actualParts || !wantedParts) return false;
  return wantedParts.every((part, index) => matchesWildcard(part, literally(actualParts[index]!)));
}

function splitArn(arn: string): readonly string[] | undefined {
  const parts = arn.split(':');
  if (parts.length < 6 || parts[0] !== 'arn') return undefined;
  return [...parts.slice(0, 5), parts.slice(5).join(':')];
}
