import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Limits } from './limits.ts';

type FlightLimits = Pick<Limits, 'inFlightMax' | 'inFlightBodyMaxBytes' | 'bodyMaxBytes'>;

/**
 * The requests that are being received or answered. Bounded in number and in the memory that their bodies may take; a
 * request beyond the bounds is refused at once.
 */
export class Flights {
  readonly #limits: FlightLimits;
  /** A controller is made when something asks for its signal; most requests never wait. */
  readonly #flying = new Map<ServerResponse, AbortController | undefined>();
  /** Bytes taken by bodies: blocks of data have room of their own, so that they never crowd out other requests. */
  readonly #bodyBytes = { block: 0, other: 0 };
  #isClosing = false;

  constructor(limits: FlightLimits) {
    this.#limits = limits;
  }

  get count(): number {
    return this.#flying.size;
  }

  /**
   * Takes a request in until its answer is sent or its connection is gone.
   * @param bodyLimit what its body can take at most, bytes, should it not say how long it is
   * @returns false when there is no room
   */
  admit(request: IncomingMessage, response: ServerResponse, bodyLimit: number): boolean {
    const bytes = Math.min(bodyLimit, declaredLength(request) ?? bodyLimit);
    if (this.count >= this.#limits.inFlightMax) return false;
    const kind = bodyLimit > this.#limits.bodyMaxBytes ? 'block' : 'other';
    if (this.#bodyBytes[kind] + bytes > this.#limits.inFlightBodyMaxBytes) return false;
    this.#flying.set(response, undefined);
    this.#bodyBytes[kind] += bytes;
    response.once('close', () => {
      const controller = this.#flying.get(response);
      this.#flying.delete(response);
      this.#bodyBytes[kind] -= bytes;
      if (!response.writableFinished) controller?.abort();
    });
    return true;
  }

  /** Aborts when the client of this response goes away, or the server shuts down. */
  signalOf(response: ServerResponse): AbortSignal {
    if (this.#isClosing || !this.#flying.has(response)) return AbortSignal.abort();
    let controller = this.#flying.get(response);
    if (!controller) {
      controller = new AbortController();
      this.#flying.set(response, controller);
    }
    return controller.signal;
  }

  /** Tells operations that wait for something to stop waiting. */
  cancelAll(): void {
    this.#isClosing = true;
    for (const controller of this.#flying.values()) controller?.abort();
  }
}

/** Bytes of the body as announced; undefined when it comes in chunks. */
function declaredLength(request: IncomingMessage): number | undefined {
  if (request.headers['transfer-encoding'] !== undefined) return undefined;
  return Number(request.headers['content-length'] ?? 0);
}
