/** Values that requests may bring and no service wants: by kind, in sizes that a body can have. */
import type { Random } from './random.ts';

/** JSON text that goes into a body as it is: what JSON.stringify would not write. */
export class RawJson {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** In front of all bytes that requests bring: it must come back nowhere. */
export const marker = 'plaintext of a fuzzed request';

const otherAccount = '210987654321';
const nested = (depth: number, open: string, inner: string, close: string) =>
  open.repeat(depth) + inner + close.repeat(depth);
const backtracking = `${'*a'.repeat(40)}b`;
const statement = (parts: object) =>
  JSON.stringify({ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: '*', Resource: '*', ...parts }] });

const strings: readonly string[] = [
  ...[
    '',
    ' ',
    '\t',
    '\n',
    '\0',
    '\u001b[2J',
    '\u0000\u0001\u007f',
    '\u202e',
    '\ufeff',
    '\ud800',
    '\udfff\ud800',
    '\ufffe',
  ],
  ...['ａｌｉｃｅ', 'аdmin', 'K', 'ſ', 'İ', '😀', 'e\u0301', 'a\u200bb', '\u0130'.repeat(300)],
  ...[
    '__proto__',
    'constructor',
    'toString',
    'hasOwnProperty',
    'prototype',
    'length',
    'null',
    'undefined',
    'NaN',
    'true',
  ],
  ...[
    '../../../etc/passwd',
    '..',
    '.',
    '/',
    '//',
    'a/../b',
    '%2e%2e%2f',
    '/dev/../../x',
    'file:///etc/passwd',
    'C:\\x',
  ],
  ...[
    "' or 1=1 --",
    "'; drop table kms_keys; --",
    '"',
    '`',
    '\\',
    '\\*',
    '%',
    '_',
    '%s%n',
    ['$', '{aws:username}'].join(''),
    '${',
    '{{7*7}}',
  ],
  ...['<a>', '<![CDATA[', ']]>', '&amp;', '&#0;', '<!DOCTYPE a [<!ENTITY b "c">]>', '\r\nX-Injected: 1', '\r\n\r\n'],
  ...[
    '*',
    '**',
    '?',
    '[',
    '[a-',
    '[]',
    '[^',
    '*?*?*?',
    '\\',
    '*\\',
    backtracking,
    `${backtracking}*`,
    '?'.repeat(2000),
  ],
  ...['-1', '0', '1e3', '0x10', '١', '99999999999999999999', '1.5', '-0', '+1', '1_000', ' 1', '1 '],
  ...[
    'arn:',
    'arn:aws',
    'arn:aws:kms',
    ':::::',
    'arn:aws:::::',
    `arn:aws:iam::${otherAccount}:root`,
    'arn:aws:iam::*:root',
  ],
  `arn:aws:kms:us-east-1:${otherAccount}:key/1234abcd-12ab-34cd-56ef-1234567890ab`,
  'arn:aws:kms:mars-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab',
  'arn:aws-cn:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab',
  'arn:aws:ec2:us-east-1:123456789012:volume/vol-0123456789abcdef0',
  ...[
    '1234abcd-12ab-34cd-56ef-1234567890ab',
    'mrk-1234abcd12ab34cd56ef1234567890ab',
    'alias/',
    'alias/aws/ebs',
    'alias//',
    'alias/a:b',
  ],
  ...[
    'vol-0123456789abcdef0',
    'vol-',
    'VOL-0123456789ABCDEF0',
    'vol-0123456789abcdef0 ',
    'snap-ffffffff',
    'snap-0123456789abcdef0',
  ],
  ...[
    'i-0123456789abcdef0',
    'i-',
    'ami-0c0ffe00000000000',
    'ami-1',
    'us-east-1',
    'us-east-1a',
    'us-east-1z',
    'mars-1',
    'use1-az1',
  ],
  ...['2026-08-01', '2026-08-01T12:00:00Z', '+275760-09-13T00:00:00.000Z', '0000-00-00', '-271821-04-20T00:00:00Z'],
  ...[
    '{}',
    '[]',
    '{"Statement":[]}',
    '{"Statement":{"Effect":"Allow","Action":{},"Resource":[[]]}}',
    '{"a":',
    'null',
    '""',
  ],
  ...['AAAA', '====', 'A', 'e30=', 'eyJhIjoxfQ==', Buffer.from('{"__proto__":{"a":1}}').toString('base64')],
  ...['/dev/sdf', '/dev/xvdf', 'sdf', '/dev/sda1', '/dev/sd', `/dev/${'a'.repeat(300)}`, 'tag:', 'tag:a', 'tag-key'],
  ...[
    'a'.repeat(63),
    'a'.repeat(64),
    'a'.repeat(65),
    'a'.repeat(128),
    'a'.repeat(129),
    'a'.repeat(255),
    'a'.repeat(256),
  ],
  ...['a'.repeat(257), 'a'.repeat(1024), 'a'.repeat(2048), 'a'.repeat(2049), 'a'.repeat(8193), 'a'.repeat(33_000)],
  ...[
    'ß'.repeat(4097),
    '😀'.repeat(5000),
    '\0'.repeat(5000),
    '"'.repeat(5000),
    '<'.repeat(5000),
    ':'.repeat(5000),
    '/'.repeat(5000),
  ],
];

