// The second half of a connection: requests in, replies out ("Transmission" in the specification).
//
// Requests are carried out as they are parsed, in one go, straight between the wire's slabs and the device; all replies
// of a batch leave together. What has to wait (a disk, a flush) is set aside and finishes later, out of order. Nothing
// queues without bound: while replies are stuck, or too much is set aside, no further request is taken from the wire.

import { createSlab, type Slab } from '../../crypto/native.ts';
import { type Device, DeviceError } from '../devices/device.ts';
import type { Negotiated } from './handshake.ts';
import { command, commandFlag, type ExportDescription, nbdError, requestBytes, requestMagic } from './protocol.ts';
import { Replies } from './replies.ts';
import { checkRequest, maxUnfragmentedBytes, newRequest, type Request } from './request.ts';
import { maxUnparsedBytes, outputBytes, type Wire } from './wire.ts';

/** Set aside at most so many requests per connection … */
const maxInFlight = 256;
/** … and so many bytes of their payload. */
const maxHeldBytes = 4 * 1024 * 1024;
/** A write is carried out in pieces that end on this boundary, as they arrive. */
const writePieceBytes = 128 * 1024;
/** A read is answered in pieces of this size: the processor's cache holds one through read, decryption and sending. */
const readPieceBytes = 256 * 1024;
/** Discarding and zeroing go on in steps of this size, with other requests in between. */
const discardStepBytes = 64 * 1024 * 1024;
const allocateStepBytes = 4 * 1024 * 1024;
const maxExtents = 1024;
/** Replies leave when there are so many bytes of them, so that the client works on them while we go on. */
const batchBytes = 32 * 1024;
/** Room that every reply but a read's data fits in: `maxExtents` descriptors and their header. */
const replyRoomBytes = 16 * 1024;

if (writePieceBytes + requestBytes > maxUnparsedBytes) throw new Error('a piece of a write must fit in the input');
if (batchBytes + replyRoomBytes + maxUnfragmentedBytes > outputBytes) throw new Error('replies must fit in the output');

/** The running totals of an export, and where the storage's failures are told. */
export interface Accounts {
  connections: number;
  reads: number;
  readBytes: number;
  writes: number;
  writeBytes: number;
  flushes: number;
  /** The storage refused a request. Its client has been told, or will be. */
  trouble(error: DeviceError): void;
}

export class Transmission {
  readonly #wire: Wire;
  readonly #device: Device;
  readonly #replies: Replies;
  readonly #negotiated: Negotiated;
  readonly #description: ExportDescription;
  readonly #accounts: Accounts;
  readonly #input: DataView;
  /** Requests that can go on. */
  readonly #ready: (() => void)[] = [];
  /** A read whose reply is only partly built; the next bytes out are its. */
  #replying: Request | undefined;
  /** A write whose payload is still coming in, and how much of it is missing. */
  #incoming: Request | undefined;
  #missing = 0;
  /** Requests not parsed yet whose writes the device has been told of. */
  #lookedAt = 0;
  #inFlight = 0;
  #heldBytes = 0;
  #ending = false;
  #pumping = false;
  #awake = false;

  constructor(wire: Wire, device: Device, negotiated: Negotiated, description: ExportDescription, accounts: Accounts) {
    this.#wire = wire;
    this.#device = device;
    this.#negotiated = negotiated;
    this.#description = description;
    this.#accounts = accounts;
    this.#replies = new Replies(wire, negotiated.structuredReplies);
    this.#input = new DataView(wire.input.bytes.buffer);
  }

