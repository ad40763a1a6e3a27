/** A real file system on an NBD export: nbdfuse makes the export a file, and the kernel mounts it over a loop device. */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './client.ts';
import { until } from './server.ts';

/**
 * Mounts the export behind `socket` (ext4, made first when `format` is set), lets `work` use it, and unmounts it, which
 * flushes. Needs root.
 */
export async function withFileSystem(
  socket: string,
  options: { format?: boolean },
  work: (directory: string) => Promise<void> | void,
): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), 'coffer-mount-'));
  const [fuseDirectory, mountPoint] = [join(scratch, 'fuse'), join(scratch, 'mnt')];
  mkdirSync(fuseDirectory);
  mkdirSync(mountPoint);
  // nbdfuse mounts over the directory, and shows the volume as this one file in it.
  const file = join(fuseDirectory, 'volume');
  const fuse = spawn('nbdfuse', [file, '--unix', socket], { stdio: ['ignore', 'ignore', 'pipe'] });
  let complaints = '';
  fuse.stderr.on('data', (chunk) => {
    complaints += chunk;
  });
  const ended = new Promise<void>((resolve) => fuse.once('exit', () => resolve()));
  try {
    await until(() => {
      if (fuse.exitCode !== null) throw new Error(`nbdfuse ended with ${fuse.exitCode}: ${complaints}`);
      return existsSync(file);
    }, 'nbdfuse to serve the volume');
    if (options.format) await run('mkfs.ext4', ['-q', '-F', file]);
    await run('mount', ['-o', 'loop', file, mountPoint]);
    try {
      await work(mountPoint);
    } finally {
      await unmounted('umount', [mountPoint]);
    }
  } finally {
    if (fuse.exitCode === null) await unmounted('fusermount3', ['-u', fuseDirectory]).catch(() => fuse.kill());
    await ended;
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Unmounts as soon as nobody uses it: the kernel lets go of a loop device, and of what looked at it, a little later. */
async function unmounted(command: string, args: readonly string[]): Promise<void> {
  let complaint = '';
  await until(
    () =>
      run(command, args).then(
        () => true,
        ({ message }: Error) => {
          if (!/busy/i.test(message)) throw new Error(message);
          complaint = message;
          return false;
        },
      ),
    `${args.at(-1)} to be free`,
  ).catch((error: Error) => {
    throw new Error(`${error.message} ${complaint}`, { cause: error });
  });
}
