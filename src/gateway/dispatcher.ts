/**
 * One request from wire form to wire form: protocol decode → authenticate → pipeline → protocol encode. Knows nothing of
 * sockets. Whatever goes wrong becomes an answer in the protocol of the request.
 */
import type { Logger } from 'pino';
import type { Clock } from '../aws/clock.ts';
import { AwsError } from '../aws/errors.ts';
import type { Operation, Protocol, Service } from '../aws/service.ts';
import { DatabaseUnavailable } from '../database/database.ts';
import { AuthError, renderAuthError } from './auth-errors.ts';
import type { CredentialStore } from './credentials.ts';
import type { PipelineRequest } from './pipeline.ts';
import type { RecognizedRequest, WireRequest, WireResponse } from './protocols/protocol.ts';
import { type Route, Router } from './routing.ts';
import { type Authorization, readAuthorization, SignatureVerifier } from './sigv4.ts';

export interface Executor {
  execute(request: PipelineRequest): Promise<unknown>;
}

/** What the transport knows of a request. */
export interface Arrival {
  readonly wire: WireRequest;
  readonly requestId: string;
  readonly sourceIp: string;
  readonly isSecure: boolean;
  readonly cancelled: AbortSignal;
}

export interface Answer {
  readonly response: WireResponse;
  /** For metrics: names from the catalogue only, never the client's own words. */
  readonly service: string;
  readonly operation: string;
  /** The error's code, or `OK`. */
  readonly code: string;
}

interface FailureContext {
  readonly requestId: string;
  readonly service: Service | undefined;
  readonly operationName: string;
}

/** For operations that don't wait: a signal of their own would be made for nothing. */
const neverCancelled = new AbortController().signal;

export class Dispatcher {
  readonly #router: Router;
  readonly #verifier: SignatureVerifier;
  readonly #executor: Executor;
  readonly #log: Logger;

  constructor(parts: {
    services: readonly Service[];
    credentials: CredentialStore;
    executor: Executor;
    clock: Clock;
    log: Logger;
  }) {
    this.#router = new Router(parts.services);
    this.#verifier = new SignatureVerifier(parts.credentials, parts.clock);
    this.#executor = parts.executor;
    this.#log = parts.log;
  }

  async dispatch(arrival: Arrival): Promise<Answer> {
    const { wire, requestId } = arrival;
    const authorization = tryAuthorization(wire);
    const route = this.#router.route(wire, 'problem' in authorization ? undefined : authorization.identity.service);
    const { service, handler } = route;
    let operationName = 'unknown';
    try {
      if (!service) throw route.refusal!;
      const recognized = handler.recognize(service, wire);
      const name = recognized.operationName;
      // Own properties alone: the name is the client's, and every object has a `constructor`.
      const found = Object.hasOwn(service.operations, name) ? service.operations[name] : undefined;
      // What services ask of each other is on no wire.
      const operation = found?.audience === 'service' ? undefined : found;
      const isKnown = operation !== undefined || Object.hasOwn(service.catalogue, name);
      if (isKnown) operationName = name;
      if (!operation) throw handler.unknownOperation(service, name, isKnown);
      const output = await this.#run(arrival, authorization, service, operation, recognized);
      const response = handler.encode(service, operation, output, requestId);
      return { response, service: service.name, operation: operationName, code: 'OK' };
    } catch (error) {
      const rendered = this.#toAwsError(error, service?.protocol ?? 'awsQuery', { requestId, service, operationName });
      return {
        response: handler.encodeError(service, rendered, requestId),
        service: service?.name ?? 'unknown',
        operation: operationName,
        code: rendered.code,
      };
    }
  }

  /** The answer to a request that the transport refuses, in the protocol that its head tells. */
  refuse(wire: Omit<WireRequest, 'body'>, requestId: string, refusal: (protocol: Protocol) => AwsError): Answer {
    const request = { ...wire, body: Buffer.alloc(0) };
    const authorization = tryAuthorization(request);
    const route: Route = this.#router.route(
      request,
      'problem' in authorization ? undefined : authorization.identity.service,
    );
    const error = refusal(route.service?.protocol ?? 'awsJson1_1');
    const service = route.service?.name ?? 'unknown';
    const response = route.handler.encodeError(route.service, error, requestId);
    return { response, service, operation: 'unknown', code: error.code };
  }

  async #run(
    arrival: Arrival,
    authorization: Authorization | AuthError,
    service: Service,
    operation: Operation,
    recognized: RecognizedRequest,
  ): Promise<unknown> {
    const { wire, requestId, sourceIp, isSecure } = arrival;
    if ('problem' in authorization) throw authorization;
    const { principal, audience, region } = await this.#verifier.verify(wire, authorization, {
      service: service.name,
      allowsUnsignedPayload: operation.takesUnsignedBody === true,
    });
    const input = recognized.decode(operation.schema);
    const userAgent = wire.headers.get('user-agent') ?? '';
    return this.#executor.execute({
      service,
      operation,
      input,
      principal,
      audience,
      region,
      sourceIp,
      isSecure,
      userAgent,
      requestId,
      cancelled: operation.effect === 'waits' ? arrival.cancelled : neverCancelled,
    });
  }

  #toAwsError(error: unknown, protocol: Protocol, context: FailureContext): AwsError {
    if (error instanceof AwsError) {
      if (error.fault === 'server') this.#logFailure(error, context);
      return error;
    }
    if (error instanceof AuthError) return renderAuthError(error, protocol);
    this.#logFailure(error, context);
    if (error instanceof DatabaseUnavailable)
      return new AwsError(
        'ServiceUnavailable',
        'The metadata database cannot be written at the moment, so nothing was changed. Try again later; the server log has the reason.',
        { httpStatus: 503 },
      );
    return new AwsError(
      internalCodes[protocol],
      `An internal error occurred. The server log has the details under the request id ${context.requestId}.`,
      { httpStatus: 500 },
    );
  }

  #logFailure(error: unknown, { requestId, service, operationName }: FailureContext): void {
    this.#log.error({ err: error, requestId, service: service?.name, operation: operationName }, 'a request failed');
  }
}

/** The code of an unexpected failure, as the protocol's services spell it. */
const internalCodes: Record<Protocol, string> = {
  awsJson1_1: 'InternalFailure',
  internalJson: 'InternalFailure',
  awsQuery: 'InternalFailure',
  ec2Query: 'InternalError',
  restJson1: 'InternalServerException',
};

function tryAuthorization(wire: Pick<WireRequest, 'headers' | 'query'>): Authorization | AuthError {
  try {
    return readAuthorization(wire);
  } catch (error) {
    if (error instanceof AuthError) return error;
    throw error;
  }
}
