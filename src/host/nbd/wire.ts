// One client's socket and the two slabs that its bytes pass through.
//
// Bytes arrive straight in the input slab and leave straight from the output slab, where replies are built in place:
// the kernel's copy is the only one. Node's public `onread` receives into memory of ours, and asks for the next place
// right after each receipt; so a place, once given, must stay free until it is filled, even across a pause.

import type { Socket as NetSocket } from 'node:net';
import { Socket } from 'node:net';
import { type Libc, msgDontWait, msgNoSignal, socketSendBuffer } from '../../blocks/libc.ts';
import { createSlab, type Slab } from '../../crypto/native.ts';

/** Most bytes received at once. */
const landingBytes = 256 * 1024;
/** Most bytes that may be left unparsed when the next receipt is asked for: a piece of a write and its header. */
export const maxUnparsedBytes = 128 * 1024 + 64;
// What is left, one receipt that could not be parsed (replies are stuck), and the place for the one after it.
const inputBytes = maxUnparsedBytes + 2 * landingBytes;
/** Room for the longest piece of a read and, before it, small replies. Takes memory only as it is used. */
export const outputBytes = 1024 * 1024 + 128 * 1024;

const eagain = -11;

export interface WireEvents {
  /** Bytes came in. Answers whether more may come; if not, `resume` asks for them later. */
  received(): boolean;
  /** The output, stuck before, has been sent. */
  drained(): void;
  /** Nothing can be sent or received any more. Comes once. */
  closed(): void;
}

export class Wire {
  readonly input: Slab = createSlab(inputBytes);
  readonly output: Slab = createSlab(outputBytes);
  /** Unparsed input is `input.bytes[start..end)`. The parser moves `start`. */
  start = 0;
  end = 0;
  /** Unsent output is `output.bytes[0..length)`. Whoever builds a reply moves it. */
  length = 0;
  /** Output is on its way and must not be touched. */
  stuck = false;
  readonly #socket: NetSocket;
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #drained: () => void;
  #paused = false;

  /** Takes over `fd`, a connected stream socket. `events` are called once the constructor has returned. */
  constructor(fd: number, libc: Libc, events: WireEvents) {
    this.#fd = fd;
    this.#libc = libc;
    libc.setSocketOption(fd, socketSendBuffer, outputBytes);
    this.#socket = new Socket({
      fd,
      readable: true,
      writable: true,
      onread: {
        buffer: () => this.#nextLanding(),
        callback: (count) => {
          this.end += count;
          const more = events.received();
          this.#paused = !more;
          return more;
        },
      },
    });
    // A reset connection is as good as a closed one; 'close' follows.
    this.#socket.on('error', () => {});
    this.#socket.on('close', () => events.closed());
    this.#drained = () => events.drained();
  }

  /** True from the moment on when the descriptor is no longer ours, which is before `closed` is called. */
  get closed(): boolean {
    return this.#socket.destroyed;
  }

  /** Room left in the output slab, 0 while it is stuck. */
  get room(): number {
    return this.stuck ? 0 : outputBytes - this.length;
  }

  /** Sends the output. False when the client does not take it all now: `drained` will be called. */
  send(): boolean {
    if (this.stuck) return false;
    if (this.closed) {
      this.length = 0;
      return true;
    }
    let sent = 0;
    while (sent < this.length) {
      const count = this.#libc.send(
        this.#fd,
        this.output.address + sent,
        this.length - sent,
        msgDontWait | msgNoSignal,
      );
      if (count > 0) {
        sent += count;
      } else if (count === eagain) {
        this.#sendLater(sent);
        return false;
      } else {
        this.destroy();
        break;
      }
    }
    this.length = 0;
    return true;
  }

  /** Asks for more input after `received` said not to. */
  resume(): void {
    if (!this.#paused || this.closed) return;
    this.#paused = false;
    this.#socket.resume();
  }

  /** Closes after all output is sent. */
  finish(): void {
    this.#socket.end();
    // The client may keep its side open for ever; nothing it still says matters.
    this.#socket.destroySoon();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  // Node waits until the socket takes more. It reads from the slab meanwhile, hence `stuck`.
  #sendLater(sent: number): void {
    this.stuck = true;
    this.#socket.write(this.output.bytes.subarray(sent, this.length), () => {
      this.stuck = false;
      this.length = 0;
      if (!this.closed) this.#drained();
    });
  }

  #nextLanding(): Buffer {
    const unparsed = this.end - this.start;
    if (unparsed === 0) {
      this.start = this.end = 0;
    } else if (this.start > 0) {
      this.input.bytes.copyWithin(0, this.start, this.end);
      this.start = 0;
      this.end = unparsed;
    }
    return this.input.bytes.subarray(this.end, this.end + Math.min(landingBytes, (inputBytes - this.end) >>> 1));
  }
}
