/** Imports for tests: material that OpenSSL's command line has wrapped, as those who import it wrap it. */
import type { TestKms } from './testing.ts';
import type { Openssl } from './testing-openssl.ts';

/** The expiration of material that is to stay. */
export const never = { ExpirationModel: 'KEY_MATERIAL_DOES_NOT_EXPIRE' };

interface Tools {
  readonly kms: TestKms;
  readonly openssl: Openssl;
}

/** @param tools the test's own, as they are at the time of each call */
export function importing(tools: () => Tools) {
  async function wrapped(
    KeyId: string,
    material: Uint8Array,
    { algorithm = 'RSAES_OAEP_SHA_256', spec = 'RSA_2048', at = {} } = {},
  ): Promise<{ readonly ImportToken: Buffer; readonly EncryptedKeyMaterial: Buffer }> {
    const { kms, openssl } = tools();
    const input = { KeyId, WrappingAlgorithm: algorithm, WrappingKeySpec: spec };
    const { PublicKey, ImportToken } = await kms.run('GetParametersForImport', input, at);
    return { ImportToken, EncryptedKeyMaterial: openssl.wrap(algorithm, PublicKey, material) };
  }

  /** A request to import material that does not expire, unless `input` says otherwise. */
  async function request(KeyId: string, material: Uint8Array, input: object, at: object) {
    const expiration = 'ValidTo' in input ? {} : never;
    return { KeyId, ...(await wrapped(KeyId, material, { at })), ...expiration, ...input };
  }

  return {
    wrapped,
    importInto: async (KeyId: string, material: Uint8Array, input: object = {}, at = {}) =>
      tools().kms.run('ImportKeyMaterial', await request(KeyId, material, input, at), at),
    importCode: async (KeyId: string, material: Uint8Array, input: object = {}, at = {}) =>
      tools().kms.code('ImportKeyMaterial', await request(KeyId, material, input, at), at),
    newKey: (input: object = {}, at = {}) => tools().kms.key({ Origin: 'EXTERNAL', ...input }, at),
    describeKey: async (KeyId: string, at = {}) => (await tools().kms.run('DescribeKey', { KeyId }, at)).KeyMetadata,
    materials: async (KeyId: string, at = {}) =>
      (await tools().kms.run('ListKeyRotations', { KeyId, IncludeKeyMaterial: 'ALL_KEY_MATERIAL' }, at)).Rotations,
  };
}
