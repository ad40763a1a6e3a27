// A small NBD client for tests, close enough to the wire to say wrong things on purpose. Not used by the product.

import { connect, type Socket } from 'node:net';
import {
  chunk,
  chunkFlagDone,
  command,
  initMagic,
  option,
  optionMagic,
  optionReplyMagic,
  reply,
  requestMagic,
  simpleReplyMagic,
  structuredReplyMagic,
} from './protocol.ts';

/** Bytes of a socket, read in the amounts that the protocol asks for. */
export class RawConnection {
  readonly socket: Socket;
  readonly closed: Promise<void>;
  #received: Buffer[] = [];
  #length = 0;
  #ended = false;
  #wake: () => void = () => {};

  constructor(socketPath: string) {
    this.socket = connect(socketPath);
    this.socket.on('error', () => {});
    this.socket.on('data', (data: Buffer) => {
      this.#received.push(data);
      this.#length += data.length;
      this.#wake();
    });
    this.closed = new Promise((resolve) =>
      this.socket.on('close', () => {
        this.#ended = true;
        this.#wake();
        resolve();
      }),
    );
  }

  send(...parts: Buffer[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  async take(length: number): Promise<Buffer> {
    while (this.#length < length) {
      if (this.#ended) throw new Error('the server closed the connection');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const all = Buffer.concat(this.#received);
    this.#received = [all.subarray(length)];
    this.#length -= length;
    return all.subarray(0, length);
  }

  close(): void {
    this.socket.destroy();
  }
}

export interface Reply {
  /** NBD error, 0 for success. */
  readonly error: number;
  readonly message: string;
  readonly data: Buffer;
  readonly extents: { length: number; flags: number }[];
}

interface Pending {
  readonly offset: number;
  readonly reply: { error: number; message: string; data: Buffer; extents: Reply['extents'] };
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
}

export interface ClientOptions {
  readonly structured?: boolean;
  readonly allocation?: boolean;
  readonly exportName?: string;
}

/** A client in the transmission phase. Requests may be in flight together; each resolves with its reply. */
export class TestClient {
  readonly raw: RawConnection;
  sizeBytes = 0;
  flags = 0;
  readonly #pending = new Map<bigint, Pending>();
  #nextCookie = 1n;

  constructor(raw: RawConnection) {
    this.raw = raw;
  }

  static async connect(socketPath: string, options: ClientOptions = {}): Promise<TestClient> {
    const { structured = true, allocation = structured, exportName = '' } = options;
    const client = new TestClient(new RawConnection(socketPath));
    const { raw } = client;
    await greet(raw);
    if (structured) await negotiate(raw, option.structuredReply);
    if (allocation) {
      await negotiate(raw, option.setMetaContext, string32(exportName), uint32(1), string32('base:allocation'));
    }
    const answers = await negotiate(raw, option.go, string32(exportName), uint16(0));
    const last = answers.at(-1)!;
    if (last.type !== reply.ack) throw new Error(`the server refused: ${last.data}`);
    const size = answers.find(({ type, data }) => type === reply.info && data.readUInt16BE() === 0)!.data;
    client.sizeBytes = Number(size.readBigUInt64BE(2));
    client.flags = size.readUInt16BE(10);
    void client.#receive();
    return client;
  }

  read(offset: number, length: number, flags = 0): Promise<Reply> {
    return this.request(command.read, offset, length, flags, Buffer.alloc(0), length);
  }

  write(offset: number, data: Buffer, flags = 0): Promise<Reply> {
    return this.request(command.write, offset, data.length, flags, data);
  }

  request(
    type: number,
    offset: number,
    length: number,
    flags = 0,
    payload: Buffer = Buffer.alloc(0),
    replyBytes = 0,
  ): Promise<Reply> {
    const cookie = this.#nextCookie++;
    this.raw.send(requestHeader(type, offset, length, flags, cookie), payload);
    return new Promise((resolve, reject) => {
      const empty = { error: 0, message: '', data: Buffer.alloc(replyBytes), extents: [] };
      this.#pending.set(cookie, { offset, reply: empty, resolve, reject });
    });
  }

  /** Says goodbye and waits until the server has closed the connection. */
  async disconnect(): Promise<void> {
    this.raw.send(requestHeader(command.disconnect, 0, 0, 0, 0n));
    await this.raw.closed;
  }

  async #receive(): Promise<void> {
    try {
      for (;;) await this.#receiveOne();
    } catch (error) {
      for (const { reject } of this.#pending.values()) reject(error as Error);
    }
  }

  async #receiveOne(): Promise<void> {
    const magic = (await this.raw.take(4)).readUInt32BE();
    if (magic === simpleReplyMagic) {
      const header = await this.raw.take(12);
      const cookie = header.readBigUInt64BE(4);
      const pending = this.#pending.get(cookie)!;
      pending.reply.error = header.readUInt32BE();
      if (pending.reply.error === 0) pending.reply.data = await this.raw.take(pending.reply.data.length);
      this.#finish(cookie);
      return;
    }
    if (magic !== structuredReplyMagic) throw new Error(`bad magic ${magic.toString(16)}`);
    const header = await this.raw.take(16);
    const cookie = header.readBigUInt64BE(4);
    const { offset, reply: answer } = this.#pending.get(cookie)!;
    const data = await this.raw.take(header.readUInt32BE(12));
    switch (header.readUInt16BE(2)) {
      case chunk.offsetData:
        data.copy(answer.data, Number(data.readBigUInt64BE()) - offset, 8);
        break;
      case chunk.error:
        answer.error = data.readUInt32BE();
        answer.message = data.toString('utf8', 6);
        break;
      case chunk.blockStatus:
        for (let at = 4; at < data.length; at += 8) {
          answer.extents.push({ length: data.readUInt32BE(at), flags: data.readUInt32BE(at + 4) });
        }
    }
    if (header.readUInt16BE() & chunkFlagDone) this.#finish(cookie);
  }

  #finish(cookie: bigint): void {
    const { resolve, reply: answer } = this.#pending.get(cookie)!;
    this.#pending.delete(cookie);
    resolve(answer);
  }
}

/** Reads the server's greeting and answers with the client flags. */
export async function greet(raw: RawConnection, flags = 3): Promise<void> {
  const greeting = await raw.take(18);
  if (greeting.readBigUInt64BE() !== initMagic) throw new Error('not an NBD server');
  raw.send(uint32(flags));
}

/** Sends an option and collects its replies up to the final one. */
export async function negotiate(
  raw: RawConnection,
  type: number,
  ...data: Buffer[]
): Promise<{ type: number; data: Buffer }[]> {
  raw.send(optionHeader(type, Buffer.concat(data).length), ...data);
  const answers: { type: number; data: Buffer }[] = [];
  for (;;) {
    const header = await raw.take(20);
    if (header.readBigUInt64BE() !== optionReplyMagic) throw new Error('not an option reply');
    const answer = { type: header.readUInt32BE(12), data: await raw.take(header.readUInt32BE(16)) };
    answers.push(answer);
    if (answer.type === reply.ack || answer.type >= 0x80000000) return answers;
  }
}

export function optionHeader(type: number, length: number): Buffer {
  const header = Buffer.alloc(16);
  header.writeBigUInt64BE(optionMagic);
  header.writeUInt32BE(type, 8);
  header.writeUInt32BE(length, 12);
  return header;
}

export function requestHeader(type: number, offset: number, length: number, flags: number, cookie: bigint): Buffer {
  const header = Buffer.alloc(28);
  header.writeUInt32BE(requestMagic);
  header.writeUInt16BE(flags, 4);
  header.writeUInt16BE(type, 6);
  header.writeBigUInt64BE(cookie, 8);
  header.writeBigUInt64BE(BigInt(offset), 16);
  header.writeUInt32BE(length, 24);
  return header;
}

export function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function string32(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([uint32(bytes.length), bytes]);
}
