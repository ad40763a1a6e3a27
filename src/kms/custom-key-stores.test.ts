import { beforeEach, describe, expect, test } from 'vitest';
import { TestKms } from './testing.ts';

let kms: TestKms;
beforeEach(async () => {
  kms = await TestKms.create();
});

const refused = {
  code: 'UnsupportedOperationException',
  message: expect.stringMatching(/^Custom key stores are not supported: .*Origin EXTERNAL/),
};
const credential = { AccessKeyId: 'ABCDEFGHIJKLMNOPQRST', RawSecretAccessKey: 'r'.repeat(43) };
const named = { CustomKeyStoreId: 'cks-1234567890abcdef0' };
const inputs: Record<string, object> = {
  CreateCustomKeyStore: {
    CustomKeyStoreName: 'hsm',
    CustomKeyStoreType: 'EXTERNAL_KEY_STORE',
    KeyStorePassword: 'a secret of theirs',
    XksProxyAuthenticationCredential: credential,
    XksProxyConnectivity: 'PUBLIC_ENDPOINT',
    XksProxyUriEndpoint: 'https://keys.example.com',
    XksProxyUriPath: '/kms/xks/v1',
  },
  ConnectCustomKeyStore: named,
  DeleteCustomKeyStore: named,
  DescribeCustomKeyStores: {},
  DisconnectCustomKeyStore: named,
  UpdateCustomKeyStore: { ...named, NewCustomKeyStoreName: 'hsm2', KeyStorePassword: 'a secret of theirs' },
};

describe.each(Object.keys(inputs))('%s', (name) => {
  test('is refused with the reason, and on record without its secrets', async () => {
    expect(await kms.fails(name, inputs[name]!)).toEqual(refused);
    expect(kms.last.record).toMatchObject({ resources: [] });
    expect(JSON.stringify(kms.last)).not.toMatch(/a secret of theirs|rrrrr/);
  });

  test('needs the permission', async () => {
    kms.authorize = (_call, { action, resource }) => `${action} on ${resource}`;
    expect(await kms.fails(name, inputs[name]!)).toEqual({
      code: 'AccessDeniedException',
      message: expect.stringContaining(`kms:${name} on *`),
    });
  });
});

test('bad input is refused as such, without the secrets in it', async () => {
  for (const name of ['ConnectCustomKeyStore', 'DeleteCustomKeyStore', 'DisconnectCustomKeyStore'])
    expect(await kms.code(name, {})).toBe('ValidationException');
  expect(await kms.code('DescribeCustomKeyStores', { Limit: 0 })).toBe('ValidationException');
  const RawSecretAccessKey = `${'s'.repeat(43)}!`;
  const wrong = await kms.fails('CreateCustomKeyStore', {
    CustomKeyStoreName: 'hsm',
    KeyStorePassword: 'p'.repeat(33),
    XksProxyAuthenticationCredential: { ...credential, RawSecretAccessKey },
  });
  expect(wrong.code).toBe('ValidationException');
  expect(wrong.message).toContain('2 validation errors detected');
  expect(wrong.message).not.toMatch(/ppp|sss/);
});

test('no key is made in one', async () => {
  for (const input of [
    { Origin: 'AWS_CLOUDHSM', ...named },
    { Origin: 'EXTERNAL_KEY_STORE', XksKeyId: 'their-key', ...named },
    { Origin: 'AWS_CLOUDHSM' },
    named,
  ])
    expect(await kms.fails('CreateKey', input)).toEqual(refused);
  expect(await kms.code('CreateKey', { XksKeyId: 'their-key' })).toBe('ValidationException');
  expect((await kms.run('ListKeys')).Keys).toEqual([]);
});
