/**
 * The HTTP server: limits, time-outs, health, metrics, shutdown. What a request means is the dispatcher's.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import type { Clock } from '../aws/clock.ts';
import { AwsError } from '../aws/errors.ts';
import type { Protocol, Service } from '../aws/service.ts';
import type { CredentialStore } from './credentials.ts';
import { type Answer, Dispatcher, type Executor } from './dispatcher.ts';
import { Flights } from './flights.ts';
import { defaultLimits, type Limits } from './limits.ts';
import { endpointOf, requireSafeAddress } from './listen-address.ts';
import { GatewayMetrics } from './metrics.ts';
import type { Headers, WireRequest } from './protocols/protocol.ts';

export interface ServerOptions {
  /** Port 0 takes a free one. */
  readonly listen: { readonly host: string; readonly port: number };
  /** Certificate chain and private key, PEM. */
  readonly tls?: { readonly cert: string | Buffer; readonly key: string | Buffer };
  readonly services: readonly Service[];
  readonly pipeline: Executor;
  readonly credentials: CredentialStore;
  readonly clock: Clock;
  readonly log: Logger;
  /** Whether the database answers; what `/healthz` says. */
  readonly ready: () => boolean | Promise<boolean>;
  readonly limits?: Partial<Limits>;
  /** Metrics of other parts, to show on `/metrics`. */
  readonly registries?: readonly Registry[];
}

export interface GatewayServer {
  readonly address: AddressInfo;
  /** `http://127.0.0.1:4600` */
  readonly endpoint: string;
  /** Stops accepting, lets requests in flight finish within the bound, then cuts what is left. */
  close(): Promise<void>;
}

/**
 * Starts serving.
 * @throws when the address can't be listened on, or is beyond loopback and there is no TLS
 */
export async function createServer(options: ServerOptions): Promise<GatewayServer> {
  const { host, port } = options.listen;
  const hasTls = options.tls !== undefined;
  await requireSafeAddress(host, hasTls);
  const server = new Server(options);
  const address = await server.listen(host, port);
  return { address, endpoint: endpointOf(host, address.port, hasTls), close: () => server.close() };
}

class Server {
  readonly #options: ServerOptions;
  readonly #limits: Limits;
  readonly #app: FastifyInstance;
  readonly #dispatcher: Dispatcher;
  readonly #flights: Flights;
  readonly #metrics: GatewayMetrics;
  readonly #sockets = new Set<Socket>();
  #isClosing = false;

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#flights = new Flights(this.#limits);
    this.#dispatcher = new Dispatcher({ ...options, executor: options.pipeline });
    this.#metrics = new GatewayMetrics(
      () => this.#flights.count,
      () => this.#sockets.size,
      options.registries ?? [],
    );
    this.#app = this.#createApp();
  }

  async listen(host: string, port: number): Promise<AddressInfo> {
    await this.#app.listen({ host, port });
    return this.#app.server.address() as AddressInfo;
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    this.#flights.cancelAll();
    const cut = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy();
    }, this.#limits.drainMs);
    try {
      await this.#app.close();
    } finally {
      clearTimeout(cut);
    }
  }

  #createApp(): FastifyInstance {
    const limits = this.#limits;
    const http = {
      maxHeaderSize: limits.headersMaxBytes,
      headersTimeout: limits.headersTimeoutMs,
      requestTimeout: limits.requestTimeoutMs,
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      connectionsCheckingInterval: Math.min(5000, limits.headersTimeoutMs),
    };
    const { tls } = this.#options;
    const app = fastify({
      ...(tls ? { https: { ...http, cert: tls.cert, key: tls.key, minVersion: 'TLSv1.2' } } : { http }),
      connectionTimeout: limits.idleTimeoutMs,
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      requestTimeout: limits.requestTimeoutMs,
      bodyLimit: limits.bodyMaxBytes,
      forceCloseConnections: 'idle',
      return503OnClosing: false,
      exposeHeadRoutes: false,
      logger: false,
      frameworkErrors: (error: Error, request: FastifyRequest, reply: FastifyReply) =>
        this.#refuseBroken(error, request, reply),
      clientErrorHandler: (error: NodeJS.ErrnoException, socket: Socket) => refuseGarbage(error, socket),
    } as never) as unknown as FastifyInstance;
    app.server.maxConnections = limits.connectionsMax;
    app.server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    // Bodies stay bytes: signatures are over bytes.
    app.removeAllContentTypeParsers();
    app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
    app.setErrorHandler((error: Error, request, reply) => this.#refuseBroken(error, request, reply));
    app.setNotFoundHandler((request, reply) => this.#refuse(request, reply, unknownMethod));
    this.#addRoutes(app);
    return app;
  }

  #addRoutes(app: FastifyInstance): void {
    app.get('/healthz', async (_request, reply) => {
      const isReady = await this.#options.ready();
      return reply.code(isReady ? 200 : 503).send({ status: isReady ? 'ok' : 'unavailable' });
    });
    app.get('/metrics', async (_request, reply) => {
      const { contentType, text } = await this.#metrics.page();
      return reply.header('content-type', contentType).send(text);
    });
    const onRequest = (request: FastifyRequest, reply: FastifyReply, done: () => void) =>
      this.#admit(request, reply, done);
    const handler = (request: FastifyRequest, reply: FastifyReply) => this.#answer(request, reply);
    const bodyLimit = this.#limits.blockBodyMaxBytes;
    for (const path of blockPaths(this.#options.services)) app.all(path, { onRequest, bodyLimit }, handler);
    app.all('/*', { onRequest }, handler);
  }

  /** Takes a request in, or refuses it because the server is full. */
  #admit(request: FastifyRequest, reply: FastifyReply, done: () => void): void {
    const flight = this.#flights.admit(
      request.raw,
      reply.raw,
      request.routeOptions.bodyLimit ?? this.#limits.bodyMaxBytes,
    );
    if (flight) {
      done();
      return;
    }
    this.#metrics.refused.inc({ reason: 'in-flight' });
    this.#refuse(request, reply, (protocol) => throttled(protocol));
  }

  async #answer(request: FastifyRequest, reply: FastifyReply): Promise<void> {
    const started = performance.now();
    const { socket } = request.raw;
    const body = (request.body as Buffer | undefined) ?? Buffer.alloc(0);
    const flights = this.#flights;
    const answer = await this.#dispatcher.dispatch({
      wire: { ...wireHead(request.raw), body },
      requestId: randomUUID(),
      sourceIp: sourceIpOf(socket),
      isSecure: 'encrypted' in socket,
      get cancelled() {
        return flights.signalOf(reply.raw);
      },
    });
    this.#metrics.count(answer.service, answer.operation, answer.code, (performance.now() - started) / 1000);
    // Node.js closes idle connections when the server closes, but not those that become idle afterwards.
    send(reply, answer, this.#isClosing);
  }

  #refuseBroken(
    error: Error & { code?: string; statusCode?: number },
    request: FastifyRequest,
    reply: FastifyReply,
  ): void {
    const status = error.statusCode ?? 500;
    if (status >= 500) this.#options.log.error({ err: error }, 'a request failed before it was dispatched');
    this.#refuse(request, reply, (protocol) => {
      if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE') return tooLarge(protocol);
      return new AwsError(
        isJson(protocol) ? 'SerializationException' : 'MalformedQueryString',
        status >= 500 ? 'The request could not be read.' : `The request could not be read: ${error.message}.`,
        { httpStatus: status },
      );
    });
  }

  /** The request's body may still be coming: the connection can't be used again. */
  #refuse(request: FastifyRequest, reply: FastifyReply, refusal: (protocol: Protocol) => AwsError): void {
    const answer = this.#dispatcher.refuse(wireHead(request.raw), randomUUID(), refusal);
    this.#metrics.count(answer.service, answer.operation, answer.code, 0);
    send(reply, answer, true);
  }
}

