/** What tests of open volumes share: a directory and a data key for each test, and short names for what all of them do. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import { openSnapshotView } from '../../src/blocks/snapshot-view.ts';
import { blockBytes } from '../../src/blocks/store.ts';
import { createXts, type Xts } from '../../src/crypto/xts.ts';
import { transform } from '../../src/host/devices/testing-volume.ts';
import { TestClient } from '../../src/host/nbd/testing-client.ts';
import { createOpenVolumes, type OpenVolumes, type VolumeHandle, type VolumeSpec } from '../../src/host/volumes.ts';

export const mib = 1024 * 1024;
export const sizeBytes = 8 * mib;
const quiet = () => {};
const log = { info: quiet, warn: quiet, error: quiet };

export let directory: string;
/** The data key of all volumes, and what encrypts with it. */
export let key: Buffer;
export let xts: Xts;
export let volumes: OpenVolumes;

/** Gives each test of the file that calls it a new directory, and closes its volumes after it. */
export function useOpenVolumes(): void {
  beforeEach(() => {
    directory = mkdtempSync('/var/tmp/coffer-volumes-');
    key = randomBytes(64);
    xts = createXts(key);
    volumes = createOpenVolumes({ log });
  });
  afterEach(async () => {
    await volumes.close();
    xts.close();
    rmSync(directory, { recursive: true });
  });
}

export const imagePath = (volumeId: string) => join(directory, `${volumeId}.img`);
export const socket = (name: string) => join(directory, `${name}.sock`);
export const member = (volumeId: string, snapshotId: string, hasImage = true) => ({
  volumeId,
  snapshotId,
  sizeBytes,
  imagePath: imagePath(volumeId),
  hasImage,
});

export function open(volumeId: string, more: Partial<VolumeSpec> = {}): Promise<VolumeHandle> {
  const dataKey = Buffer.from(key);
  return volumes.open({ volumeId, imagePath: imagePath(volumeId), sizeBytes, hasImage: false, dataKey, ...more });
}

export async function connect(volume: VolumeHandle, name: string): Promise<TestClient> {
  return TestClient.connect((await volume.listen({ socketPath: socket(name) })).socketPath);
}

/** A point in time in plaintext. */
export function contentsOf(volumeId: string, snapshotId: string): Buffer {
  const view = openSnapshotView(directory, volumeId, snapshotId);
  try {
    const contents = Buffer.alloc(view.sizeBytes);
    const block = Buffer.from(new ArrayBuffer(blockBytes));
    for (let index = view.nextData(0); index < view.blocks; index = view.nextData(index + 1)) {
      if (view.read(index, block) !== 'data') continue;
      transform(xts, 'decrypt', block, index);
      block.copy(contents, index * blockBytes);
    }
    return contents;
  } finally {
    view.close();
  }
}
