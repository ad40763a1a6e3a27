// A request of the transmission phase, and the rules that decide whether it may be carried out.

import type { Device } from '../devices/device.ts';
import type { Negotiated } from './handshake.ts';
import { command, commandFlag, type ExportDescription, maxPayloadBytes, nbdError } from './protocol.ts';

export interface Request {
  readonly flags: number;
  readonly type: number;
  /** The client's cookie, as two opaque halves. */
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** Bytes. Offsets beyond 2^53 lose precision, but they lie beyond every volume anyway. */
  readonly offset: number;
  readonly length: number;
  /** Up to where the request has been carried out. */
  position: number;
  /** Parts of a write that were set aside. */
  parts: number;
  waiting: boolean;
  /** NBD error to report at the end, 0 for none. */
  error: number;
  message: string;
}

/** Reads the request header that begins at byte `at` ("Request message"). */
export function newRequest(input: DataView, at: number): Request {
  const offset = input.getUint32(at + 16) * 2 ** 32 + input.getUint32(at + 20);
  return {
    flags: input.getUint16(at + 4),
    type: input.getUint16(at + 6),
    cookieHigh: input.getUint32(at + 8),
    cookieLow: input.getUint32(at + 12),
    offset,
    length: input.getUint32(at + 24),
    position: offset,
    parts: 0,
    waiting: false,
    error: 0,
    message: '',
  };
}

// FUA is "valid for all commands", even where it has no meaning.

const allowedFlags: Record<number, number> = {
  [command.read]: commandFlag.fua | commandFlag.df,
  [command.write]: commandFlag.fua,
  [command.flush]: commandFlag.fua,
  [command.trim]: commandFlag.fua,
  [command.cache]: commandFlag.fua,
  [command.writeZeroes]: commandFlag.fua | commandFlag.noHole | commandFlag.fastZero,
  [command.blockStatus]: commandFlag.fua | commandFlag.reqOne,
};

/** A reply that must not be fragmented is built whole. The specification demands at least 65,536. */
export const maxUnfragmentedBytes = 1024 * 1024;

/**
 * The error that a request deserves before it touches the device, or 0 ("Request types", "Error values").
 * @param description what the client was told: the volume may have grown since
 */
export function checkRequest(
  request: Request,
  device: Device,
  { sizeBytes, readOnly }: ExportDescription,
  negotiated: Negotiated,
): number {
  const { type, flags, offset, length } = request;
  const allowed = allowedFlags[type];
  if (allowed === undefined || (flags & ~allowed) !== 0) return nbdError.EINVAL;
  const beyondEnd = offset + length > sizeBytes;
  switch (type) {
    case command.read:
      if (length > maxPayloadBytes) return nbdError.EOVERFLOW;
      if ((flags & commandFlag.df) !== 0) {
        if (!negotiated.structuredReplies) return nbdError.EINVAL;
        if (length > maxUnfragmentedBytes) return nbdError.EOVERFLOW;
      }
      return beyondEnd ? nbdError.EINVAL : 0;
    case command.write:
      if (readOnly) return nbdError.EPERM;
      if (length > maxPayloadBytes) return nbdError.EOVERFLOW;
      return beyondEnd ? nbdError.ENOSPC : 0;
    case command.writeZeroes:
      if (readOnly) return nbdError.EPERM;
      if (beyondEnd) return nbdError.ENOSPC;
      // With NO_HOLE the file system may have to write; saying no is always allowed, and quick.
      if ((flags & commandFlag.fastZero) !== 0 && ((flags & commandFlag.noHole) !== 0 || !device.zeroesFast)) {
        return nbdError.ENOTSUP;
      }
      return 0;
    case command.trim:
      if (readOnly) return nbdError.EPERM;
      return beyondEnd ? nbdError.EINVAL : 0;
    case command.flush:
      return offset !== 0 || length !== 0 ? nbdError.EINVAL : 0;
    case command.blockStatus:
      return beyondEnd || length === 0 || !negotiated.allocationContext ? nbdError.EINVAL : 0;
    default:
      return beyondEnd ? nbdError.EINVAL : 0;
  }
}