  /** Carries out what the input holds, as far as possible. Answers whether more input is wanted now. */
  pump(): boolean {
    if (this.#pumping) return false;
    this.#pumping = true;
    const hungry = this.#work();
    this.#pumping = false;
    const { closed } = this.#wire;
    if (!closed) this.#wire.send();
    if (this.#ending && !closed && this.#idle()) this.#wire.finish();
    return hungry && !closed && !this.#wire.stuck;
  }

  /** `pump`, for callers other than the wire's receipt. */
  proceed(): void {
    if (this.pump()) this.#wire.resume();
  }

  /** Takes no further requests; finishes those that were taken, then closes the connection. */
  end(): void {
    this.#ending = true;
    this.proceed();
  }

  #work(): boolean {
    const wire = this.#wire;
    while (!wire.stuck && !wire.closed) {
      if (wire.length >= batchBytes && !wire.send()) return false;
      if (this.#replying) {
        if (this.#replying.waiting) return false;
        this.#read(this.#replying);
        continue;
      }
      const next = this.#ready.length > 0 ? this.#ready.shift() : undefined;
      if (next) {
        next();
        continue;
      }
      if (this.#ending || this.#inFlight >= maxInFlight || this.#heldBytes >= maxHeldBytes) return false;
      if (!(this.#incoming ? this.#receivePayload(this.#incoming) : this.#parse())) return true;
    }
    return false;
  }

  // A write that is still coming in was never acknowledged and does not keep the connection.
  #idle(): boolean {
    const unfinished = this.#inFlight - (this.#incoming && this.#incoming.parts === 0 ? 1 : 0);
    return unfinished === 0 && !this.#wire.stuck;
  }

  /** Takes one request from the input. False when there is no whole one. */
  #parse(): boolean {
    const wire = this.#wire;
    const { start } = wire;
    if (wire.end - start < requestBytes) return false;
    const input = this.#input;
    if (input.getUint32(start) !== requestMagic) {
      // There is no telling where the next request begins.
      wire.destroy();
      return true;
    }
    if (this.#lookedAt > 0) this.#lookedAt--;
    else if (this.#device.expectsWrites && !this.#description.readOnly) this.#lookAhead();
    wire.start = start + requestBytes;
    const request = newRequest(input, start);
    if (request.type === command.disconnect) {
      this.#ending = true;
      return true;
    }
    this.#inFlight++;
    const error = checkRequest(request, this.#device, this.#description, this.#negotiated);
    if (request.type === command.write) {
      request.error = error;
      this.#accounts.writes++;
      this.#incoming = request;
      this.#missing = request.length;
      this.#receivePayload(request);
    } else if (error !== 0) {
      this.#fail(request, error, '');
    } else {
      this.#carryOut(request);
    }
    return true;
  }

  /** Tells the device of the short writes that have come in. */
  #lookAhead(): void {
    const { start, end } = this.#wire;
    const input = this.#input;
    let requests = 0;
    for (let at = start; end - at >= requestBytes && input.getUint32(at) === requestMagic; requests++) {
      const { type, offset, length } = newRequest(input, at);
      at += requestBytes;
      if (type !== command.write) continue;
      if (length <= writePieceBytes && offset + length <= this.#device.size) this.#device.expectWrite(offset, length);
      at += length;
    }
    // The one that is being parsed is the first of them.
    this.#lookedAt = requests - 1;
  }

  #carryOut(request: Request): void {
    switch (request.type) {
      case command.read:
        this.#accounts.reads++;
        this.#read(request);
        break;
      case command.flush:
        this.#accounts.flushes++;
        this.#flush(request);
        break;
      case command.trim:
      case command.writeZeroes:
        this.#discard(request);
        break;
      case command.cache:
        this.#device.cache(request.offset, Math.min(request.length, discardStepBytes));
        this.#succeed(request);
        break;
      default:
        this.#blockStatus(request);
    }
  }

  #read(request: Request): void {
    const wire = this.#wire;
    const end = request.offset + request.length;
    const whole = !this.#negotiated.structuredReplies || (request.flags & commandFlag.df) !== 0;
    const pieceBytes = whole ? maxUnfragmentedBytes : readPieceBytes;
    this.#replying = undefined;
    while (request.position < end) {
      const piece = Math.min(pieceBytes, end - request.position);
      const headerBytes = this.#replies.dataHeaderBytes(request);
      if (wire.room < headerBytes + piece && !wire.send()) {
        this.#replying = request;
        return;
      }
      try {
        const wait = this.#device.read(wire.output, wire.length + headerBytes, request.position, piece);
        if (wait) {
          if (!this.#negotiated.structuredReplies && request.position > request.offset) this.#replying = request;
          request.waiting = true;
          wait.start((error) => {
            request.waiting = false;
            if (this.#replying !== request) this.#ready.push(() => this.#readOrFail(request, error));
            else if (error) wire.destroy();
            this.#wake();
          });
          return;
        }
      } catch (error) {
        this.#readOrFail(request, error as Error);
        return;
      }
      this.#replies.data(request, piece);
      if (wire.length >= batchBytes) wire.send();
    }
    this.#accounts.readBytes += request.length;
    if (request.length === 0) this.#replies.done(request);
    this.#inFlight--;
  }

  #readOrFail(request: Request, error: Error | undefined): void {
    if (!error) this.#read(request);
    // The header of a simple reply has promised success: "the server MUST immediately initiate a hard disconnect".
    else if (!this.#negotiated.structuredReplies && request.position > request.offset) this.#wire.destroy();
    else this.#fail(request, this.#errorNumber(error), error.message);
  }

  /** Carries out as much of a write as has arrived. False when the next piece has not. */
  #receivePayload(request: Request): boolean {
    const wire = this.#wire;
    const available = wire.end - wire.start;
    if (request.error !== 0) {
      const dropped = Math.min(available, this.#missing);
      this.#payloadUsed(request, dropped);
      return dropped > 0 || this.#incoming === undefined;
    }
    const piece = Math.min(this.#missing, writePieceBytes - (request.position % writePieceBytes));
    if (available < piece) return false;
    try {
      const wait = this.#device.write(wire.input, wire.start, request.position, piece);
      if (wait) {
        const own = createSlab(piece);
        wire.input.bytes.copy(own.bytes, 0, wire.start, wire.start + piece);
        request.parts++;
        this.#heldBytes += piece;
        const { position } = request;
        wait.start((error) => this.#partCanGoOn(request, own, position, error));
      }
    } catch (error) {
      this.#setError(request, error as Error);
    }
    request.position += piece;
    this.#payloadUsed(request, piece);
    return true;
  }

  #payloadUsed(request: Request, bytes: number): void {
    this.#wire.start += bytes;
    this.#missing -= bytes;
    if (this.#missing > 0) return;
    this.#incoming = undefined;
    if (request.parts === 0) this.#finishWrite(request);
  }

  #partCanGoOn(request: Request, part: Slab, offset: number, error: Error | undefined): void {
    this.#ready.push(() => {
      try {
        if (error) throw error;
        const wait = this.#device.write(part, 0, offset, part.bytes.length);
        if (wait) {
          wait.start((again) => this.#partCanGoOn(request, part, offset, again));
          return;
        }
      } catch (failure) {
        this.#setError(request, failure as Error);
      }
      this.#heldBytes -= part.bytes.length;
      request.parts--;
      if (request.parts === 0 && this.#incoming !== request) this.#finishWrite(request);
    });
    this.#wake();
  }

  #discard(request: Request): void {
    const remaining = request.offset + request.length - request.position;
    const allocate = request.type === command.writeZeroes && (request.flags & commandFlag.noHole) !== 0;
    const stepBytes = allocate || !this.#device.zeroesFast ? allocateStepBytes : discardStepBytes;
    const step = Math.min(remaining, stepBytes - (request.position % stepBytes));
    try {
      const wait =
        request.type === command.trim
          ? this.#device.trim(request.position, step)
          : this.#device.zero(request.position, step, allocate);
      if (wait) {
        wait.start((error) => {
          if (error) this.#setError(request, error);
          this.#ready.push(() => (request.error ? this.#finishWrite(request) : this.#discard(request)));
          this.#wake();
        });
        return;
      }
    } catch (error) {
      this.#setError(request, error as Error);
    }
    request.position += step;
    if (request.error !== 0 || step === remaining) {
      this.#finishWrite(request);
      return;
    }
    setImmediate(() => {
      this.#ready.push(() => this.#discard(request));
      this.#wake();
    });
  }

  #finishWrite(request: Request): void {
    if (request.error !== 0) {
      this.#fail(request, request.error, request.message);
      return;
    }
    if (request.type === command.write) this.#accounts.writeBytes += request.length;
    if ((request.flags & commandFlag.fua) !== 0) this.#flush(request);
    else this.#succeed(request);
  }

  #flush(request: Request): void {
    this.#device.flush((error) => {
      this.#ready.push(() => {
        if (error) this.#fail(request, this.#errorNumber(error), error.message);
        else this.#succeed(request);
      });
      this.#wake();
    });
  }

