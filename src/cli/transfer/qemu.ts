/** Disk images that are not raw, through QEMU's own tools: qemu-img tells what they are, qemu-nbd opens them. */
import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { CommandError, exitCodes } from '../errors.ts';
import { NbdClient } from '../nbd-client.ts';

const run = promisify(execFile);
const openTimeoutMs = 10_000;
const openStepMs = 20;

interface ImageInfo {
  readonly 'virtual-size': number;
  /** Bytes. */
  readonly 'cluster-size'?: number;
  readonly format: string;
  readonly encrypted?: boolean;
  readonly 'backing-filename'?: string;
  readonly 'format-specific'?: { readonly data?: { readonly 'data-file'?: string } };
}

export interface Extent {
  readonly start: number;
  readonly length: number;
  /** Where the data lie in the image's file; absent where they are compressed. */
  readonly offset?: number;
  readonly data: boolean;
  readonly zero: boolean;
}

/**
 * What qemu-img says of an image of this format. The format is never left to be guessed: the first bytes of a raw image
 * are its guest's, which could name files of this machine in them.
 * @throws {CommandError} for an image that reaches into other files, or is encrypted
 */
export async function imageInfo(path: string, format: string): Promise<ImageInfo> {
  const { stdout } = await qemuImg(['info', '--output=json', '-f', format, path]);
  const info = JSON.parse(stdout) as ImageInfo;
  if (info['backing-filename'] || info['format-specific']?.data?.['data-file'])
    throw new CommandError(
      `${path} takes data from another file; make it whole first: qemu-img convert -O qcow2 ${path} whole.qcow2`,
    );
  if (info.encrypted) throw new CommandError(`${path} is encrypted; decrypt it first with qemu-img convert`);
  return info;
}

/**
 * Where an image holds data.
 * @throws {CommandError} for one whose data reach beyond the end of its file: QEMU would read zeros there
 */
export async function imageMap(path: string, format: string, info: ImageInfo): Promise<Extent[]> {
  const { stdout } = await qemuImg(['map', '--output=json', '-f', format, path]);
  const extents = JSON.parse(stdout) as Extent[];
  const dataEnd = extents.reduce((end, { data, offset = 0, length }) => Math.max(end, data ? offset + length : 0), 0);
  // Of the last cluster only a part may have been written.
  if (dataEnd > statSync(path).size + (info['cluster-size'] ?? 0))
    throw new CommandError(`${path} is cut short: the end of its data is missing`);
  return extents;
}

export async function createImage(path: string, format: string, sizeBytes: number): Promise<void> {
  await qemuImg(['create', '-q', '-f', format, path, String(sizeBytes)]);
}

async function qemuImg(parameters: readonly string[]): Promise<{ stdout: string }> {
  try {
    return await run('qemu-img', parameters, { maxBuffer: 256 * 1024 * 1024 });
  } catch (error) {
    throw toolError('qemu-img', error);
  }
}

function toolError(tool: string, error: unknown): CommandError {
  const { code, stderr, message } = error as { code?: unknown; stderr?: string; message: string };
  if (code === 'ENOENT')
    return new CommandError(
      `${tool} is not installed; it reads and writes images that are not raw (Debian: qemu-utils)`,
      exitCodes.unavailable,
    );
  return new CommandError(`${tool}: ${(stderr || message).trim()}`);
}

/** An image opened by a qemu-nbd of its own, through several connections. */
export class QemuImage {
  readonly sizeBytes: number;
  readonly #clients: readonly NbdClient[];
  readonly #end: () => Promise<void>;
  #next = 0;

  private constructor(clients: readonly NbdClient[], end: () => Promise<void>) {
    this.#clients = clients;
    this.sizeBytes = clients[0]!.sizeBytes;
    this.#end = end;
  }

  static async open(path: string, format: string, options: { writable: boolean; connections: number }) {
    const directory = mkdtempSync(join(tmpdir(), 'coffer-image-'));
    const socket = join(directory, 'image.sock');
    // Without --persistent it ends with its last client, also when this process is killed.
    const parameters = [`--shared=${options.connections}`, `--format=${format}`, `--socket=${socket}`];
    parameters.push(...(options.writable ? ['--discard=unmap'] : ['--read-only']));
    const child = spawn('qemu-nbd', [...parameters, path], { stdio: ['ignore', 'ignore', 'pipe'] });
    const said: string[] = [];
    child.stderr.on('data', (chunk: Buffer) => said.push(chunk.toString()));
    const ended = new Promise<Error>((resolve) => {
      child.once('error', (error) => resolve(toolError('qemu-nbd', error)));
      child.once('exit', () => resolve(toolError('qemu-nbd', { message: said.join('') || 'it ended' })));
    });
    const end = async () => {
      if (child.exitCode === null && child.signalCode === null && child.kill('SIGTERM')) await ended;
      rmSync(directory, { recursive: true, force: true });
    };
    let failure: Error | undefined;
    void ended.then((error) => {
      failure = error;
    });
    try {
      const deadline = Date.now() + openTimeoutMs;
      while (!existsSync(socket)) {
        if (failure) throw failure;
        if (Date.now() > deadline) throw new CommandError(`qemu-nbd did not open ${path} in time`);
        await new Promise((wake) => setTimeout(wake, openStepMs));
      }
      const clients: NbdClient[] = [];
      while (clients.length < options.connections) {
        try {
          clients.push(await NbdClient.connect(socket));
        } catch (error) {
          // It has made its socket, but does not listen yet; or it has ended, and says why.
          if (failure || Date.now() > deadline) throw failure ?? error;
          await new Promise((wake) => setTimeout(wake, openStepMs));
        }
      }
      return new QemuImage(clients, end);
    } catch (error) {
      await end();
      throw error;
    }
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#client().read(offset, length);
  }

  write(offset: number, data: Uint8Array): Promise<void> {
    return this.#client().write(offset, data);
  }

  flush(): Promise<void> {
    return this.#clients[0]!.flush();
  }

  async close(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.close()));
    await this.#end();
  }

  #client(): NbdClient {
    this.#next = (this.#next + 1) % this.#clients.length;
    return this.#clients[this.#next]!;
  }
}
