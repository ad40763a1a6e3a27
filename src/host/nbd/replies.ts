// Builds replies in a wire's output slab ("Simple reply message" and "Structured reply chunk message").
// The caller makes sure that there is room.

import type { Extent } from '../devices/device.ts';
import {
  allocationContextId,
  chunk,
  chunkFlagDone,
  simpleReplyMagic,
  state,
  structuredReplyMagic,
} from './protocol.ts';
import type { Request } from './request.ts';
import type { Wire } from './wire.ts';

const simpleHeaderBytes = 16;
const chunkHeaderBytes = 20;
const maxMessageBytes = 512;

export class Replies {
  readonly #wire: Wire;
  readonly #structured: boolean;
  readonly #view: DataView;

  constructor(wire: Wire, structured: boolean) {
    this.#wire = wire;
    this.#structured = structured;
    this.#view = new DataView(wire.output.bytes.buffer);
  }

  /** Bytes that precede the next piece of a read's data. */
  dataHeaderBytes(request: Request): number {
    if (this.#structured) return chunkHeaderBytes + 8;
    return request.position === request.offset ? simpleHeaderBytes : 0;
  }

  /** Puts the header before `length` bytes of data that are in place already, and moves the request on. */
  data(request: Request, length: number): void {
    const wire = this.#wire;
    if (this.#structured) {
      const last = request.position + length === request.offset + request.length;
      this.#chunk(request, last ? chunkFlagDone : 0, chunk.offsetData, 8 + length);
      this.#view.setUint32(wire.length, request.position / 2 ** 32);
      this.#view.setUint32(wire.length + 4, request.position >>> 0);
      wire.length += 8;
    } else if (request.position === request.offset) {
      this.#simple(request, 0);
    }
    wire.length += length;
    request.position += length;
  }

  /** Success, without data. */
  done(request: Request): void {
    // Only a read must be answered with a structured reply; the simple one is shorter.
    if (this.#structured) this.#chunk(request, chunkFlagDone, chunk.none, 0);
    else this.#simple(request, 0);
  }

  /** Failure, with a message for people where the client can take one. */
  error(request: Request, error: number, message: string): void {
    if (!this.#structured) {
      this.#simple(request, error);
      return;
    }
    const text = Buffer.from(message).subarray(0, maxMessageBytes);
    const wire = this.#wire;
    this.#chunk(request, chunkFlagDone, chunk.error, 6 + text.length);
    this.#view.setUint32(wire.length, error);
    this.#view.setUint16(wire.length + 4, text.length);
    text.copy(wire.output.bytes, wire.length + 6);
    wire.length += 6 + text.length;
  }

  blockStatus(request: Request, extents: readonly Extent[]): void {
    const wire = this.#wire;
    this.#chunk(request, chunkFlagDone, chunk.blockStatus, 4 + 8 * extents.length);
    this.#view.setUint32(wire.length, allocationContextId);
    wire.length += 4;
    for (const { length, hole } of extents) {
      this.#view.setUint32(wire.length, length);
      this.#view.setUint32(wire.length + 4, hole ? state.hole | state.zero : 0);
      wire.length += 8;
    }
  }

  #simple(request: Request, error: number): void {
    const view = this.#view;
    const at = this.#wire.length;
    view.setUint32(at, simpleReplyMagic);
    view.setUint32(at + 4, error);
    view.setUint32(at + 8, request.cookieHigh);
    view.setUint32(at + 12, request.cookieLow);
    this.#wire.length = at + simpleHeaderBytes;
  }

  #chunk(request: Request, flags: number, type: number, length: number): void {
    const view = this.#view;
    const at = this.#wire.length;
    view.setUint32(at, structuredReplyMagic);
    view.setUint16(at + 4, flags);
    view.setUint16(at + 6, type);
    view.setUint32(at + 8, request.cookieHigh);
    view.setUint32(at + 12, request.cookieLow);
    view.setUint32(at + 16, length);
    this.#wire.length = at + chunkHeaderBytes;
  }
}
