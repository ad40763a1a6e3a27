import { createHash } from 'node:crypto';
import { Sha256 } from '@smithy/core/checksum';
import { HttpRequest } from '@smithy/core/protocols';
import { SignatureV4 } from '@smithy/signature-v4';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ManualClock } from '../aws/clock.ts';
import type { AuthProblem } from './auth-errors.ts';
import type { CredentialStore } from './credentials.ts';
import type { WireRequest } from './protocols/protocol.ts';
import { deriveSigningKey } from './signing-keys.ts';
import { readAuthorization, type SignaturePolicy, SignatureVerifier } from './sigv4.ts';
import { type SuiteCase, suite, suiteCases } from './sigv4-cases.ts';
import { principal } from './testing.ts';

const signedAt = Date.UTC(2015, 7, 30, 12, 36, 0);
const sha256 = (data: string | Uint8Array) => createHash('sha256').update(data).digest('hex');

const knownTokens = new Set(suiteCases.flatMap(({ sessionToken }) => sessionToken ?? []));

const credentials: CredentialStore = {
  async find(accessKeyId, sessionToken) {
    if (accessKeyId !== suite.accessKeyId) return { problem: 'unknown' };
    if (sessionToken === 'expired') return { problem: 'expired' };
    if (sessionToken !== undefined && !knownTokens.has(sessionToken)) return { problem: 'token' };
    return { secretAccessKey: Buffer.from(suite.secretAccessKey), principal, audience: 'account' };
  },
};

function wire(method: string, url: string, headers: Iterable<readonly [string, string]>, body = ''): WireRequest {
  const map = new Map<string, string>();
  for (const [name, value] of headers) {
    const earlier = map.get(name.toLowerCase());
    map.set(name.toLowerCase(), earlier === undefined ? value : `${earlier},${value}`);
  }
  const question = url.indexOf('?');
  return {
    method,
    path: question < 0 ? url : url.slice(0, question),
    query: question < 0 ? '' : url.slice(question + 1),
    headers: map,
    body: Buffer.from(body),
  };
}

async function verify(
  request: WireRequest,
  clock = new ManualClock(signedAt),
  policy: SignaturePolicy = { service: 'service', allowsUnsignedPayload: false },
): Promise<'verified' | AuthProblem> {
  try {
    await new SignatureVerifier(credentials, clock).verify(request, readAuthorization(request), policy);
    return 'verified';
  } catch (error) {
    return (error as { problem: AuthProblem }).problem;
  }
}

function signedNames(suiteCase: SuiteCase, more: readonly string[]): string {
  const own = (suiteCase.headers ?? []).map(([name]) => name.toLowerCase());
  return [...new Set([...own, 'host', ...more])].sort().join(';');
}

function headerSigned(suiteCase: SuiteCase, signature = suiteCase.headerSignature): WireRequest {
  const more: Array<[string, string]> = [['X-Amz-Date', suite.timestamp]];
  if (suiteCase.isBodySigned) more.push(['X-Amz-Content-Sha256', sha256(suiteCase.body ?? '')]);
  if (suiteCase.sessionToken) more.push(['X-Amz-Security-Token', suiteCase.sessionToken]);
  const names = signedNames(
    suiteCase,
    more.map(([name]) => name.toLowerCase()),
  );
  const authorization = `AWS4-HMAC-SHA256 Credential=${suite.accessKeyId}/${suite.scope}, SignedHeaders=${names}, Signature=${signature}`;
  const headers = [
    ['Host', suite.host],
    ...(suiteCase.headers ?? []),
    ...more,
    ['Authorization', authorization],
  ] as const;
  return wire(suiteCase.method, suiteCase.url, headers as Iterable<[string, string]>, suiteCase.body);
}

