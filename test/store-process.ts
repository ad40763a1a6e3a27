// A process that makes and frees snapshots until it is killed, one after the other, each a child of the one before.
// Arguments: store, a number that makes its snapshots' ids its own. A line on stdout for each thing that is done.

import { freeSnapshot } from '../src/blocks/free.ts';
import { Manifest, ManifestBuilder } from '../src/blocks/manifest.ts';
import { openStore } from '../src/blocks/open-store.ts';
import { blockOf, sha256Of } from '../src/blocks/testing-blocks.ts';

const [location, series] = process.argv.slice(2) as [string, string];
const volumeBlocks = 24;
const standingMax = 3;

const store = await openStore(location);
const standing: Manifest[] = [];
for (let number = 0; ; number++) {
  const snapshotId = `snap-${series}x${number}`;
  const parent = standing.at(-1);
  console.log(`making ${snapshotId}`);
  await store.putMark(snapshotId);
  const changed = Array.from({ length: volumeBlocks }, (_, index) => index).filter(
    (index) => !parent || (index + number) % 4 === 0,
  );
  await Promise.all(
    changed.map((index) => store.putBlock({ owner: snapshotId, index }, blockOf({ owner: snapshotId, index }))),
  );
  const sizeBytes = 2 ** 30;
  const createdAt = new Date().toISOString();
  const builder = new ManifestBuilder({ snapshotId, volumeId: `vol-${series}`, sizeBytes, createdAt, parent });
  for (let index = 0; index < volumeBlocks; index++) {
    if (changed.includes(index)) builder.append(index, sha256Of(blockOf({ owner: snapshotId, index })));
    else builder.inherit(index);
  }
  const bytes = builder.finish();
  await store.putManifest(snapshotId, bytes);
  console.log(`made ${snapshotId}`);
  await store.deleteMark(snapshotId);
  standing.push(Manifest.parse(bytes, { snapshotId, location }));
  if (standing.length <= standingMax) continue;
  const [freed] = standing.splice(number % standingMax, 1);
  console.log(`freeing ${freed!.header.snapshotId}`);
  await freeSnapshot(store, freed!.header.snapshotId);
  console.log(`freed ${freed!.header.snapshotId}`);
}
