/**
 * Requests as bytes: an input, however wrong, in the form of its service's protocol, signed by the SDK's signer. The SDK's
 * own serializers would refuse, or put right, what is wrong here.
 */
import { createHash, createHmac, type Hash, type Hmac } from 'node:crypto';
import { SignatureV4 } from '@smithy/signature-v4';
import type { StaticOperationSchema } from '@smithy/types';
import type { Service } from '../../../src/aws/service.ts';
import type { WireRequest } from '../../../src/gateway/protocols/protocol.ts';
import { nameTrait, type Shape, shapeOf, traitsOf } from '../../../src/gateway/protocols/shapes.ts';
import { RawJson } from './hostile.ts';
import { type Input, isPlain } from './inputs.ts';

/** A request without its signature. `query` is percent-encoded already. */
export interface Unsigned {
  readonly method: string;
  readonly path: string;
  readonly query: ReadonlyArray<readonly [name: string, value: string]>;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export function write(
  service: Service,
  operationName: string,
  schema: StaticOperationSchema | undefined,
  input: Input,
): Unsigned {
  const plain = { method: 'POST', path: '/', query: [], headers: {}, body: Buffer.alloc(0) };
  switch (service.protocol) {
    case 'awsJson1_1':
    case 'internalJson': {
      const headers = {
        'content-type': 'application/x-amz-json-1.1',
        'x-amz-target': `${service.targetPrefixes![0]}.${operationName}`,
      };
      return { ...plain, headers, body: Buffer.from(json(input)) };
    }
    case 'awsQuery':
    case 'ec2Query': {
      const pairs: Array<[string, string]> = [
        ['Action', operationName],
        ['Version', service.apiVersion!],
      ];
      flatten(pairs, '', input, schema && shapeOf(schema[4]), service.protocol === 'ec2Query');
      const body = pairs.map(([name, value]) => `${encoded(name)}=${encoded(value)}`).join('&');
      return { ...plain, headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: Buffer.from(body) };
    }
    case 'restJson1':
      return writeRest(schema!, input);
  }
}

/** Lone surrogates can't be written in UTF-8; what takes their place can. */
const encoded = (text: string) => encodeURIComponent(text.toWellFormed());

function json(value: unknown): string {
  if (value instanceof RawJson) return value.text;
  if (value instanceof Uint8Array) return `"${Buffer.from(value).toString('base64')}"`;
  if (value instanceof Date) return String(value.getTime() / 1000);
  if (Array.isArray(value)) return `[${value.map(json).join()}]`;
  if (!isPlain(value)) return JSON.stringify(value) ?? 'null';
  return `{${Object.entries(value)
    .map(([name, item]) => `${JSON.stringify(name)}:${json(item)}`)
    .join()}}`;
}

function scalar(value: unknown): string {
  if (value instanceof RawJson) return value.text;
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  if (value instanceof Date) return value.toISOString();
  return String(value);
}

/** Writes `value` under `path` as the shape says; where it doesn't fit the shape, as its own form suggests. */
function flatten(
  pairs: Array<[string, string]>,
  path: string,
  value: unknown,
  shape: Shape | undefined,
  isEc2: boolean,
): void {
  const join = (part: string) => (path === '' ? part : `${path}.${part}`);
  if (Array.isArray(value)) {
    const isList = shape?.isListSchema() ?? false;
    const element = isList ? shape!.getValueSchema() : undefined;
    const isFlat = isEc2 || (isList && Boolean(traitsOf(shape!).xmlFlattened));
    const base = isFlat ? path : join((element && nameTrait(element, 'xmlName')) ?? 'member');
    if (value.length === 0 && !isEc2) pairs.push([path, '']);
    for (const [index, item] of value.entries()) flatten(pairs, `${base}.${index + 1}`, item, element, isEc2);
  } else if (isPlain(value) && shape?.isMapSchema()) {
    Object.entries(value).forEach(([key, item], index) => {
      const entry = `${join('entry')}.${index + 1}`;
      pairs.push([`${entry}.key`, key]);
      flatten(pairs, `${entry}.value`, item, shape.getValueSchema(), isEc2);
    });
  } else if (isPlain(value)) {
    const members = shape?.isStructSchema() ? shape.getMemberSchemas() : {};
    for (const [name, item] of Object.entries(value)) {
      const member = Object.hasOwn(members, name) ? members[name] : undefined;
      flatten(pairs, join(member ? parameterName(name, member, isEc2) : name), item, member, isEc2);
    }
  } else if (value !== null && value !== undefined) pairs.push([path, scalar(value)]);
}

function parameterName(name: string, member: Shape, isEc2: boolean): string {
  const ec2Name = isEc2 ? nameTrait(member, 'ec2QueryName') : undefined;
  const xmlName = ec2Name ?? nameTrait(member, 'xmlName') ?? name;
  return isEc2 && !ec2Name ? xmlName[0]!.toUpperCase() + xmlName.slice(1) : xmlName;
}

function writeRest(schema: StaticOperationSchema, input: Input): Unsigned {
  const [method, template] = (schema[3] as unknown as { http: [string, string] }).http;
  let path = template;
  const query: Array<[string, string]> = [];
  const headers: Record<string, string> = {};
  const members: Input = {};
  let payload: Buffer | undefined;
  const shapes = shapeOf(schema[4]).getMemberSchemas();
  for (const [name, value] of Object.entries(input)) {
    const member = Object.hasOwn(shapes, name) ? shapes[name] : undefined;
    const traits = member ? traitsOf(member) : {};
    const header = member && nameTrait(member, 'httpHeader');
    const parameter = member && nameTrait(member, 'httpQuery');
    if (traits.httpLabel) path = path.replace(`{${name}}`, () => encoded(json(value).replace(/^"|"$/g, '')));
    else if (header) headers[header.toLowerCase()] = headerText(scalar(value));
    else if (parameter) query.push([parameter, scalar(value).toWellFormed()]);
    else if (traits.httpPayload) payload = value instanceof Uint8Array ? Buffer.from(value) : Buffer.from(json(value));
    else members[name] = value;
  }
  path = path.replace(/\{\w+\}/g, '');
  const hasBody = method !== 'GET';
  return { method, path, query, headers, body: payload ?? Buffer.from(hasBody ? json(members) : '') };
}

/** What HTTP lets stand in a header's value. */
const headerText = (text: string) =>
  text
    .replace(/[^\x20-\x7e]/g, '')
    .trim()
    .slice(0, 8000);

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** As a client puts it on the wire, signed. */
export async function sign(
  { method, path, query, headers, body }: Unsigned,
  as: { readonly credentials: Credentials; readonly region: string; readonly service: string; readonly date: Date },
): Promise<WireRequest> {
  const { service, region, credentials, date } = as;
  const signer = new SignatureV4({ service, region, credentials, sha256: Sha256 });
  const parameters: Record<string, string[]> = {};
  for (const [name, value] of query) parameters[name] = [...(parameters[name] ?? []), value];
  const signed = await signer.sign(
    {
      method,
      path,
      protocol: 'http:',
      hostname: '127.0.0.1',
      query: parameters,
      headers: { host: 'coffer', ...headers },
      body,
    },
    { signingDate: date },
  );
  return {
    method,
    path,
    query: query.map(([name, value]) => `${escaped(name)}=${escaped(value)}`).join('&'),
    headers: new Map(Object.entries(signed.headers).map(([name, value]) => [name.toLowerCase(), value])),
    body,
  };
}

/** As signatures want it. Source: IAM user guide, "Create a signed AWS API request", UriEncode. */
const escaped = (text: string) =>
  encodeURIComponent(text).replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);

/** The hash that SignatureV4 asks for, on Node's own. */
class Sha256 {
  readonly #hash: Hash | Hmac;
  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#hash = secret === undefined ? createHash('sha256') : createHmac('sha256', secret as Uint8Array);
  }
  update(data: string | ArrayBuffer | ArrayBufferView): void {
    this.#hash.update(data as Uint8Array);
  }
  async digest(): Promise<Uint8Array> {
    return this.#hash.digest();
  }
  reset(): void {
    throw new Error('a hash is used once');
  }
}
