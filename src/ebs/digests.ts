/**
 * The key under which a host notes down the digests of an encrypted snapshot's blocks while they are written. It comes of the
 * root key and of the snapshot's encrypted data key, and is gone with that: nothing that a host keeps tells of plaintext.
 */
import type { DirectSnapshot } from '../aws/direct-snapshots.ts';
import { digestKeyBytes } from '../crypto/block-digest.ts';
import type { RootKey } from '../crypto/root-key.ts';

const purpose = 'ebs-digest';

/** 64 bytes, which the caller wipes; undefined for a snapshot that is not encrypted. */
export function digestKeyOf(rootKey: RootKey, { SnapshotId, Encryption }: DirectSnapshot): Buffer | undefined {
  if (!Encryption) return undefined;
  const subject = Buffer.from(`${SnapshotId}\n`, 'utf8');
  const halves = [1, 2].map((half) =>
    rootKey.fingerprint(purpose, Buffer.of(half), subject, Encryption.EncryptedDataKey),
  );
  const key = Buffer.concat(halves, digestKeyBytes);
  for (const half of halves) half.fill(0);
  return key;
}
