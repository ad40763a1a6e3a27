// An export served in the test's own thread, on an image in a directory that goes away with it. Not used by the product.

import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach } from 'vitest';
import { createVolumeImage, openVolumeImage } from '../../blocks/images.ts';
import { fadviseDontNeed, libc } from '../../blocks/libc.ts';
import { createXts } from '../../crypto/xts.ts';
import { cipherDevice } from '../devices/cipher.ts';
import type { Device } from '../devices/device.ts';
import { fileDevice } from '../devices/file.ts';
import { listenNbd, type ServerLimits } from './server.ts';
import type { Accounts } from './transmission.ts';

export const mib = 1024 * 1024;
export const size = 64 * mib;

export interface TestServerOptions {
  readonly readOnly?: boolean;
  readonly limits?: ServerLimits;
  /** Changes the device under the cipher, to make it fail. */
  readonly wrap?: (below: Device) => Device;
}

export interface TestServer {
  readonly directory: string;
  readonly socketPath: string;
  readonly device: Device;
  readonly accounts: Accounts & { readonly troubles: string[] };
  /** Throws the image out of the page cache, so that what follows has to wait for the disk. */
  makeCold(): Promise<void>;
  stop(): Promise<void>;
}

/** Serves an encrypted volume of `size` bytes, called `vol-1`. Not in /tmp: a tmpfs has no cold pages. */
export async function startTestServer(options: TestServerOptions = {}): Promise<TestServer> {
  const { readOnly = false, limits, wrap = (below) => below } = options;
  const directory = mkdtempSync('/var/tmp/coffer-nbd-');
  const socketPath = join(directory, 'sockets', 'vol-1');
  const path = join(directory, 'vol.img');
  createVolumeImage(path, size);
  const image = openVolumeImage(path, size, false);
  const device = cipherDevice(wrap(fileDevice(image, libc())), createXts(randomBytes(64)));
  const troubles: string[] = [];
  const accounts = {
    connections: 0,
    reads: 0,
    readBytes: 0,
    writes: 0,
    writeBytes: 0,
    flushes: 0,
    troubles,
    trouble: (error: { code: string }) => void troubles.push(error.code),
  };
  const description = { name: 'vol-1', description: 'a volume', sizeBytes: size, readOnly };
  const listening = await listenNbd(socketPath, device, () => description, accounts, limits);
  return {
    directory,
    socketPath,
    device,
    accounts,
    async makeCold() {
      await new Promise((resolve) => device.flush(resolve));
      libc().fadvise(image.fd, 0, 0, fadviseDontNeed);
    },
    async stop() {
      await listening.close(1000);
      device.close();
      rmSync(directory, { recursive: true });
    },
  };
}

/** The server of the running test, where the file's tests call `start`. */
export let server: TestServer;

export async function start(options?: TestServerOptions): Promise<void> {
  server = await startTestServer(options);
}

/** For a file whose tests call `start`: stops what each has started. */
export function stopAfterEach(): void {
  afterEach(() => server.stop());
}
