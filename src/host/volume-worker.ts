// The thread of one open volume: puts the stack of devices together, serves it on as many sockets as it is told to, and takes
// it down again.

import { renameSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { growVolumeImage } from '../blocks/images.ts';
import { libc } from '../blocks/libc.ts';
import { ensureVolumeFiles, type OpenVolumeFiles, openVolumeFiles } from '../blocks/open-volume.ts';
import { createXts, type Xts } from '../crypto/xts.ts';
import { cipherDevice } from './devices/cipher.ts';
import type { Device, DeviceError } from './devices/device.ts';
import { fileDevice, type GrowingDevice } from './devices/file.ts';
import { type RestoreDevice, restoreDevice } from './devices/restore.ts';
import { type TrackingDevice, trackingDevice } from './devices/tracking.ts';
import { listenNbd, type NbdServer } from './nbd/server.ts';
import type { Accounts } from './nbd/transmission.ts';
import { SnapshotBlocks } from './snapshot-blocks.ts';
import { statFields, type ThreadInput, type ThreadMessage, type ThreadRequest } from './volume-messages.ts';

const input = workerData as ThreadInput;
const port = parentPort!;
const say = (message: ThreadMessage) => port.postMessage(message);

/** How often the same kind of trouble is told. */
const troubleIntervalMs = 60_000;
/** Blocks that the background restore asks for at a time: a bucket is far away, a directory's disk is shared. */
const bucketFetches = 16;
const directoryFetches = 6;

interface Stack {
  readonly files: OpenVolumeFiles;
  readonly file: GrowingDevice;
  readonly tracking: TrackingDevice;
  readonly restore: RestoreDevice | undefined;
  readonly top: Device;
  readonly implementation: string;
}

let stack: Stack | undefined;
const listeners = new Map<number, NbdServer>();
const told = new Map<string, number>();

process.on('uncaughtException', (error) => {
  say({ type: 'crashed', message: error.stack ?? String(error) });
  // Whatever state things are in, the keys must not stay behind in native memory.
  stack?.top.close();
  process.exit(1);
});

async function openStack(): Promise<Stack> {
  const xts = takeKey(input.key);
  let sourceXts: Xts | undefined;
  let blocks: SnapshotBlocks | undefined;
  try {
    sourceXts = takeKey(input.restore?.key);
    const { restore, imagePath, sizeBytes } = input;
    blocks = restore && new SnapshotBlocks(restore.storeLocation, restore.storeId, restore.snapshotId);
    const from = restore && { snapshotId: restore.snapshotId, blocks: () => blocks!.indexes() };
    await ensureVolumeFiles(imagePath, sizeBytes, input.hasImage, from);
    const files = openVolumeFiles(imagePath, sizeBytes, restore);
    const file = fileDevice(files.image, libc());
    const tracking = trackingDevice(file, files.map, files.points);
    const source = files.map.isRestoring ? blocks : undefined;
    const restoring = source && startRestore(files, file, tracking, source, sourceXts, xts);
    // What is not needed (any more) does not stay.
    if (!restoring) {
      sourceXts?.close();
      blocks?.close();
      noteRestored(files);
    }
    const upper = restoring ?? tracking;
    const top = xts ? cipherDevice(upper, xts) : upper;
    return { files, file, tracking, restore: restoring, top, implementation: xts?.implementation ?? 'none' };
  } catch (error) {
    xts?.close();
    sourceXts?.close();
    blocks?.close();
    throw error;
  }
}

function startRestore(
  files: OpenVolumeFiles,
  file: Device,
  below: TrackingDevice,
  source: SnapshotBlocks,
  sourceXts: Xts | undefined,
  xts: Xts | undefined,
): RestoreDevice {
  const progress = new Float64Array(input.restoreProgress);
  const device = restoreDevice({
    below,
    file,
    imageFd: files.image.fd,
    map: files.map,
    source,
    sourceXts,
    xts,
    backgroundMax: input.restore!.storeLocation.startsWith('s3://') ? bucketFetches : directoryFetches,
    trouble: (trouble) => say({ type: 'restoreTrouble', trouble }),
    progress: (left) => {
      progress[1] = left;
    },
    restored: () => say({ type: 'restored' }),
  });
  progress[0] = files.map.header.restore!.blocks;
  progress[1] = device.left;
  device.setRate(input.restore!.rate);
  return device;
}

function noteRestored(files: OpenVolumeFiles): void {
  new Float64Array(input.restoreProgress)[0] = files.map.header.restore?.blocks ?? 0;
}

function takeKey(bytes: ArrayBuffer | undefined): Xts | undefined {
  if (!bytes) return undefined;
  const key = Buffer.from(bytes);
  try {
    return createXts(key);
  } finally {
    key.fill(0);
  }
}

function makeAccounts(stats: SharedArrayBuffer): Accounts {
  const values = new Float64Array(stats);
  const accounts = {
    trouble(error: DeviceError) {
      const now = Date.now();
      if (now - (told.get(error.code) ?? 0) < troubleIntervalMs) return;
      told.set(error.code, now);
      say({ type: 'trouble', code: error.code, message: error.message });
    },
  };
  statFields.forEach((field, index) => {
    Object.defineProperty(accounts, field, {
      get: () => values[index],
      set: (value: number) => {
        values[index] = value;
      },
    });
  });
  return accounts as Accounts;
}

async function listen(request: ThreadRequest & { call: 'listen' }, { top }: Stack): Promise<void> {
  const description = () => ({
    name: request.exportName,
    description: `Coffer volume ${input.volumeId}${input.key ? ', encrypted at rest' : ''}`,
    sizeBytes: top.size,
    readOnly: request.readOnly,
  });
  listeners.set(request.listener, await listenNbd(request.socketPath, top, description, makeAccounts(request.stats)));
}

function flush(top: Device): Promise<void> {
  return new Promise((resolve, reject) => top.flush((error) => (error ? reject(error) : resolve())));
}

async function closeListener(listener: number, graceMs: number, { top }: Stack): Promise<void> {
  const server = listeners.get(listener);
  listeners.delete(listener);
  await server?.close(graceMs);
  await flush(top);
}

/** Growing keeps the order that a crash needs: the image is large enough for whatever the map says. */
function resize(sizeBytes: number, { files, file }: Stack): void {
  if (sizeBytes <= file.size) return;
  growVolumeImage(files.image.fd, sizeBytes);
  files.map.grow(sizeBytes);
  file.grow(sizeBytes);
}

async function close(graceMs: number, { top, files, restore }: Stack): Promise<void> {
  await Promise.all([...listeners.values()].map((server) => server.close(graceMs)));
  restore?.stop();
  let failure: unknown;
  try {
    await flush(top);
  } catch (error) {
    failure = error;
  }
  stack = undefined;
  try {
    files.close(failure === undefined);
  } finally {
    top.close();
  }
  if (failure !== undefined) throw failure;
}

/** Whatever fails, the volume goes on: a point in time that can't be kept is lost, and says so. */
function commit({ files, tracking }: Stack): void {
  try {
    files.points.commit();
  } finally {
    tracking.resume();
  }
}

async function carryOut(request: ThreadRequest, open: Stack): Promise<void> {
  const { tracking, files, restore } = open;
  switch (request.call) {
    case 'listen':
      return listen(request, open);
    case 'closeListener':
      return closeListener(request.listener, request.graceMs, open);
    case 'setRate':
      return restore?.setRate(request.rate);
    case 'resize':
      return resize(request.sizeBytes, open);
    case 'prepare':
      return files.points.prepare(request.snapshotId, request.sizeBytes, request.leader);
    case 'hold':
      return tracking.hold();
    case 'fix':
      return files.points.fix();
    case 'fixAlone':
      files.points.fix();
      renameSync(`${request.path}.new`, request.path);
      return commit(open);
    case 'commit':
      return commit(open);
    case 'abort':
      files.points.abort();
      return tracking.resume();
    case 'close':
      return close(request.graceMs, open);
  }
}
async function answer(request: ThreadRequest): Promise<void> {
  try {
    if (!stack) throw new Error('the volume is closed');
    await carryOut(request, stack);
    say({ type: 'answer', id: request.id });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    say({ type: 'answer', id: request.id, error: { code, message } });
  }
  if (request.call === 'close') port.close();
}

try {
  stack = await openStack();
  port.on('message', (request: ThreadRequest) => void answer(request));
  say({ type: 'ready', implementation: stack.implementation });
  if (stack.restore) stack.restore.start();
  else say({ type: 'restored' });
} catch (error) {
  stack?.top.close();
  const { code, message, detail } = error as NodeJS.ErrnoException & { detail?: string };
  say({ type: 'refused', code, message, detail });
  port.close();
}