/** Paths under which services take blocks of data as bodies. */
function blockPaths(services: readonly Service[]): string[] {
  const roots = services
    .filter((service) => service.protocol === 'restJson1')
    .flatMap((service) => Object.values(service.catalogue))
    .map((schema) => (schema[3] as { http?: readonly [string, string, number] }).http?.[1].split('/')[1]);
  return [...new Set(roots)].filter((root) => root !== undefined).map((root) => `/${root}/*`);
}

/** Written past fastify, which would add a charset to content types that have none. */
function send(reply: FastifyReply, { response }: Answer, isLast = false): void {
  const { status, headers, body } = response;
  const length = typeof body === 'string' ? Buffer.byteLength(body) : body.byteLength;
  reply.hijack();
  try {
    reply.raw.writeHead(status, { ...headers, 'Content-Length': length, ...(isLast ? { Connection: 'close' } : {}) });
    reply.raw.end(body);
  } catch (error) {
    // A header that can't be written. Without an answer the client would wait for ever.
    reply.raw.destroy();
    throw error;
  }
}

function wireHead(request: IncomingMessage): Omit<WireRequest, 'body'> {
  const url = request.url ?? '/';
  const question = url.indexOf('?');
  return {
    method: request.method ?? '',
    path: question < 0 ? url : url.slice(0, question),
    query: question < 0 ? '' : url.slice(question + 1),
    headers: headersOf(request.rawHeaders),
  };
}

/** From the raw headers: Node.js drops or merges some repeated ones, and signatures cover them as sent. */
function headersOf(raw: readonly string[]): Headers {
  const headers = new Map<string, string>();
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index]!.toLowerCase();
    const earlier = headers.get(name);
    headers.set(name, earlier === undefined ? raw[index + 1]! : `${earlier},${raw[index + 1]}`);
  }
  return headers;
}

function sourceIpOf(socket: Socket): string {
  const address = socket.remoteAddress ?? '';
  return address.startsWith('::ffff:') ? address.slice(7) : address;
}

function isJson(protocol: Protocol): boolean {
  return protocol !== 'awsQuery' && protocol !== 'ec2Query';
}

function unknownMethod(protocol: Protocol): AwsError {
  return new AwsError(
    isJson(protocol) ? 'UnknownOperationException' : 'InvalidAction',
    'No operation is called with this HTTP method.',
    { httpStatus: 405 },
  );
}

function throttled(protocol: Protocol): AwsError {
  const code =
    protocol === 'ec2Query' ? 'RequestLimitExceeded' : isJson(protocol) ? 'ThrottlingException' : 'Throttling';
  return new AwsError(code, 'Rate exceeded: the server has as many requests in flight as it takes. Try again.', {
    httpStatus: 503,
  });
}

function tooLarge(protocol: Protocol): AwsError {
  return new AwsError(
    isJson(protocol) ? 'RequestEntityTooLargeException' : 'RequestEntityTooLarge',
    'The request body is larger than this operation takes.',
    { httpStatus: 413 },
  );
}

/** Bytes that are not HTTP: there is no request to answer, only a connection to close. */
function refuseGarbage(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const status =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? '431 Request Header Fields Too Large'
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? '408 Request Timeout'
        : '400 Bad Request';
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () => socket.destroy());
}
