/**
 * A small NBD client over a Unix socket, so that `coffer demo` needs nothing installed. Fixed newstyle, simple replies;
 * requests may overlap. Source: the NBD specification, doc/proto.md.
 */
import { createConnection, type Socket } from 'node:net';
import {
  command,
  commandFlag,
  handshakeFlag,
  info,
  initMagic,
  option,
  optionMagic,
  optionReplyMagic,
  reply,
  requestBytes,
  requestMagic,
  simpleReplyMagic,
} from '../host/nbd/protocol.ts';

const connectTimeoutMs = 10_000;
const simpleReplyBytes = 16;

interface Pending {
  readonly length: number;
  readonly resolve: (data: Buffer) => void;
  readonly reject: (error: Error) => void;
}

/** The server answered a request with an error number (`nbdError`). */
export class NbdError extends Error {
  readonly errno: number;
  constructor(errno: number) {
    super(`the NBD server answered error ${errno}`);
    this.name = 'NbdError';
    this.errno = errno;
  }
}

export class NbdClient {
  readonly sizeBytes: number;
  readonly #socket: Socket;
  readonly #pending = new Map<bigint, Pending>();
  #received: Buffer;
  #cookie = 0n;
  #broken: Error | undefined;

  private constructor(socket: Socket, sizeBytes: number, received: Buffer) {
    this.#socket = socket;
    this.sizeBytes = sizeBytes;
    this.#received = received;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (error) => this.#break(error));
    socket.on('close', () => this.#break(new Error('the NBD server closed the connection')));
    socket.resume();
  }

  /** Connects and opens the only export behind the socket. */
  static async connect(socketPath: string): Promise<NbdClient> {
    const socket = createConnection({ path: socketPath });
    const timer = setTimeout(() => socket.destroy(new Error('no NBD handshake in time')), connectTimeoutMs);
    const reader = new HandshakeReader(socket);
    try {
      const greeting = await reader.take(18);
      if (greeting.readBigUInt64BE(0) !== initMagic || greeting.readBigUInt64BE(8) !== optionMagic)
        throw new Error(`${socketPath} does not speak NBD`);
      const clientFlags = Buffer.alloc(4);
      clientFlags.writeUInt32BE(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes);
      // GO: the export's name (empty: the default one), and no particular information asked for.
      const go = Buffer.alloc(16 + 6);
      go.writeBigUInt64BE(optionMagic, 0);
      go.writeUInt32BE(option.go, 8);
      go.writeUInt32BE(6, 12);
      socket.write(Buffer.concat([clientFlags, go]));
      let sizeBytes = 0;
      for (;;) {
        const header = await reader.take(20);
        if (header.readBigUInt64BE(0) !== optionReplyMagic) throw new Error('a malformed NBD option reply');
        const type = header.readUInt32BE(12);
        const payload = await reader.take(header.readUInt32BE(16));
        if (type === reply.info && payload.readUInt16BE(0) === info.export)
          sizeBytes = Number(payload.readBigUInt64BE(2));
        else if (type === reply.ack) break;
        else if (type >= 0x80000000) throw new Error(`the NBD server refused: ${payload.toString() || type}`);
      }
      return new NbdClient(socket, sizeBytes, reader.release());
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#request(command.read, 0, offset, length);
  }

  async write(offset: number, data: Uint8Array, options: { fua?: boolean } = {}): Promise<void> {
    await this.#request(command.write, options.fua ? commandFlag.fua : 0, offset, data.length, data);
  }

  /** Resolves when everything that was answered before is on stable storage. */
  async flush(): Promise<void> {
    await this.#request(command.flush, 0, 0, 0);
  }

  async trim(offset: number, length: number): Promise<void> {
    await this.#request(command.trim, 0, offset, length);
  }

  /** Says goodbye and closes. */
  async close(): Promise<void> {
    if (this.#broken) return;
    const closed = new Promise<void>((resolve) => this.#socket.once('close', () => resolve()));
    this.#socket.end(header(command.disconnect, 0, 0n, 0, 0));
    await closed;
  }

  #request(type: number, flags: number, offset: number, length: number, payload?: Uint8Array): Promise<Buffer> {
    if (this.#broken) return Promise.reject(this.#broken);
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const cookie = ++this.#cookie;
    this.#pending.set(cookie, { length: type === command.read ? length : 0, resolve, reject });
    this.#socket.write(header(type, flags, cookie, offset, length));
    if (payload) this.#socket.write(payload);
    return promise;
  }

  #receive(chunk: Buffer): void {
    this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
    while (this.#received.length >= simpleReplyBytes) {
      if (this.#received.readUInt32BE(0) !== simpleReplyMagic) {
        this.#socket.destroy(new Error('a malformed NBD reply'));
        return;
      }
      const errno = this.#received.readUInt32BE(4);
      const cookie = this.#received.readBigUInt64BE(8);
      const pending = this.#pending.get(cookie);
      const length = errno === 0 ? (pending?.length ?? 0) : 0;
      if (this.#received.length < simpleReplyBytes + length) return;
      const data = this.#received.subarray(simpleReplyBytes, simpleReplyBytes + length);
      this.#received = this.#received.subarray(simpleReplyBytes + length);
      this.#pending.delete(cookie);
      if (errno === 0) pending?.resolve(data);
      else pending?.reject(new NbdError(errno));
    }
  }

  #break(error: Error): void {
    this.#broken ??= error;
    for (const pending of this.#pending.values()) pending.reject(this.#broken);
    this.#pending.clear();
  }
}

function header(type: number, flags: number, cookie: bigint, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(requestBytes);
  bytes.writeUInt32BE(requestMagic, 0);
  bytes.writeUInt16BE(flags, 4);
  bytes.writeUInt16BE(type, 6);
  bytes.writeBigUInt64BE(cookie, 8);
  bytes.writeBigUInt64BE(BigInt(offset), 16);
  bytes.writeUInt32BE(length, 24);
  return bytes;
}

/** Takes exactly as many bytes as asked for, during the handshake only. */
class HandshakeReader {
  readonly #socket: Socket;
  #bytes: Buffer = Buffer.alloc(0);
  #wake: (() => void) | undefined;
  #error: Error | undefined;
  readonly #onData = (chunk: Buffer) => {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    this.#wake?.();
  };
  readonly #onEnd = (error?: Error) => {
    this.#error ??= error ?? new Error('the NBD server closed the connection');
    this.#wake?.();
  };

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', this.#onData).on('error', this.#onEnd).on('close', this.#onEnd);
  }

  async take(length: number): Promise<Buffer> {
    while (this.#bytes.length < length) {
      if (this.#error) throw this.#error;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const taken = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return taken;
  }

  /** Lets go of the socket; what has arrived beyond the handshake. */
  release(): Buffer {
    this.#socket.off('data', this.#onData).off('error', this.#onEnd).off('close', this.#onEnd);
    this.#socket.pause();
    return this.#bytes;
  }
}
