/** Keeps a volume open until all of it has come from its snapshot; attached or not, its one thread restores it. */

import { besideImage, readMapHeader } from '../../blocks/volume-map.ts';
import { pause } from '../pause.ts';
import { imagePath } from '../volume-files.ts';
import type { RestoreProgress, VolumeHandle } from '../volumes.ts';
import type { TaskContext, TaskWork } from './task.ts';

const lookEveryMs = 200;
/** A restore that says what troubles it and has not got on for this long counts as failed. */
const stuckMs = 10_000;
/** The same for a block that is damaged or missing: until then others may still come. */
const stuckForGoodMs = 2_000;

export const initializeVolume: TaskWork<'initializeVolume'> = async (task, world, context) => {
  const { volumeId, sizeBytes, hasImage, encryption, source } = task;
  const { signal } = context;
  const path = imagePath(world.volumesDir, volumeId);
  // Done by an earlier process. The snapshot's key may not be usable for this volume any more.
  if (readMapHeader(besideImage(path, 'map'))?.restore?.done) return undefined;
  const { storeLocation } = world;
  const storeId = world.storeId();
  let dataKey: Buffer | undefined;
  let sourceDataKey: Buffer | undefined;
  let handle: VolumeHandle | undefined;
  try {
    dataKey = encryption && (await world.dataKey(encryption, volumeId, signal));
    sourceDataKey = source.encryption && (await world.dataKey(source.encryption, volumeId, signal));
    handle = await world.volumes.open({
      volumeId,
      imagePath: path,
      sizeBytes,
      hasImage,
      dataKey,
      restore: { source, sourceDataKey, storeLocation, storeId },
    });
    handle.setRate(source.rate);
    await restored(handle, context);
  } finally {
    dataKey?.fill(0);
    sourceDataKey?.fill(0);
    await handle?.release();
  }
  return undefined;
};

/** Resolves when the whole volume is restored, durably. */
async function restored(handle: VolumeHandle, { signal, progress }: TaskContext): Promise<void> {
  let isRestored = false;
  let died: string | undefined;
  handle.onRestored(() => {
    isRestored = true;
  });
  handle.onFailure(({ stopped, message }) => {
    if (stopped) died = message;
  });
  let lastLeft = -1;
  let movedAt = performance.now();
  while (!isRestored) {
    if (died !== undefined) throw new Error(died);
    const state = handle.restoreProgress();
    if (state.left !== lastLeft) {
      lastLeft = state.left;
      movedAt = performance.now();
      progress(state.blocks === 0 ? 100 : (100 * (state.blocks - state.left)) / state.blocks);
    }
    checkTrouble(state, performance.now() - movedAt);
    await pause(lookEveryMs, signal);
  }
}

/** Nothing is final here: the block may be put back in the store, or overwritten by whoever uses the volume. */
function checkTrouble({ trouble }: RestoreProgress, stillForMs: number): void {
  if (trouble && stillForMs > (trouble.final ? stuckForGoodMs : stuckMs)) throw new Error(trouble.message);
}
