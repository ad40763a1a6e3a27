/**
 * Block tokens and page tokens: what a list gave out, signed, so that a block can be fetched only by who was shown it, and
 * only for a time. Source: EBS API reference, Block and ListSnapshotBlocks (tokens of at most 256 characters of
 * `[A-Za-z0-9+/=]`).
 *
 * Form: version 1 (1 byte) | when it expires, seconds since the epoch (6) | index (6) | HMAC-SHA256 over purpose, account,
 * snapshots and what stands before it, 20 bytes of it; base64.
 */
import { timingSafeEqual } from 'node:crypto';
import type { RootKey } from '../crypto/root-key.ts';

/** How long tokens are good, ms. AWS gives seven days. */
export const tokenLifeMs = 7 * 24 * 3600_000;

const version = 1;
const numberBytes = 6;
const macBytes = 20;
const tokenBytes = 1 + 2 * numberBytes + macBytes;
const purpose = 'ebs-token';

/** What a token stands for, beside its index. */
interface Subject {
  readonly kind: 'block' | 'page';
  readonly account: string;
  /** The snapshot; for pages of changed blocks both, as `first,second`. */
  readonly snapshots: string;
}

export class Tokens {
  readonly #rootKey: RootKey;

  constructor(rootKey: RootKey) {
    this.#rootKey = rootKey;
  }

  make(subject: Subject, index: number, expiresAt: number): string {
    const head = Buffer.alloc(1 + 2 * numberBytes);
    head[0] = version;
    head.writeUIntBE(Math.floor(expiresAt / 1000), 1, numberBytes);
    head.writeUIntBE(index, 1 + numberBytes, numberBytes);
    return Buffer.concat([head, this.#mac(subject, head)]).toString('base64');
  }

  /** The index that a token names; undefined when it was not made for this subject, or its time is over. */
  read(subject: Subject, token: string, now: number): number | undefined {
    const bytes = Buffer.from(token, 'base64');
    if (bytes.length !== tokenBytes || bytes[0] !== version) return undefined;
    const head = bytes.subarray(0, tokenBytes - macBytes);
    if (!timingSafeEqual(this.#mac(subject, head), bytes.subarray(tokenBytes - macBytes))) return undefined;
    if (head.readUIntBE(1, numberBytes) * 1000 <= now) return undefined;
    return head.readUIntBE(1 + numberBytes, numberBytes);
  }

  #mac({ kind, account, snapshots }: Subject, head: Buffer): Buffer {
    const subject = Buffer.from(`${kind} ${account} ${snapshots}\n`, 'utf8');
    return this.#rootKey.fingerprint(purpose, subject, head).subarray(0, macBytes);
  }
}
