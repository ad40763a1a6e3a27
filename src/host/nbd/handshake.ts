// The first half of a connection: fixed newstyle negotiation ("Fixed newstyle negotiation" and "Option types" in the
// specification). Pure: bytes in, bytes and a verdict out; it owns no socket and no clock.

import {
  allocationContext,
  allocationContextId,
  type ExportDescription,
  handshakeFlag,
  info,
  initMagic,
  maxPayloadBytes,
  maxStringBytes,
  option,
  optionMagic,
  optionReplyMagic,
  reply,
  transmissionFlags,
} from './protocol.ts';

/** An option longer than this ends the connection. The longest sensible one is a name and a list of contexts. */
export const maxOptionBytes = 16 * 1024;
/** No client needs more; an endless negotiation is an attack. */
const maxOptions = 64;
const maxQueries = 32;
const optionHeaderBytes = 16;

/** What both sides agreed on. */
export interface Negotiated {
  readonly structuredReplies: boolean;
  /** Whether the client selected `base:allocation`. */
  readonly allocationContext: boolean;
}

export interface HandshakeStep {
  /** Bytes of the input that were used up. */
  readonly consumed: number;
  /** Bytes to send, in order. */
  readonly output: readonly Buffer[];
  /** `more`: needs input. `transmission`: negotiation is done. `close`: send the output, then close. */
  readonly next: 'more' | 'transmission' | 'close';
}

class InvalidOption extends Error {}

export class Handshake {
  readonly #export: ExportDescription;
  #clientFlags: number | undefined;
  #structuredReplies = false;
  #contextFor: string | undefined;
  #chosen: string | undefined;
  #options = 0;
  #output: Buffer[] = [];

  constructor(description: ExportDescription) {
    this.#export = description;
  }

  /** What the server says first. */
  greeting(): Buffer {
    const greeting = Buffer.alloc(18);
    greeting.writeBigUInt64BE(initMagic, 0);
    greeting.writeBigUInt64BE(optionMagic, 8);
    greeting.writeUInt16BE(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes, 16);
    return greeting;
  }

  /** Valid once a step said `transmission`. */
  negotiated(): Negotiated {
    return {
      structuredReplies: this.#structuredReplies,
      allocationContext: this.#contextFor !== undefined && this.#isExport(this.#contextFor),
    };
  }