  #blockStatus(request: Request): void {
    const count = (request.flags & commandFlag.reqOne) !== 0 ? 1 : maxExtents;
    try {
      this.#replies.blockStatus(request, this.#device.extents(request.offset, request.length, count));
      this.#inFlight--;
    } catch (error) {
      this.#fail(request, this.#errorNumber(error as Error), (error as Error).message);
    }
  }

  #succeed(request: Request): void {
    this.#replies.done(request);
    this.#inFlight--;
  }

  #fail(request: Request, error: number, message: string): void {
    this.#replies.error(request, error, message);
    this.#inFlight--;
  }

  #setError(request: Request, error: Error): void {
    const number = this.#errorNumber(error);
    if (request.error !== 0) return;
    request.error = number;
    request.message = error.message;
  }

  // Anything but a DeviceError is a mistake in this program, and must not look like a failing disk.
  #errorNumber(error: Error): number {
    if (!(error instanceof DeviceError)) throw error;
    this.#accounts.trouble(error);
    return errorNumber(error);
  }

  // Those that become ready in one turn go on together, and their replies leave together.
  #wake(): void {
    if (this.#awake) return;
    this.#awake = true;
    queueMicrotask(() => {
      this.#awake = false;
      this.proceed();
    });
  }
}

/** The protocol's number for a failure. The specification asks for EDQUOT and EFBIG to be reported as ENOSPC. */
function errorNumber(error: DeviceError): number {
  switch (error.code) {
    case 'ENOSPC':
    case 'EDQUOT':
    case 'EFBIG':
      return nbdError.ENOSPC;
    case 'EPERM':
    case 'EROFS':
      return nbdError.EPERM;
    default:
      return nbdError.EIO;
  }
}
