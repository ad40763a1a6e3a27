/**
 * restJson1: EBS direct. Method and path say which operation; members travel in path, query, headers or body, as the
 * schema's http traits have it. Source: Smithy, "AWS restJson1 protocol" and "HTTP bindings".
 */
import { AwsError } from '../../aws/errors.ts';
import type { Service } from '../../aws/service.ts';
import { normalizePath } from '../canonical-request.ts';
import { parseJsonObject, readJson, serializationError, writeJson } from './json-body.ts';
import type { ProtocolHandler, RecognizedRequest, WireRequest } from './protocol.ts';
import { modelledError, nameTrait, type Shape, shapeOf, traitsOf } from './shapes.ts';

interface Route {
  readonly operationName: string;
  readonly method: string;
  /** Literal segments, and labels as `{Name}`. */
  readonly segments: readonly string[];
}

export const restJson1: ProtocolHandler = {
  recognize(service, request) {
    const segments = normalizePath(request.path).split('/').slice(1);
    const route = routesOf(service).find((candidate) => matches(candidate, request.method, segments));
    if (!route)
      throw new AwsError(
        'UnknownOperationException',
        `${service.name} has no operation ${request.method} ${request.path}.`,
        {
          httpStatus: 404,
        },
      );
    return {
      operationName: route.operationName,
      decode: (schema) => decodeInput(shapeOf(schema?.[4]), route, segments, request),
    } satisfies RecognizedRequest;
  },

  encode(_service, operation, output, requestId) {
    const shape = shapeOf(operation.schema?.[5]);
    const source = (output ?? {}) as Record<string, unknown>;
    const headers: Record<string, string> = { 'x-amzn-RequestId': requestId };
    const bodyMembers: Record<string, unknown> = {};
    let payload: Uint8Array | undefined;
    for (const [name, member] of shape.isUnitSchema() ? [] : shape.structIterator()) {
      const value = source[name];
      if (value === undefined || value === null) continue;
      const header = nameTrait(member, 'httpHeader');
      if (header !== undefined) headers[header] = String(value);
      else if (traitsOf(member).httpPayload) payload = value as Uint8Array;
      else bodyMembers[name] = value;
    }
    headers['Content-Type'] = payload ? 'application/octet-stream' : 'application/json';
    const hasPayloadMember =
      !shape.isUnitSchema() && [...shape.structIterator()].some(([, m]) => traitsOf(m).httpPayload);
    const body = payload ?? (hasPayloadMember ? '' : writeJson(shape, bodyMembers, 'jsonNames'));
    return { status: httpTrait(operation.schema)?.[2] ?? 200, headers, body };
  },

  encodeError(service, error, requestId) {
    const { httpStatus, messageMember } = modelledError(service, error.code);
    return {
      status: error.httpStatus === 400 ? (httpStatus ?? 400) : error.httpStatus,
      headers: { 'x-amzn-RequestId': requestId, 'x-amzn-ErrorType': error.code, 'Content-Type': 'application/json' },
      body: JSON.stringify({ [messageMember]: error.message, ...error.members }),
    };
  },

  unknownOperation: (service, operationName, isKnown) =>
    new AwsError(
      'UnknownOperationException',
      isKnown
        ? `Coffer does not implement the operation ${operationName} of ${service.name}.`
        : `The service ${service.name} has no operation ${operationName}.`,
      { httpStatus: 404 },
    ),
};

/** Whether a request looks like one of the service's: used only to find the service of an unsigned request. */
export function isRoutedBy(service: Service, request: Pick<WireRequest, 'path'>): boolean {
  const first = normalizePath(request.path).split('/')[1];
  return routesOf(service).some((route) => route.segments[0] === first);
}

const routeTables = new WeakMap<Service, readonly Route[]>();

function routesOf(service: Service): readonly Route[] {
  let routes = routeTables.get(service);
  if (!routes) {
    routes = Object.entries(service.catalogue)
      .flatMap(([operationName, schema]) => {
        const http = httpTrait(schema);
        return http ? [{ operationName, method: http[0], segments: http[1].split('/').slice(1) }] : [];
      })
      // Literals before labels: /snapshots/completion/{id} must not be read as /snapshots/{id}/….
      .sort((left, right) => labelCount(left) - labelCount(right));
    routeTables.set(service, routes);
  }
  return routes;
}

function labelCount(route: Route): number {
  return route.segments.filter((segment) => segment.startsWith('{')).length;
}

function httpTrait(schema: unknown): readonly [string, string, number] | undefined {
  const traits = (schema as readonly unknown[] | undefined)?.[3];
  return typeof traits === 'object' ? (traits as { http?: [string, string, number] }).http : undefined;
}

function matches(route: Route, method: string, segments: readonly string[]): boolean {
  return (
    route.method === method &&
    route.segments.length === segments.length &&
    route.segments.every((segment, index) =>
      segment.startsWith('{') ? segments[index] !== '' : segment === segments[index],
    )
  );
}

function decodeInput(shape: Shape, route: Route, segments: readonly string[], request: WireRequest): object {
  if (shape.isUnitSchema()) return {};
  const input: Record<string, unknown> = {};
  const query = new URLSearchParams(request.query);
  let hasBodyMembers = false;
  let hasPayload = false;
  for (const [name, member] of shape.structIterator()) {
    const traits = traitsOf(member);
    const header = nameTrait(member, 'httpHeader');
    const parameter = nameTrait(member, 'httpQuery');
    let text: string | null | undefined;
    if (traits.httpLabel) text = decodeSegment(segments[route.segments.indexOf(`{${name}}`)]!);
    else if (header !== undefined) text = request.headers.get(header.toLowerCase());
    else if (parameter !== undefined) text = query.get(parameter);
    else if (traits.httpPayload) {
      input[name] = request.body;
      hasPayload = true;
    } else hasBodyMembers = true;
    if (text !== undefined && text !== null) input[name] = readText(member, text, name);
  }
  if (hasBodyMembers && !hasPayload) Object.assign(input, readBodyMembers(shape, request));
  return input;
}

/** Members bound elsewhere are not taken from the body, whatever it says. */
function readBodyMembers(shape: Shape, request: WireRequest): object {
  const body = parseJsonObject(request.body);
  for (const [name, member] of shape.structIterator()) {
    const { httpLabel, httpHeader, httpQuery } = traitsOf(member);
    if (httpLabel || httpHeader || httpQuery) delete body[name];
  }
  return readJson(shape, body);
}

function decodeSegment(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw serializationError('The path contains a percent-encoding that is not valid UTF-8.');
  }
}

function readText(shape: Shape, text: string, name: string): unknown {
  if (shape.isStringSchema()) return text;
  if (shape.isNumericSchema()) {
    const value = Number(text);
    if (!/^[+-]?[0-9]+$/.test(text) || !Number.isSafeInteger(value))
      throw serializationError(`STRING_VALUE cannot be converted to Integer at ${name}`);
    return value;
  }
  if (shape.isBooleanSchema() && (text === 'true' || text === 'false')) return text === 'true';
  throw serializationError(`STRING_VALUE cannot be converted to ${shape.getName()} at ${name}`);
}