function presigned(suiteCase: SuiteCase, signature = suiteCase.querySignature): WireRequest {
  const parameters = {
    'X-Amz-Algorithm': 'AWS4-HMAC-SHA256',
    'X-Amz-Credential': `${suite.accessKeyId}/${suite.scope}`,
    'X-Amz-Date': suite.timestamp,
    'X-Amz-SignedHeaders': signedNames(suiteCase, []),
    'X-Amz-Expires': '3600',
    ...(suiteCase.sessionToken ? { 'X-Amz-Security-Token': suiteCase.sessionToken } : {}),
    'X-Amz-Signature': signature,
  };
  const query = Object.entries(parameters).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  const url = suiteCase.url + (suiteCase.url.includes('?') ? '&' : '?') + query.join('&');
  return wire(suiteCase.method, url, [['Host', suite.host], ...(suiteCase.headers ?? [])], suiteCase.body);
}

const flipped = (signature: string) => (signature[0] === '0' ? '1' : '0') + signature.slice(1);

describe('the published test suite', () => {
  test.each(suiteCases.map((suiteCase) => [suiteCase.name, suiteCase] as const))('%s', async (_name, suiteCase) => {
    expect(await verify(headerSigned(suiteCase))).toBe('verified');
    expect(await verify(presigned(suiteCase))).toBe('verified');
    expect(await verify(headerSigned(suiteCase, flipped(suiteCase.headerSignature)))).toBe('mismatch');
    expect(await verify(presigned(suiteCase, flipped(suiteCase.querySignature)))).toBe('mismatch');
  });

  test('the signing key of the user guide', () => {
    const key = deriveSigningKey(
      Buffer.from('wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'),
      '20150830',
      'us-east-1',
      'iam',
    );
    expect(key.toString('hex')).toBe('c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9');
  });
});

/** The SDK's signer, as a client uses it. */
const signer = new SignatureV4({
  service: 'kms',
  region: 'eu-central-1',
  credentials: { accessKeyId: suite.accessKeyId, secretAccessKey: suite.secretAccessKey },
  sha256: Sha256,
});
const kmsPolicy = { service: 'kms', allowsUnsignedPayload: false };

interface Draft {
  method: string;
  path: string;
  query: Record<string, string | string[]>;
  headers: Record<string, string>;
  body: string;
}

function toWire(request: {
  method: string;
  path: string;
  query?: unknown;
  headers: Record<string, string>;
  body?: unknown;
}) {
  const pairs = Object.entries((request.query ?? {}) as Draft['query']).flatMap(([name, value]) =>
    [value].flat().map((single) => `${encodeURIComponent(name)}=${encodeURIComponent(single)}`),
  );
  const url = request.path + (pairs.length > 0 ? `?${pairs.join('&')}` : '');
  return wire(request.method, url, Object.entries(request.headers), request.body as string);
}

const draft: fc.Arbitrary<Draft> = fc.record({
  method: fc.constantFrom('GET', 'POST', 'PUT'),
  path: fc
    .array(fc.string({ unit: 'grapheme', maxLength: 6 }), { maxLength: 4 })
    .map((segments) => `/${segments.map(encodeURIComponent).join('/')}`),
  query: fc.dictionary(
    fc
      .string({ unit: 'grapheme', minLength: 1, maxLength: 6 })
      .filter((name) => !/^x-amz/i.test(name) && name !== '__proto__'),
    fc.oneof(
      fc.string({ unit: 'grapheme', maxLength: 6 }),
      fc.array(fc.string({ maxLength: 3 }), { minLength: 1, maxLength: 3 }),
    ),
    { maxKeys: 4 },
  ),
  headers: fc
    .dictionary(fc.stringMatching(/^[a-z][a-z0-9-]{0,8}$/), fc.stringMatching(/^[ -~]{0,12}$/), { maxKeys: 4 })
    .map((headers) => ({ ...headers, host: 'localhost:4600' })),
  body: fc.string({ unit: 'grapheme' }),
});

