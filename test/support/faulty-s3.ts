/** A proxy before an S3 server that does to requests and answers what networks and servers do on their bad days. */
import http from 'node:http';
import type { AddressInfo } from 'node:net';

export type Fault =
  /** Takes the request and says nothing. */
  | 'silence'
  /** Sends the headers and half of the body, and then nothing. */
  | 'stall'
  /** Ends the connection in the middle of the answer's body. */
  | 'truncate'
  /** Changes a bit of the answer's body. */
  | 'flip'
  /** Changes a bit of the request's body. */
  | 'flipRequest'
  /** Closes the connection instead of answering; what was asked has been done. */
  | 'reset'
  | 'slowDown'
  | 'internalError'
  | 'notXml'
  | 'accessDenied'
  | 'quotaExceeded';

const answers: Partial<Record<Fault, readonly [status: number, body: string]>> = {
  slowDown: [503, '<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'],
  internalError: [500, '<Error><Code>InternalError</Code></Error>'],
  notXml: [502, '<html><body>Bad gateway'],
  accessDenied: [403, '<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'],
  quotaExceeded: [403, '<Error><Code>QuotaExceeded</Code></Error>'],
};

export class FaultyS3 {
  readonly #server: http.Server;
  readonly #target: URL;
  #faults: Array<{ readonly fault: Fault; readonly methods: readonly string[]; times: number }> = [];
  #inFlight = 0;
  /** More requests than this at a time are told to slow down. */
  inFlightMax = Number.POSITIVE_INFINITY;
  requests = 0;

  constructor(target: string) {
    this.#target = new URL(target);
    this.#server = http.createServer((request, response) => {
      this.requests += 1;
      this.#inFlight += 1;
      response.once('close', () => {
        this.#inFlight -= 1;
      });
      const chunks: Buffer[] = [];
      request.on('data', (chunk) => chunks.push(chunk));
      request.on('error', () => {});
      request.on('end', () => this.#serve(request, Buffer.concat(chunks), response));
    });
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** The next `times` requests of these methods meet the fault. */
  break(fault: Fault, methods: readonly string[], times: number): void {
    this.#faults.push({ fault, methods, times });
  }

  heal(): void {
    this.#faults = [];
  }

  #serve(request: http.IncomingMessage, body: Buffer, response: http.ServerResponse): void {
    const found = this.#faults.find(({ methods, times }) => times > 0 && methods.includes(request.method!));
    if (found) found.times -= 1;
    const fault = found?.fault ?? (this.#inFlight > this.inFlightMax ? 'slowDown' : undefined);
    if (fault === 'silence') return;
    const canned = fault && answers[fault];
    if (canned) {
      response.writeHead(canned[0], { 'content-type': 'application/xml' }).end(canned[1]);
      return;
    }
    if (fault === 'flipRequest' && body.length > 0) body[body.length >>> 1]! ^= 8;
    const { hostname, port } = this.#target;
    const { method, url, headers } = request;
    // The headers go on as they are: the signature covers the host that the client asked.
    const forwarded = http.request({ hostname, port, method, path: url, headers }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('end', () => this.#answer(fault, answer, Buffer.concat(chunks), response));
    });
    forwarded.on('error', () => response.destroy());
    forwarded.end(body);
  }

  #answer(fault: Fault | undefined, answer: http.IncomingMessage, body: Buffer, response: http.ServerResponse): void {
    if (fault === 'reset') {
      response.socket?.resetAndDestroy();
      return;
    }
    response.writeHead(answer.statusCode!, answer.headers);
    const half = body.length >>> 1;
    if (fault === 'stall') response.write(body.subarray(0, half));
    else if (fault === 'truncate') response.write(body.subarray(0, half), () => response.destroy());
    else {
      if (fault === 'flip') body[half]! ^= 8;
      response.end(body);
    }
  }
}
