/** A deleted volume's image goes, and whatever lies beside it. Its encrypted data key went before: these bytes are noise. */
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { deleteVolumeImage } from '../../blocks/images.ts';
import { syncDirectory } from '../../files/durable.ts';
import { imagePath } from '../volume-files.ts';
import type { TaskWork } from './task.ts';

export const eraseVolume: TaskWork<'eraseVolume'> = async ({ volumeId }, { volumesDir }) => {
  // Refused while the image is open: then nothing beside it may go, either.
  deleteVolumeImage(imagePath(volumesDir, volumeId));
  const left = readdirSync(volumesDir).filter((name) => name.startsWith(`${volumeId}.`));
  for (const name of left) rmSync(join(volumesDir, name), { force: true });
  if (left.length > 0) syncDirectory(volumesDir);
  return undefined;
};