describe('against the SDK as a signer', () => {
  test('verifies whatever it signs, and nothing that was changed afterwards', async () => {
    await fc.assert(
      fc.asyncProperty(
        draft,
        fc.constantFrom('body', 'path', 'method', 'query', 'date', 'host', 'scope'),
        async (request, change) => {
          const signed = await signer.sign(new HttpRequest({ ...request, protocol: 'http:', hostname: 'localhost' }), {
            signingDate: new Date(signedAt),
          });
          const asSent = toWire(signed as unknown as Draft);
          expect(await verify(asSent, undefined, kmsPolicy)).toBe('verified');
          const headers = new Map(asSent.headers);
          const changed = { ...asSent, headers };
          if (change === 'body') changed.body = Buffer.concat([asSent.body, Buffer.from(' ')]);
          if (change === 'path') changed.path += 'x';
          if (change === 'method') changed.method = request.method === 'GET' ? 'POST' : 'GET';
          if (change === 'query') changed.query += `${asSent.query === '' ? '' : '&'}added=1`;
          if (change === 'date') headers.set('x-amz-date', '20150830T123601Z');
          if (change === 'host') headers.set('host', 'elsewhere');
          if (change === 'scope')
            headers.set('authorization', headers.get('authorization')!.replace('eu-central-1', 'us-east-1'));
          expect(await verify(changed, undefined, kmsPolicy)).toBe('mismatch');
        },
      ),
      { numRuns: 150 },
    );
  });

  test('verifies what it presigns until that expires', async () => {
    await fc.assert(
      fc.asyncProperty(draft, fc.integer({ min: 1, max: 604800 }), async (request, expiresIn) => {
        const signed = await signer.presign(
          new HttpRequest({ ...request, body: '', method: 'GET', protocol: 'http:', hostname: 'localhost' }),
          { signingDate: new Date(signedAt), expiresIn },
        );
        const asSent = toWire(signed as unknown as Draft);
        const clock = new ManualClock(signedAt + expiresIn * 1000);
        expect(await verify(asSent, clock, kmsPolicy)).toBe('verified');
        clock.advance(1);
        expect(await verify(asSent, clock, kmsPolicy)).toBe('expired');
      }),
      { numRuns: 80 },
    );
  });
});

