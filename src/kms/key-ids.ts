/** Names of keys and of their materials, and the bytes that stand for them in ciphertext blobs. */
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { formatArn } from '../aws/arn.ts';

const multiRegionPrefix = 'mrk-';

/** The id of a key of one region: a random UUID (version 4). */
export const newKeyId = (): string => randomUUID();

/**
 * The id of a multi-Region key: `mrk-` and 32 hexadecimal digits. As a UUID these would be one of version 8, by which the 16
 * bytes in a ciphertext blob tell the two kinds apart.
 */
export function newMultiRegionKeyId(): string {
  const bytes = randomBytes(16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  return multiRegionPrefix + bytes.toString('hex');
}

/** The 16 bytes of a key's or material's id. */
export function idBytes(id: string): Buffer {
  return Buffer.from(id.replace(multiRegionPrefix, '').replaceAll('-', ''), 'hex');
}

/** The key id that 16 bytes stand for. */
export function keyIdOf(bytes: Buffer): string {
  return bytes[6]! >> 4 === 8 ? multiRegionPrefix + bytes.toString('hex') : uuidText(bytes);
}

/** The UUID that 16 bytes write. */
export function uuidText(bytes: Buffer): string {
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

export function keyArn(key: { region: string; account: string; key_id: string }): string {
  return formatArn('kms', key.region, key.account, `key/${key.key_id}`);
}

/** The API's name for a material: 64 hexadecimal digits that say nothing about its bytes. */
export function keyMaterialId(keyId: string, materialId: string): string {
  return createHash('sha256').update(`${keyId}/${materialId}`).digest('hex');
}
