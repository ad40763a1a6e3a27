/** The server's bounds. All of them are refusals with a reason, none is a queue. */
export interface Limits {
  /** Largest body, bytes; of services that take blocks of data (EBS direct) the second. */
  readonly bodyMaxBytes: number;
  readonly blockBodyMaxBytes: number;
  /** Request line and headers together, bytes. */
  readonly headersMaxBytes: number;
  /** From the first byte of a request to the end of its headers, and to the end of its body, ms. */
  readonly headersTimeoutMs: number;
  readonly requestTimeoutMs: number;
  /** Between requests of a connection, ms. */
  readonly keepAliveTimeoutMs: number;
  /** Without a byte either way, ms; longer than any operation waits (a host's Sync: 20 s). */
  readonly idleTimeoutMs: number;
  readonly connectionsMax: number;
  /**
   * Requests being received or answered; and the bytes that their bodies may take together, once for blocks of data and
   * once for all others.
   */
  readonly inFlightMax: number;
  readonly inFlightBodyMaxBytes: number;
  /** How long shutting down waits for requests in flight, ms. */
  readonly drainMs: number;
}

export const defaultLimits: Limits = {
  bodyMaxBytes: 1024 * 1024,
  blockBodyMaxBytes: 16 * 1024 * 1024,
  headersMaxBytes: 32 * 1024,
  headersTimeoutMs: 15_000,
  requestTimeoutMs: 60_000,
  keepAliveTimeoutMs: 75_000,
  idleTimeoutMs: 120_000,
  connectionsMax: 4096,
  inFlightMax: 1024,
  inFlightBodyMaxBytes: 128 * 1024 * 1024,
  drainMs: 10_000,
};