  /** Takes all complete messages out of `input`. */
  consume(input: Buffer): HandshakeStep {
    let consumed = 0;
    let next: HandshakeStep['next'] = 'more';
    this.#output = [];
    while (next === 'more') {
      const rest = input.subarray(consumed);
      if (this.#clientFlags === undefined) {
        if (rest.length < 4) break;
        this.#clientFlags = rest.readUInt32BE();
        consumed += 4;
        // "the server MUST drop the TCP connection if the client sets an unknown flag"
        if ((this.#clientFlags & ~(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes)) !== 0) next = 'close';
        continue;
      }
      if (rest.length < optionHeaderBytes) break;
      const length = rest.readUInt32BE(12);
      if (rest.readBigUInt64BE() !== optionMagic || ++this.#options > maxOptions) {
        next = 'close';
      } else if (length > maxOptionBytes) {
        this.#refuse(rest.readUInt32BE(8), reply.errTooBig, `options have at most ${maxOptionBytes} bytes here`);
        next = 'close';
      } else if (rest.length < optionHeaderBytes + length) {
        break;
      } else {
        const data = rest.subarray(optionHeaderBytes, optionHeaderBytes + length);
        consumed += optionHeaderBytes + length;
        next = this.#option(rest.readUInt32BE(8), data);
      }
    }
    return { consumed, output: this.#output, next };
  }

  #option(type: number, data: Buffer): HandshakeStep['next'] {
    // Without the fixed flag the client understands no option replies, so only the one without a reply is possible.
    if ((this.#clientFlags! & handshakeFlag.fixedNewstyle) === 0 && type !== option.exportName) return 'close';
    try {
      switch (type) {
        case option.exportName:
          return this.#exportName(data);
        case option.abort:
          this.#reply(type, reply.ack);
          return 'close';
        case option.list:
          this.#list(data);
          return 'more';
        case option.info:
          this.#infoOrGo(type, data);
          return 'more';
        case option.go:
          return this.#infoOrGo(type, data) ? 'transmission' : 'more';
        case option.structuredReply:
          if (data.length > 0) throw new InvalidOption('NBD_OPT_STRUCTURED_REPLY takes no data');
          this.#structuredReplies = true;
          this.#reply(type, reply.ack);
          return 'more';
        case option.listMetaContext:
        case option.setMetaContext:
          this.#metaContext(type, data);
          return 'more';
        default:
          this.#refuse(type, reply.errUnsupported, `option ${type} is not supported`);
          return 'more';
      }
    } catch (error) {
      if (!(error instanceof InvalidOption)) throw error;
      this.#refuse(type, reply.errInvalid, error.message);
      return 'more';
    }
  }

  #exportName(data: Buffer): HandshakeStep['next'] {
    if (!this.#isExport(data.toString())) return 'close';
    this.#chosen = data.toString();
    this.#forgetForeignContext();
    const zeroes = (this.#clientFlags! & handshakeFlag.noZeroes) !== 0 ? 0 : 124;
    const answer = Buffer.alloc(10 + zeroes);
    answer.writeBigUInt64BE(BigInt(this.#export.sizeBytes));
    answer.writeUInt16BE(transmissionFlags(this.#export.readOnly, this.#structuredReplies), 8);
    this.#output.push(answer);
    return 'transmission';
  }

  #list(data: Buffer): void {
    if (data.length > 0) throw new InvalidOption('NBD_OPT_LIST takes no data');
    const { name, description } = this.#export;
    this.#reply(option.list, reply.server, string32(name), Buffer.from(description));
    this.#reply(option.list, reply.ack);
  }

  #infoOrGo(type: number, data: Buffer): boolean {
    const reader = new OptionReader(data);
    const name = reader.string32();
    const wanted = new Set<number>();
    const count = reader.uint16();
    for (let index = 0; index < count; index++) wanted.add(reader.uint16());
    reader.end();
    if (!this.#isExport(name)) {
      this.#refuse(type, reply.errUnknown, `there is no export of this name; the export here is ${this.#export.name}`);
      return false;
    }
    if (type === option.go) {
      this.#chosen = name;
      this.#forgetForeignContext();
    }
    const size = Buffer.alloc(10);
    size.writeBigUInt64BE(BigInt(this.#export.sizeBytes));
    size.writeUInt16BE(transmissionFlags(this.#export.readOnly, this.#structuredReplies), 8);
    this.#reply(type, reply.info, uint16(info.export), size);
    if (wanted.has(info.name)) this.#reply(type, reply.info, uint16(info.name), Buffer.from(this.#export.name));
    if (wanted.has(info.description)) {
      this.#reply(type, reply.info, uint16(info.description), Buffer.from(this.#export.description));
    }
    // Sent even when not asked for: it helps, and a client must ignore what it does not understand.
    this.#reply(type, reply.info, uint16(info.blockSize), uint32(1), uint32(4096), uint32(maxPayloadBytes));
    this.#reply(type, reply.ack);
    return true;
  }

  #metaContext(type: number, data: Buffer): void {
    const set = type === option.setMetaContext;
    if (set) this.#contextFor = undefined; // "including when this command fails"
    if (!this.#structuredReplies) throw new InvalidOption('metadata contexts need structured replies first');
    const reader = new OptionReader(data);
    const name = reader.string32();
    const count = reader.uint32();
    if (count > maxQueries) {
      this.#refuse(type, reply.errTooBig, `at most ${maxQueries} metadata queries are accepted`);
      return;
    }
    const queries: string[] = [];
    for (let index = 0; index < count; index++) queries.push(reader.string32());
    reader.end();
    if (!this.#isExport(name)) {
      this.#refuse(type, reply.errUnknown, `there is no export of this name; the export here is ${this.#export.name}`);
      return;
    }
    // An empty leaf-name is a wildcard when listing, and selects nothing when setting.
    const found = set
      ? queries.includes(allocationContext)
      : queries.length === 0 || queries.includes('base:') || queries.includes(allocationContext);
    if (found) {
      if (set) this.#contextFor = name;
      this.#reply(type, reply.metaContext, uint32(set ? allocationContextId : 0), Buffer.from(allocationContext));
    }
    this.#reply(type, reply.ack);
  }

  // Contexts count only if they were set for the very name that is used in the end.
  #forgetForeignContext(): void {
    if (this.#contextFor !== this.#chosen) this.#contextFor = undefined;
  }

  /** The empty name asks for the default export: a socket has only one. */
  #isExport(name: string): boolean {
    return name === '' || name === this.#export.name;
  }

  #refuse(type: number, error: number, message: string): void {
    this.#reply(type, error, Buffer.from(message).subarray(0, maxStringBytes));
  }

  #reply(type: number, kind: number, ...data: Buffer[]): void {
    const header = Buffer.alloc(20);
    header.writeBigUInt64BE(optionReplyMagic);
    header.writeUInt32BE(type, 8);
    header.writeUInt32BE(kind, 12);
    header.writeUInt32BE(
      data.reduce((sum, part) => sum + part.length, 0),
      16,
    );
    this.#output.push(header, ...data);
  }
}

/** Reads the fields of an option; running over its end is an InvalidOption. */
class OptionReader {
  readonly #data: Buffer;
  #at = 0;

  constructor(data: Buffer) {
    this.#data = data;
  }

  uint16(): number {
    return this.#take(2).readUInt16BE();
  }

  uint32(): number {
    return this.#take(4).readUInt32BE();
  }

  string32(): string {
    const length = this.uint32();
    if (length > maxStringBytes) throw new InvalidOption(`strings have at most ${maxStringBytes} bytes`);
    return this.#take(length).toString();
  }

  end(): void {
    if (this.#at !== this.#data.length) throw new InvalidOption('the option is longer than what it says');
  }

  #take(length: number): Buffer {
    if (this.#at + length > this.#data.length) throw new InvalidOption('the option is shorter than what it says');
    this.#at += length;
    return this.#data.subarray(this.#at - length, this.#at);
  }
}

function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function string32(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([uint32(bytes.length), bytes]);
}
