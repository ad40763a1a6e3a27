import { AwsError } from '../aws/errors.ts';
import type { Service } from '../aws/service.ts';
import { protocolHandlers } from './protocols/index.ts';
import type { Headers, ProtocolHandler, WireRequest } from './protocols/protocol.ts';
import { isRoutedBy } from './protocols/restJson1.ts';

/** What can be said of a request: its service, if it names one that exists, and the protocol to answer in. */
export interface Route {
  readonly service?: Service;
  readonly handler: ProtocolHandler;
  /** Set when there is no service: the error to answer with. */
  readonly refusal?: AwsError;
}

/**
 * Finds the service of a request. All services share one address, so it is told by `X-Amz-Target` (JSON protocols), and by
 * the service that the signature is scoped to (the others). An unsigned request is only ever refused; it is looked at more
 * closely so that its client can read the refusal.
 */
export class Router {
  readonly #byName = new Map<string, Service>();
  readonly #byTarget = new Map<string, Service>();
  readonly #services: readonly Service[];

  constructor(services: readonly Service[]) {
    this.#services = services;
    for (const service of services) {
      this.#byName.set(service.name, service);
      for (const prefix of service.targetPrefixes ?? []) this.#byTarget.set(prefix, service);
    }
  }

  /** @param scopedTo the service in the credential scope, unverified */
  route(
    request: Pick<WireRequest, 'path' | 'query' | 'headers'> & { body?: Buffer },
    scopedTo: string | undefined,
  ): Route {
    const target = request.headers.get('x-amz-target');
    if (target !== undefined) return this.#byTargetHeader(target);
    if (scopedTo !== undefined) {
      const service = this.#byName.get(scopedTo);
      if (service) return { service, handler: protocolHandlers[service.protocol] };
    }
    const guess = scopedTo === undefined ? this.#guess(request) : undefined;
    if (guess) return { service: guess, handler: protocolHandlers[guess.protocol] };
    return noService(request.headers, scopedTo);
  }

  #byTargetHeader(target: string): Route {
    const prefix = target.slice(0, Math.max(0, target.lastIndexOf('.')));
    const service = this.#byTarget.get(prefix);
    if (service) return { service, handler: protocolHandlers[service.protocol] };
    return {
      handler: protocolHandlers.awsJson1_1,
      refusal: new AwsError(
        'UnknownOperationException',
        `Coffer has no service for the target ${target.slice(0, 128)}.`,
      ),
    };
  }

  #guess(request: Pick<WireRequest, 'path' | 'query'> & { body?: Buffer }): Service | undefined {
    const version = /(?:^|&)Version=([0-9-]{10})(?:&|$)/;
    const form = version.exec(request.query) ?? version.exec(request.body?.toString('latin1') ?? '');
    if (form) return this.#services.find((service) => service.apiVersion === form[1]);
    return this.#services.find((service) => service.protocol === 'restJson1' && isRoutedBy(service, request));
  }
}

function noService(headers: Headers, scopedTo: string | undefined): Route {
  const isJson = headers.get('content-type')?.includes('json') ?? false;
  const message =
    scopedTo === undefined
      ? 'The request names no service: it has neither X-Amz-Target nor a signature scoped to a service.'
      : `Coffer has no service ${scopedTo.slice(0, 64)}.`;
  return isJson
    ? { handler: protocolHandlers.awsJson1_1, refusal: new AwsError('UnknownOperationException', message) }
    : { handler: protocolHandlers.awsQuery, refusal: new AwsError('InvalidAction', message) };
}
