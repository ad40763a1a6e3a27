// The thread of one attached volume: puts the stack of devices together, serves it, and takes it down again.

import { parentPort, workerData } from 'node:worker_threads';
import { openVolumeImage } from '../blocks/images.ts';
import { libc } from '../blocks/libc.ts';
import { createXts, type Xts } from '../crypto/xts.ts';
import { cipherDevice } from './devices/cipher.ts';
import type { Device, DeviceError } from './devices/device.ts';
import { fileDevice } from './devices/file.ts';
import { statFields, type WorkerInput, type WorkerMessage } from './export.ts';
import { listenNbd, type NbdServer } from './nbd/server.ts';
import type { Accounts } from './nbd/transmission.ts';

const input = workerData as WorkerInput;
const port = parentPort!;
const say = (message: WorkerMessage) => port.postMessage(message);

/** How often the same kind of trouble is told. */
const troubleIntervalMs = 60_000;

let device: Device | undefined;

process.on('uncaughtException', (error) => {
  say({ type: 'crashed', message: error.stack ?? String(error) });
  // Whatever state things are in, the key must not stay behind in native memory.
  device?.close();
  process.exit(1);
});

function stack(): { device: Device; implementation: string } {
  const xts = takeKey();
  try {
    const image = openVolumeImage(input.imagePath, input.sizeBytes, input.readOnly);
    const file = fileDevice(image, libc(), input.readOnly);
    return { device: xts ? cipherDevice(file, xts) : file, implementation: xts?.implementation ?? 'none' };
  } catch (error) {
    xts?.close();
    throw error;
  }
}

function takeKey(): Xts | undefined {
  if (!input.key) return undefined;
  const key = Buffer.from(input.key);
  try {
    return createXts(key);
  } finally {
    key.fill(0);
  }
}

function makeAccounts(): Accounts {
  const values = new Float64Array(input.stats);
  const told = new Map<string, number>();
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

async function close(server: NbdServer, top: Device): Promise<void> {
  await server.close(input.graceMs);
  const failure = input.readOnly
    ? undefined
    : await new Promise<Error | undefined>((resolve) => top.flush((error) => resolve(error)));
  device = undefined;
  top.close();
  say({ type: 'closed', failure: failure?.message });
  port.close();
}

try {
  const { device: top, implementation } = stack();
  device = top;
  const description = {
    name: input.exportName,
    description: `Coffer volume ${input.volumeId}${input.key ? ', encrypted at rest' : ''}`,
    sizeBytes: input.sizeBytes,
    readOnly: input.readOnly,
  };
  const server = await listenNbd(input.socketPath, top, description, makeAccounts());
  port.once('message', () => void close(server, top));
  say({ type: 'ready', implementation });
} catch (error) {
  device?.close();
  const { code, message } = error as NodeJS.ErrnoException;
  say({ type: 'refused', code, message });
  port.close();
}
