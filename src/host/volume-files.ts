/** The names of what lies in the directory of volumes; ids come from the control plane and are checked here. */
import { join } from 'node:path';

export const volumeIdForm = /^vol-[0-9a-f]{8,32}$/;
export const snapshotIdForm = /^snap-[0-9a-f]{8,32}$/;

/** @throws when the id isn't one: names of files are made of it */
export function checkId(id: string, form: RegExp): string {
  if (!form.test(id)) throw new Error(`${JSON.stringify(id)} is not an id of the form ${form.source}`);
  return id;
}

export function imagePath(volumesDir: string, volumeId: string): string {
  return join(volumesDir, `${checkId(volumeId, volumeIdForm)}.img`);
}

/** What the making of a snapshot has come to: src/host/movers/journal.ts. */
export function journalPath(volumesDir: string, volumeId: string, snapshotId: string): string {
  return join(volumesDir, `${checkId(volumeId, volumeIdForm)}.${checkId(snapshotId, snapshotIdForm)}.journal`);
}
