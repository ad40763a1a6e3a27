// A process that exports one volume until it is killed. Arguments: image, size in bytes, key in hex, socket.
// Only for tests: a real key never goes through a command line.

import { openExport } from '../src/host/export.ts';

const [imagePath, size, key, socketPath] = process.argv.slice(2) as [string, string, string, string];
const quiet = () => {};
await openExport({
  volumeId: 'vol-crash',
  imagePath,
  sizeBytes: Number(size),
  dataKey: Buffer.from(key, 'hex'),
  socketPath,
  log: { info: quiet, warn: quiet, error: console.error },
});
console.log('ready');
