/** Disks that are full and disks that fail, as real ones: a small tmpfs, and nbdkit's error filter under a FUSE mount. Needs root. */
import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './client.ts';
import { until } from './server.ts';

/** A file system of a given size, mounted at a directory. */
export class SmallDisk {
  readonly directory: string;
  readonly #filler: string;

  private constructor(directory: string) {
    this.directory = directory;
    this.#filler = join(directory, 'filler');
  }

  static async mount(directory: string, bytes: number): Promise<SmallDisk> {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    await run('mount', ['-t', 'tmpfs', '-o', `size=${bytes},mode=0700`, 'tmpfs', directory]);
    return new SmallDisk(directory);
  }

  async resize(bytes: number): Promise<void> {
    rmSync(this.#filler, { force: true });
    await run('mount', ['-o', `remount,size=${bytes}`, this.directory]);
  }

  /** Leaves not a byte of room. */
  fill(): void {
    const file = openSync(this.#filler, 'a');
    try {
      for (let chunk = 1024 * 1024; chunk >= 4096; ) {
        try {
          writeSync(file, Buffer.alloc(chunk));
        } catch {
          chunk /= 2;
        }
      }
    } finally {
      closeSync(file);
    }
  }

  async unmount(): Promise<void> {
    await run('umount', ['--lazy', this.directory]);
  }
}

/** A file that lies on a disk which can be told to fail. */
export class FailingFile {
  readonly path: string;
  readonly #scratch: string;
  readonly #ended: Promise<void>;

  private constructor(path: string, scratch: string, ended: Promise<void>) {
    this.path = path;
    this.#scratch = scratch;
    this.#ended = ended;
  }

  /** Puts a file that is there behind such a disk; what has it open keeps the file itself. */
  static async behind(path: string): Promise<FailingFile> {
    const scratch = mkdtempSync(join(tmpdir(), 'coffer-failing-'));
    const fuse = join(scratch, 'fuse');
    mkdirSync(fuse);
    const faults = ['pread', 'pwrite', 'trim', 'zero'].flatMap((request) => [
      `error-${request}=EIO`,
      `error-${request}-rate=100%`,
      `error-${request}-file=${join(scratch, request === 'pread' ? 'reads' : 'writes')}`,
    ]);
    const aside = `${path}.aside`;
    renameSync(path, aside);
    const nbdkit = ['nbdkit', '-s', '--exit-with-parent', '--filter=error', 'file', aside, ...faults];
    const child = spawn('nbdfuse', [fuse, '--command', ...nbdkit], { stdio: 'ignore' });
    const failing = new FailingFile(path, scratch, new Promise((resolve) => child.once('exit', () => resolve())));
    await until(() => existsSync(join(fuse, 'nbd')), 'nbdfuse to serve the file');
    writeFileSync(path, '');
    await run('mount', ['--bind', join(fuse, 'nbd'), path]);
    return failing;
  }

  fail(...requests: ReadonlyArray<'reads' | 'writes'>): void {
    for (const request of requests) writeFileSync(join(this.#scratch, request), '');
  }

  heal(): void {
    for (const request of ['reads', 'writes']) rmSync(join(this.#scratch, request), { force: true });
  }

  /** Ends the disk. The file is itself again, with what was written. */
  async remove(): Promise<void> {
    await run('umount', ['--lazy', this.path]);
    await run('fusermount3', ['-uz', join(this.#scratch, 'fuse')]);
    await this.#ended;
    renameSync(`${this.path}.aside`, this.path);
    rmSync(this.#scratch, { recursive: true, force: true });
  }
}
