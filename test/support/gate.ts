/** A proxy before a server that lets only so many requests for blocks through, so that who asks is surely not done by then. */
import http from 'node:http';
import type { AddressInfo } from 'node:net';

export class Gate {
  readonly endpoint: string;
  readonly #server: http.Server;
  readonly #waiting: (() => void)[] = [];
  #left: number;

  private constructor(server: http.Server, blocks: number) {
    this.#server = server;
    this.#left = blocks;
    this.endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  /** Reads and writes of `blocks` blocks go through (EBS direct APIs), and whatever else is asked; further ones wait. */
  static async before(endpoint: string, blocks: number): Promise<Gate> {
    const { hostname, port } = new URL(endpoint);
    const server = http.createServer(async (request, response) => {
      if (/\/blocks\/\d+/.test(request.url!)) await gate.#turn();
      const { method, url, headers } = request;
      // The headers go on as they are: the signature covers the host that was asked.
      const forwarded = http.request({ hostname, port, method, path: url, headers }, (answer) => {
        response.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(response);
      });
      forwarded.on('error', () => response.destroy());
      request.pipe(forwarded);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const gate = new Gate(server, blocks);
    return gate;
  }

  /** Lets through all that wait, and all that come. */
  open(): void {
    this.#left = Number.POSITIVE_INFINITY;
    for (const goOn of this.#waiting.splice(0)) goOn();
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #turn(): Promise<void> {
    if (this.#left-- <= 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
}
