import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Limits } from './limits.ts';

type FlightLimits = Pick<Limits, 'inFlightMax' | 'inFlightBodyMaxBytes' | 'bodyMaxBytes'>;

/**
 * The requests that are being received or answered. Bounded in number and in the memory that their bodies may take; a
 * request beyond the bounds is refused at once.
 */
export class Flights {
  readonly #limits: FlightLimits;
  readonly #controllers = new Map<ServerResponse, AbortController>();
  /** Bytes taken by bodies: blocks of data have room of their own, so that they never crowd out other requests. */
  readonly #bodyBytes = { block: 0, other: 0 };
  #isClosing = false;

  constructor(limits: FlightLimits) {
    this.#limits = limits;
  }

  get count(): number {
    return this.#controllers.size;
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
    const controller = new AbortController();
    if (this.#isClosing) controller.abort();
    this.#controllers.set(response, controller);
    this.#bodyBytes[kind] += bytes;
    response.once('close', () => {
      this.#controllers.delete(response);
      this.#bodyBytes[kind] -= bytes;
      if (!response.writableFinished) controller.abort();
    });
    return true;
  }

  /** Aborts when the client of this response goes away, or the server shuts down. */
  signalOf(response: ServerResponse): AbortSignal {
    return this.#controllers.get(response)?.signal ?? AbortSignal.abort();
  }

  /** Tells operations that wait for something to stop waiting. */
  cancelAll(): void {
    this.#isClosing = true;
    for (const controller of this.#controllers.values()) controller.abort();
  }
}

/** Bytes of the body as announced; undefined when it comes in chunks. */
function declaredLength(request: IncomingMessage): number | undefined {
  if (request.headers['transfer-encoding'] !== undefined) return undefined;
  return Number(request.headers['content-length'] ?? 0);
}
