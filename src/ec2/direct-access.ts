/** What it takes to move blocks of a snapshot for a caller: a host, and the data key, for which KMS is asked as the caller. */
import type { DecryptResponse } from '@aws-sdk/client-kms';
import type { DirectAccess } from '../aws/direct-snapshots.ts';
import { AwsError } from '../aws/errors.ts';
import { betweenServices, operation } from '../aws/service.ts';
import { checkSnapshotId, incorrectState } from './errors.ts';
import { encryptionContext, isKeyError, keyError } from './keys.ts';
import { dataKeyOf } from './restores.ts';
import { findUsableSnapshot } from './snapshot-store.ts';
import { anyHost } from './task-store.ts';

/**
 * A host that serves the snapshot's blocks and, where `WithKey`, the data key from KMS Decrypt: asked through EC2, so that
 * the AWS managed key's policy applies, and recorded as the caller's.
 * @throws {AwsError} InvalidSnapshot.NotFound; IncorrectState for one that failed @throws {KeyUnusable}
 */
export const openDirectSnapshot = operation<{ readonly SnapshotId: string; readonly WithKey: boolean }, DirectAccess>({
  name: 'OpenDirectSnapshot',
  effect: 'reads',
  ...betweenServices,
  async handle(call, input) {
    const snapshot = await findUsableSnapshot(call, checkSnapshotId(input.SnapshotId));
    // It may have failed since it was looked up: without its data key blocks would be stored as they are.
    if (snapshot.state === 'error' || (snapshot.encrypted && snapshot.encrypted_data_key === null))
      throw incorrectState(`The snapshot '${snapshot.snapshot_id}' is in the 'error' state.`);
    const HostId = snapshot.host_id ?? (await anyHost(call)) ?? null;
    const dataKey = input.WithKey ? dataKeyOf(snapshot) : undefined;
    if (!dataKey || HostId === null) return { HostId, DataKey: null };
    const { keyArn, encryptedDataKey, contextId } = dataKey;
    try {
      const { Plaintext } = await call.invoke<DecryptResponse>('kms', 'Decrypt', {
        KeyId: keyArn,
        CiphertextBlob: encryptedDataKey,
        EncryptionContext: encryptionContext(contextId),
      });
      return { HostId, DataKey: Plaintext! };
    } catch (error) {
      if (error instanceof AwsError && isKeyError(error.code))
        throw keyError(error.code, error.message, keyArn, keyArn);
      throw error;
    }
  },
});
