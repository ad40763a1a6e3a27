import { createHmac, timingSafeEqual } from 'node:crypto';

const entriesMax = 1000;

interface Entry {
  readonly secret: Buffer;
  readonly key: Buffer;
}

/**
 * Derived signing keys, the most recently used kept: deriving one costs four HMACs, and one serves a day's requests of an
 * access key in a region and service. What is dropped is wiped.
 */
export class SigningKeys {
  readonly #entries = new Map<string, Entry>();

  /** The signing key of `secret` for a scope. It belongs to the cache and is valid until the next call. */
  get(
    scope: { accessKeyId: string; scope: string; date: string; region: string; service: string },
    secret: Buffer,
  ): Buffer {
    const name = `${scope.accessKeyId}/${scope.scope}`;
    const cached = this.#entries.get(name);
    if (cached) {
      this.#entries.delete(name);
      // An access key keeps its secret for life, except an administrator's that is set from outside.
      if (cached.secret.length === secret.length && timingSafeEqual(cached.secret, secret)) {
        this.#entries.set(name, cached);
        return cached.key;
      }
      wipe(cached);
    }
    const entry = {
      secret: Buffer.from(secret),
      key: deriveSigningKey(secret, scope.date, scope.region, scope.service),
    };
    this.#entries.set(name, entry);
    if (this.#entries.size > entriesMax) {
      const [oldest, dropped] = this.#entries.entries().next().value!;
      this.#entries.delete(oldest);
      wipe(dropped);
    }
    return entry.key;
  }
}

function wipe(entry: Entry): void {
  entry.secret.fill(0);
  entry.key.fill(0);
}

/** HMAC chain over date, region, service and `aws4_request`. Source: IAM user guide, "Calculate signature". */
export function deriveSigningKey(secret: Buffer, date: string, region: string, service: string): Buffer {
  const seed = Buffer.concat([Buffer.from('AWS4'), secret]);
  let key = createHmac('sha256', seed).update(date).digest();
  seed.fill(0);
  for (const part of [region, service, 'aws4_request']) {
    const next = createHmac('sha256', key).update(part).digest();
    key.fill(0);
    key = next;
  }
  return key;
}
