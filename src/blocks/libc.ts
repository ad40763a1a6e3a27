// The system calls that volume images and the NBD server need and Node's `fs` and `net` don't offer. Linux only.
//
// Every call answers what the C function does, or the negated errno; `DeviceError` is made where the error is handled.
// Memory travels as an address from a slab, see ../crypto/native.ts.

import { createSlab, koffi } from '../crypto/native.ts';

export interface Libc {
  /** preadv2(2) with one buffer. With `rwfNowait` it answers EAGAIN, or less than asked, rather than wait for a disk. */
  pread(fd: number, address: number, length: number, offset: number, flags: number): number;
  pwrite(fd: number, address: number, length: number, offset: number): number;
  fallocate(fd: number, mode: number, offset: number, length: number): number;
  fadvise(fd: number, offset: number, length: number, advice: number): number;
  lseek(fd: number, offset: number, whence: number): number;
  flock(fd: number, operation: number): number;
  /** Writes everything of the file system that `fd` is on to stable storage, in a thread of the pool. */
  syncfs(fd: number): Promise<number>;
  /** sync_file_range(2), in a thread of the pool. It writes to the disk, and makes nothing durable. */
  syncFileRange(fd: number, offset: number, length: number, flags: number): Promise<number>;
  /** posix_fadvise(2) with POSIX_FADV_DONTNEED, in a thread of the pool: whole pages that are clean leave the page cache. */
  dropCache(fd: number, offset: number, length: number): Promise<number>;
  send(fd: number, address: number, length: number, flags: number): number;
  setSocketOption(fd: number, option: number, value: number): number;
  /** Duplicates a descriptor, closed on exec. */
  duplicate(fd: number): number;
  /** prctl(PR_SET_DUMPABLE, 0): no core dumps of this process, and no debugger of the same user. */
  forbidDumps(): number;
  /** malloc_trim(3): memory that was freed goes back to the system. Throws where the C library is not glibc. */
  trimMemory(): void;
}

export const rwfNowait = 8;
export const fallocKeepSize = 1;
export const fallocPunchHole = 2;
export const fallocZeroRange = 16;
export const fadviseRandom = 1;
export const fadviseWillNeed = 3;
export const fadviseDontNeed = 4;
export const syncFileRangeWait = 1;
export const syncFileRangeWrite = 2;
export const seekData = 3;
export const seekHole = 4;
export const lockShared = 1;
export const lockExclusive = 2;
export const lockNonBlocking = 4;
export const msgDontWait = 0x40;
export const msgNoSignal = 0x4000;
export const socketSendBuffer = 7;

let bound: Libc | undefined;

/** The system calls. Throws where koffi can't be loaded: without locks and real discards no volume is safe to serve. */
export function libc(): Libc {
  return (bound ??= bind());
}

function bind(): Libc {
  if (!koffi || process.platform !== 'linux') {
    throw new Error(
      'volumes need Linux and the koffi package with its binary: it locks images and discards blocks. Run npm ci',
    );
  }
  const { errno, load } = koffi;
  const library = load(null);
  const declare = (name: string, result: string, ...types: string[]) => library.func(name, result, types);
  // On the 64-bit platforms that Node supports, off_t has 64 bits and the plain names are the right ones.
  const preadv2 = declare('preadv2', 'intptr_t', 'int', 'intptr_t', 'int', 'int64_t', 'int');
  const pwrite = declare('pwrite', 'intptr_t', 'int', 'intptr_t', 'size_t', 'int64_t');
  const fallocate = declare('fallocate', 'int', 'int', 'int', 'int64_t', 'int64_t');
  const fadvise = declare('posix_fadvise', 'int', 'int', 'int64_t', 'int64_t', 'int');
  const lseek = declare('lseek', 'int64_t', 'int', 'int64_t', 'int');
  const flock = declare('flock', 'int', 'int', 'int');
  const syncfs = declare('syncfs', 'int', 'int');
  const syncFileRange = declare('sync_file_range', 'int', 'int', 'int64_t', 'int64_t', 'uint32_t');
  const send = declare('send', 'intptr_t', 'int', 'intptr_t', 'size_t', 'int');
  const setsockopt = declare('setsockopt', 'int', 'int', 'int', 'int', 'intptr_t', 'uint32_t');
  const fcntl = library.func('int fcntl(int fd, int command, ...)');
  const prctl = library.func('int prctl(int option, ...)');

  // struct iovec { void *base; size_t length }, filled for each call.
  const vector = createSlab(16);
  const words = new Uint32Array(vector.bytes.buffer);
  const option = createSlab(4);
  const answer = (result: number) => (result < 0 ? -errno() : result);
  return {
    pread(fd, address, length, offset, flags) {
      words[0] = address >>> 0;
      words[1] = address / 2 ** 32;
      words[2] = length >>> 0;
      words[3] = length / 2 ** 32;
      return answer(preadv2(fd, vector.address, 1, offset, flags));
    },
    pwrite: (fd, address, length, offset) => answer(pwrite(fd, address, length, offset)),
    fallocate: (fd, mode, offset, length) => answer(fallocate(fd, mode, offset, length)),
    // posix_fadvise answers the error itself and leaves errno alone.
    fadvise: (fd, offset, length, advice) => -fadvise(fd, offset, length, advice),
    lseek: (fd, offset, whence) => answer(lseek(fd, offset, whence)),
    flock: (fd, operation) => answer(flock(fd, operation)),
    syncfs: (fd) =>
      new Promise((resolve, reject) => {
        // koffi hands the call's errno to the callback's thread.
        syncfs.async(fd, (error: Error | null, result: number) => (error ? reject(error) : resolve(answer(result))));
      }),
    dropCache: (fd, offset, length) =>
      new Promise((resolve, reject) => {
        fadvise.async(fd, offset, length, fadviseDontNeed, (error: Error | null, result: number) =>
          error ? reject(error) : resolve(-result),
        );
      }),
    syncFileRange: (fd, offset, length, flags) =>
      new Promise((resolve, reject) => {
        syncFileRange.async(fd, offset, length, flags, (error: Error | null, result: number) =>
          error ? reject(error) : resolve(answer(result)),
        );
      }),
    send: (fd, address, length, flags) => answer(send(fd, address, length, flags)),
    setSocketOption(fd, name, value) {
      const solSocket = 1;
      option.bytes.writeInt32LE(value);
      return answer(setsockopt(fd, solSocket, name, option.address, 4));
    },
    duplicate(fd) {
      const dupCloseOnExec = 1030;
      return answer(fcntl(fd, dupCloseOnExec, 'int', 0));
    },
    forbidDumps() {
      const setDumpable = 4;
      return answer(prctl(setDumpable, 'unsigned long', 0));
    },
    trimMemory: () => void declare('malloc_trim', 'int', 'size_t')(0),
  };
}