/** Policies, some of them valid: what they say is read with every request from then on. */
const documents: readonly (() => string)[] = [
  () => statement({}),
  () => statement({ Effect: 'Deny' }),
  () => statement({ Action: backtracking, Resource: `arn:aws:kms:*:*:key/${backtracking}` }),
  () => statement({ Action: 'kms:*', Resource: `arn:aws:${'*'.repeat(900)}:x` }),
  () => statement({ Action: 'kms:*', Resource: `arn:aws:kms:${'?*'.repeat(400)}:key/x` }),
  () => statement({ Condition: { StringLike: { 'aws:username': [`${'*a'.repeat(900)}b`] } } }),
  () => statement({ Condition: { StringLike: { 'kms:EncryptionContext:a': `${'*a'.repeat(900)}b` } } }),
  () => statement({ Condition: { 'ForAllValues:StringNotLikeIfExists': { __proto__x: ['a'], constructor: 'b' } } }),
  () => statement({ Condition: { IpAddress: { 'aws:SourceIp': ['::/0', '999.0.0.0/99', ''] }, Null: { a: 'maybe' } } }),
  () => statement({ Condition: { NumericEquals: { a: 'NaN' }, DateLessThan: { 'aws:CurrentTime': 'yesterday' } } }),
  () => statement({ Resource: Array.from({ length: 150 }, (_, index) => `arn:aws:kms:*:*:key/*a*b*${index}`) }),
  () => statement({ Resource: ['$', '{aws:username}'].join('').repeat(100) }),
  () => statement({ Principal: { AWS: ['*', otherAccount, `arn:aws:iam::${otherAccount}:root`] } }),
  () => statement({ Principal: '*', Resource: undefined }),
  () => statement({ NotPrincipal: { Service: ['x.amazonaws.com'] }, NotAction: [], NotResource: {} }),
  () => `{"Version":"2012-10-17","Version":"2008-10-17","Statement":{"Effect":"Allow","Effect":"Deny"}}`,
  () => `{"Statement":${nested(3000, '[', '', ']')}}`,
  () => `{"Version":"2012-10-17","Statement":[${nested(2000, '{"Condition":', '{}', '}')}]}`,
  () => statement({ Sid: 'a'.repeat(7000) }),
  () => `${' '.repeat(20_000)}${statement({})}`,
  () => JSON.stringify({ Version: '2012-10-17', Statement: Array(700).fill({ Effect: 'Allow', Action: 'a:b' }) }),
];

const hugeLengths = [10_000, 65_536, 131_073, 300_000] as const;

export function hostileString(random: Random): string {
  if (random.oneIn(60))
    return random.pick(['a', '*', '\u0000', 'é', '[', '"', '$', '0']).repeat(random.pick(hugeLengths));
  if (random.oneIn(15)) return policyText(random);
  return random.pick(strings);
}

