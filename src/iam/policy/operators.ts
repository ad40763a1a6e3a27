/**
 * The condition operators: whether one value of the request meets one value of the policy.
 * Source: IAM user guide, "IAM JSON policy elements: Condition operators".
 */
import { isIP } from 'node:net';
import { matchesWildcard } from '../../aws/wildcard.ts';
import { literally, plainText } from './variables.ts';

export interface Operator {
  /** `wanted` is the policy's value with variables put in; both are as text. */
  readonly matches: (actual: string, wanted: string) => boolean;
  /** The operator is the opposite of `matches`, and is met when the request doesn't have the key. */
  readonly isNegated: boolean;
  /** Whether `${…}` in the policy's value stands for a variable: with other operators it is plain text. */
  readonly takesVariables: boolean;
  /** Whether a value is of the operator's kind at all (a number, a date); one that isn't matches nothing. */
  readonly isOfKind: (value: string) => boolean;
}

const equals = (actual: string, wanted: string) => actual === plainText(wanted);
const equalsIgnoringCase = (actual: string, wanted: string) => actual.toLowerCase() === plainText(wanted).toLowerCase();
const like = (actual: string, wanted: string) => matchesWildcard(wanted, literally(actual));
const bool = (actual: string, wanted: string) => isBoolean(actual) && equalsIgnoringCase(actual, wanted);
const numeric = (compare: (a: number, b: number) => boolean) => (actual: string, wanted: string) => {
  const [a, b] = [toNumber(actual), toNumber(wanted)];
  return a !== undefined && b !== undefined && compare(a, b);
};
const date = (compare: (a: number, b: number) => boolean) => (actual: string, wanted: string) => {
  const [a, b] = [toTime(actual), toTime(wanted)];
  return a !== undefined && b !== undefined && compare(a, b);
};
const isSame = (a: number, b: number) => a === b;

type Kind = Pick<Operator, 'isOfKind' | 'takesVariables'>;
const text: Kind = { isOfKind: () => true, takesVariables: true };
const bytes: Kind = { isOfKind: () => true, takesVariables: false };
const truth: Kind = { isOfKind: isBoolean, takesVariables: true };
const number: Kind = { isOfKind: (value) => toNumber(value) !== undefined, takesVariables: false };
const time: Kind = { isOfKind: (value) => toTime(value) !== undefined, takesVariables: false };
const address: Kind = { isOfKind: (value) => addressRange(value) !== undefined, takesVariables: false };
const arn: Kind = { isOfKind: (value) => splitArn(value) !== undefined, takesVariables: true };
const is = (kind: Kind, matches: Operator['matches']): Operator => ({ ...kind, matches, isNegated: false });
const isNot = (kind: Kind, matches: Operator['matches']): Operator => ({ ...kind, matches, isNegated: true });

/** By name in lower case; `Null`, the set operators and `IfExists` are the business of conditions.ts. */
export const operators: Readonly<Record<string, Operator>> = {
  stringequals: is(text, equals),
  stringnotequals: isNot(text, equals),
  stringequalsignorecase: is(text, equalsIgnoringCase),
  stringnotequalsignorecase: isNot(text, equalsIgnoringCase),
  stringlike: is(text, like),
  stringnotlike: isNot(text, like),
  numericequals: is(number, numeric(isSame)),
  numericnotequals: isNot(number, numeric(isSame)),
  numericlessthan: is(
    number,
    numeric((a, b) => a < b),
  ),
  numericlessthanequals: is(
    number,
    numeric((a, b) => a <= b),
  ),
  numericgreaterthan: is(
    number,
    numeric((a, b) => a > b),
  ),
  numericgreaterthanequals: is(
    number,
    numeric((a, b) => a >= b),
  ),
  dateequals: is(time, date(isSame)),
  datenotequals: isNot(time, date(isSame)),
  datelessthan: is(
    time,
    date((a, b) => a < b),
  ),
  datelessthanequals: is(
    time,
    date((a, b) => a <= b),
  ),
  dategreaterthan: is(
    time,
    date((a, b) => a > b),
  ),
  dategreaterthanequals: is(
    time,
    date((a, b) => a >= b),
  ),
  bool: is(truth, bool),
  binaryequals: is(bytes, (actual, wanted) => actual === wanted),
  ipaddress: is(address, inAddressRange),
  notipaddress: isNot(address, inAddressRange),
  arnequals: is(arn, arnLike),
  arnlike: is(arn, arnLike),
  arnnotequals: isNot(arn, arnLike),
  arnnotlike: isNot(arn, arnLike),
};

function isBoolean(text: string): boolean {
  return /^(?:true|false)$/i.test(text);
}

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

/** An address, or a range of them: `bits` is the network's address. */
interface AddressRange {
  readonly family: 4 | 6;
  readonly bits: bigint;
  readonly prefix: number;
}

/** The same few ranges of policies, and addresses of clients, come again and again. */
const ranges = new Map<string, AddressRange | undefined>();
const rangesMax = 1000;

function addressRange(text: string): AddressRange | undefined {
  const known = ranges.get(text);
  if (known || ranges.has(text)) return known;
  if (ranges.size >= rangesMax) ranges.clear();
  const range = parseAddressRange(text);
  ranges.set(text, range);
  return range;
}

/** A range in CIDR notation, or one address; an IPv4 address within IPv6 is the IPv4 address. */
function parseAddressRange(text: string): AddressRange | undefined {
  const [network, prefixText] = text.replace(/^::ffff:(?=\d+\.)/i, '').split('/') as [string, string?];
  const family = isIP(network);
  const length = family === 4 ? 32 : 128;
  const prefix = prefixText === undefined ? length : Number(prefixText);
  if (family === 0 || prefixText === '' || !Number.isInteger(prefix) || prefix < 0 || prefix > length) return undefined;
  return family === 4 ? { family, bits: ipv4Bits(network), prefix } : { family: 6, bits: ipv6Bits(network), prefix };
}

function ipv4Bits(address: string): bigint {
  return address.split('.').reduce((bits, byte) => (bits << 8n) | BigInt(byte), 0n);
}

/** RFC 4291, section 2.2; a zone (`%eth0`) is no part of the address. */
function ipv6Bits(address: string): bigint {
  const [whole] = address.split('%') as [string];
  const hexadecimal = whole.replace(/\d+\.\d+\.\d+\.\d+$/, (ipv4) => {
    const bits = ipv4Bits(ipv4);
    return `${(bits >> 16n).toString(16)}:${(bits & 0xffffn).toString(16)}`;
  });
  const [head, tail] = hexadecimal.split('::') as [string, string?];
  const groups = (part: string | undefined) => (part ? part.split(':') : []);
  const [first, last] = [groups(head), groups(tail)];
  const zeros = Array.from({ length: 8 - first.length - last.length }, () => '0');
  return [...first, ...zeros, ...last].reduce((bits, group) => (bits << 16n) | BigInt(`0x${group}`), 0n);
}

function inAddressRange(actual: string, wanted: string): boolean {
  const [address, range] = [addressRange(actual), addressRange(wanted)];
  if (!address || address.family !== range?.family) return false;
  const length = range.family === 4 ? 32 : 128;
  return (address.bits ^ range.bits) >> BigInt(length - range.prefix) === 0n;
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
