// A process that has volumes open until it is killed. Arguments: directory, size in bytes, key in hex, number of volumes.
// Volume n is vol-n.img there, on the socket n.sock. A line on standard input that names a snapshot marks all of them.
// Only for tests: a real key never goes through a command line.

import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { createOpenVolumes } from '../src/host/volumes.ts';

const [directory, size, key, count] = process.argv.slice(2) as [string, string, string, string];
const sizeBytes = Number(size);
const quiet = () => {};
const volumes = createOpenVolumes({ log: { info: quiet, warn: console.error, error: console.error } });
const ids = Array.from({ length: Number(count) }, (_, number) => `vol-${number}`);
for (const [number, volumeId] of ids.entries()) {
  const imagePath = join(directory, `${volumeId}.img`);
  const dataKey = Buffer.from(key, 'hex');
  const volume = await volumes.open({ volumeId, imagePath, sizeBytes, hasImage: false, dataKey });
  await volume.listen({ socketPath: join(directory, `${number}.sock`) });
}
createInterface(process.stdin).on('line', async (name) => {
  const states = await volumes.markSnapshots(
    ids.map((volumeId) => ({
      volumeId,
      snapshotId: `${name}-${volumeId}`,
      sizeBytes,
      imagePath: join(directory, `${volumeId}.img`),
      hasImage: true,
    })),
  );
  console.log(states.map(({ state }) => state).join(' '));
});
console.log('ready');