describe('refuses', () => {
  const vanilla = suiteCases.find(({ name }) => name === 'get-vanilla')!;
  const good = headerSigned(vanilla);
  const authorization = good.headers.get('authorization')!;

  function withHeaders(changes: Record<string, string | undefined>, request = good): WireRequest {
    const headers = new Map(request.headers);
    for (const [name, value] of Object.entries(changes))
      value === undefined ? headers.delete(name) : headers.set(name, value);
    return { ...request, headers };
  }

  test.each([
    ['no signature', { authorization: undefined }, 'missing'],
    ['another scheme', { authorization: 'Basic YTpi' }, 'missing'],
    ['another algorithm', { authorization: authorization.replace('HMAC-SHA256', 'ECDSA-P256-SHA256') }, 'incomplete'],
    ['no signature value', { authorization: authorization.replace(/, Signature=.*/, '') }, 'incomplete'],
    ['no credential', { authorization: authorization.replace(/Credential=[^,]+,/, '') }, 'incomplete'],
    ['a parameter given twice', { authorization: `${authorization}, Signature=${'0'.repeat(64)}` }, 'incomplete'],
    ['two Authorization headers', { authorization: `${authorization},${authorization}` }, 'incomplete'],
    ['a signature that is too short', { authorization: authorization.slice(0, -1) }, 'incomplete'],
    [
      'a signature in capitals',
      { authorization: authorization.slice(0, -64) + vanilla.headerSignature.toUpperCase() },
      'incomplete',
    ],
    ['a credential of four parts', { authorization: authorization.replace('/aws4_request', '') }, 'incomplete'],
    ['another terminator', { authorization: authorization.replace('aws4_request', 'aws5_request') }, 'mismatch'],
    ['a scope of another day', { authorization: authorization.replace('/20150830/', '/20150829/') }, 'mismatch'],
    ['a scope of another service', { authorization: authorization.replace('/service/', '/other/') }, 'mismatch'],
    ['a region that is none', { authorization: authorization.replace('us-east-1', '..') }, 'mismatch'],
    ['an unknown access key', { authorization: authorization.replace(suite.accessKeyId, 'AKIDOTHER') }, 'unknownKey'],
    ['host not signed', { authorization: authorization.replace('host;', '') }, 'mismatch'],
    ['no date', { 'x-amz-date': undefined }, 'incomplete'],
    ['a date that is none', { 'x-amz-date': '20150231T123600Z' }, 'incomplete'],
    ['a target that is not signed', { 'x-amz-target': 'TrentService.DisableKey' }, 'mismatch'],
    ['a session token that is not signed', { 'x-amz-security-token': [...knownTokens][0] }, 'mismatch'],
    ["a body hash that is not the body's", { 'x-amz-content-sha256': sha256('other') }, 'mismatch'],
  ] as const)('%s', async (_name, changes, problem) => {
    expect(await verify(withHeaders(changes))).toBe(problem);
  });

  test('a signature in header and query at once', async () => {
    const both = { ...good, query: presigned(vanilla).query };
    expect(await verify(both)).toBe('mismatch');
  });

  test.each([
    ['0', 'incomplete'],
    ['604801', 'incomplete'],
    ['-1', 'incomplete'],
    ['1e3', 'incomplete'],
    ['', 'incomplete'],
    ['7200', 'mismatch'],
  ])('presigned for %s seconds: %s', async (expires, problem) => {
    const request = presigned(vanilla);
    expect(
      await verify({ ...request, query: request.query.replace('X-Amz-Expires=3600', `X-Amz-Expires=${expires}`) }),
    ).toBe(problem);
  });

  test('a presigned parameter given twice', async () => {
    const request = presigned(vanilla);
    expect(await verify({ ...request, query: `${request.query}&X-Amz-Expires=3600` })).toBe('incomplete');
  });

  test.each([
    [-300_000, 'verified'],
    [-300_001, 'skewed'],
    [300_000, 'verified'],
    [300_001, 'skewed'],
  ])('a clock %d ms off: %s', async (offset, outcome) => {
    expect(await verify(good, new ManualClock(signedAt + offset))).toBe(outcome);
  });

  test('credentials that have expired', async () => {
    const withToken = suiteCases.find(({ sessionToken }) => sessionToken)!;
    const request = headerSigned(withToken);
    expect(await verify(withHeaders({ 'x-amz-security-token': 'expired' }, request))).toBe('expiredToken');
    expect(await verify(withHeaders({ 'x-amz-security-token': 'another' }, request))).toBe('unknownKey');
  });

  test('an unsigned body, unless the operation takes it', async () => {
    const unsigned = await signer.sign(
      new HttpRequest({
        method: 'PUT',
        path: '/a',
        headers: { host: 'h', 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' },
        body: 'x',
      }),
      { signingDate: new Date(signedAt) },
    );
    const request = toWire(unsigned as unknown as Draft);
    expect(await verify(request, undefined, kmsPolicy)).toBe('mismatch');
    expect(await verify(request, undefined, { service: 'kms', allowsUnsignedPayload: true })).toBe('verified');
  });
});

test('a secret that was replaced takes effect at once, in spite of the cached signing key', async () => {
  let secret: string = suite.secretAccessKey;
  const store: CredentialStore = {
    find: async () => ({ secretAccessKey: Buffer.from(secret), principal, audience: 'account' }),
  };
  const verifier = new SignatureVerifier(store, new ManualClock(signedAt));
  const request = headerSigned(suiteCases.find(({ name }) => name === 'get-vanilla')!);
  const run = () =>
    verifier.verify(request, readAuthorization(request), { service: 'service', allowsUnsignedPayload: false });
  await expect(run()).resolves.toMatchObject({ region: 'us-east-1' });
  secret = suite.secretAccessKey.toLowerCase();
  await expect(run()).rejects.toMatchObject({ problem: 'mismatch' });
});
