// The numbers of the NBD protocol that this server speaks. Names and values are those of the specification:
// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md

export const initMagic = 0x4e42444d41474943n; // "NBDMAGIC"
export const optionMagic = 0x49484156454f5054n; // "IHAVEOPT"
export const optionReplyMagic = 0x0003e889045565a9n;
export const requestMagic = 0x25609513;
export const simpleReplyMagic = 0x67446698;
export const structuredReplyMagic = 0x668e33ef;

export const handshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const option = {
  exportName: 1,
  abort: 2,
  list: 3,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const;

export const reply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsupported: 0x80000001,
  errInvalid: 0x80000003,
  errUnknown: 0x80000006,
  errTooBig: 0x80000009,
} as const;

export const info = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

export const transmissionFlag = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  sendDf: 1 << 7,
  canMultiConn: 1 << 8,
  sendCache: 1 << 10,
  sendFastZero: 1 << 11,
} as const;

export const command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

export const commandFlag = { fua: 1, noHole: 2, df: 4, reqOne: 8, fastZero: 16 } as const;

export const chunk = { none: 0, offsetData: 1, blockStatus: 5, error: 0x8001 } as const;
export const chunkFlagDone = 1;

export const state = { hole: 1, zero: 2 } as const;

export const nbdError = {
  EPERM: 1,
  EIO: 5,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
} as const;

export const requestBytes = 28;
/** Longest payload, as recommended for interoperability in "Size constraints". */
export const maxPayloadBytes = 32 * 1024 * 1024;
/** Longest string the protocol allows. */
export const maxStringBytes = 4096;

export const allocationContext = 'base:allocation';
export const allocationContextId = 1;

/** What one export offers to its clients. */
export interface ExportDescription {
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

/** The transmission flags of an export. DF may be offered only once structured replies are agreed on. */
export function transmissionFlags(readOnly: boolean, structuredReplies: boolean): number {
  const flag = transmissionFlag;
  // The page cache is shared by all connections, and a flush covers all of it: CAN_MULTI_CONN holds.
  let flags = flag.hasFlags | flag.sendFlush | flag.sendFua | flag.canMultiConn | flag.sendCache;
  if (readOnly) flags |= flag.readOnly;
  else flags |= flag.sendTrim | flag.sendWriteZeroes | flag.sendFastZero;
  if (structuredReplies) flags |= flag.sendDf;
  return flags;
}