export function policyText(random: Random): string {
  return random.pick(documents)();
}

const numbers: readonly number[] = [
  ...[
    -1, 0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 30, 31, 32, 63, 64, 65, 89, 90, 91, 100, 101, 125, 127, 128, 255, 256, 364,
    365,
  ],
  ...[
    366, 499, 500, 501, 899, 900, 999, 1000, 1001, 1023, 1024, 1025, 2560, 2561, 3000, 3600, 4096, 16_000, 16_384,
    43_200,
  ],
  ...[43_201, 64_000, 65_536, 129_601, 256_000, 524_288, 1_000_000, 2 ** 31 - 1, 2 ** 31, -(2 ** 31), 2 ** 32, 2 ** 33],
  ...[Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, 2 ** 53, 8.64e12, -8.64e12, 1.7e9, 0.5, -0.1, 1e21, 1e308],
];

export const hostileNumber = (random: Random): number => random.pick(numbers);

export function hostileDate(random: Random): Date {
  const now = Date.UTC(2026, 7, 1, 12);
  const away = random.pick([
    0,
    1,
    -1,
    3600e3,
    -3600e3,
    86_400e3,
    365 * 86_400e3,
    -90 * 86_400e3,
    8.64e15 - now,
    -8.64e15 - now,
  ]);
  return new Date(now + away);
}

const blobLengths = [0, 1, 12, 16, 24, 32, 64, 128, 190, 256, 257, 512, 1088, 4096, 4097, 6144, 6145, 65_536, 524_288];

/** Bytes of some length, which begin with the marker where they are long enough for it. */
export function hostileBytes(random: Random): Buffer {
  const length = random.oneIn(3)
    ? random.below(600)
    : random.pick(blobLengths.slice(0, random.oneIn(8) ? undefined : -2));
  const bytes = Buffer.alloc(length, random.below(256));
  if (length >= marker.length) bytes.write(marker);
  return bytes;
}

/** Something of another type than the one asked for. */
export function wrongType(random: Random): unknown {
  return random.weighted<() => unknown>([
    [3, () => hostileString(random)],
    [3, () => hostileNumber(random)],
    [2, () => random.oneIn(2)],
    [2, () => null],
    [2, () => []],
    [2, () => ({})],
    [1, () => [null]],
    [1, () => [[hostileString(random)]]],
    [1, () => ({ [hostileString(random)]: hostileString(random) })],
    [1, () => ({ a: { b: { c: [1] } } })],
    [1, () => new RawJson('1e999')],
    [1, () => new RawJson('-0')],
    [1, () => new RawJson('{"__proto__":{"a":1},"constructor":{"prototype":{}}}')],
    [1, () => new RawJson(nested(2000, '[', '', ']'))],
    [1, () => new RawJson(nested(20_000, '{"a":', '1', '}'))],
  ])();
}

/** An id or a name, made into one that looks alike, or that is someone else's. */
export function lookalike(random: Random, real: string): string {
  return random.pick<(text: string) => string>([
    (text) => text.toUpperCase(),
    (text) => ` ${text}`,
    (text) => `${text}\n`,
    (text) => `${text}\0`,
    (text) => `${text}*`,
    (text) => text.slice(0, -1),
    (text) => text + text,
    (text) => `${text}/..`,
    (text) => text.replace(/[a-z0-9]/i, (letter) => String.fromCharCode(letter.charCodeAt(0) + 0xfee0)),
    (text) => text.replace(/[0-9a-f](?=[^0-9a-f]*$)/, (digit) => (digit === '0' ? '1' : '0')),
    (text) => text.replace(/\d{12}/, otherAccount),
    (text) => text.replace('us-east-1', 'eu-west-1'),
    (text) => text.replace(/^arn:aws:/, 'arn:aws-cn:'),
    (text) => text.replace(/^arn:aws:\w+/, 'arn:aws:s3'),
    (text) => text.replace(/^(?:arn:[^/]*\/)/, ''),
    (text) => `*${text.slice(1)}`,
    (text) => text.replaceAll('-', '?'),
  ])(real);
}
