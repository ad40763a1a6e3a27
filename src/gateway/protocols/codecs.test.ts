/**
 * Every operation that the SDK has, both ways: what the SDK's own serializers write is read back by ours, and what ours
 * write is read back by the SDK's.
 */

import { Readable } from 'node:stream';
import * as cloudtrail from '@aws-sdk/client-cloudtrail';
import * as ebs from '@aws-sdk/client-ebs';
import * as ec2 from '@aws-sdk/client-ec2';
import * as kms from '@aws-sdk/client-kms';
import * as sts from '@aws-sdk/client-sts';
import {
  AwsEc2QueryProtocol,
  AwsJson1_1Protocol,
  AwsQueryProtocol,
  AwsRestJsonProtocol,
} from '@aws-sdk/core/protocols';
import { HttpResponse } from '@smithy/core/protocols';
import { fromBase64, fromUtf8, toBase64, toUtf8 } from '@smithy/core/serde';
import type { StaticOperationSchema } from '@smithy/types';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Protocol, Service } from '../../aws/service.ts';
import { fakeService } from '../testing.ts';
import { protocolHandlers } from './index.ts';
import type { WireRequest } from './protocol.ts';
import { isFractional, type Shape, shapeOf, traitsOf } from './shapes.ts';

/** What a client and a server agree on here; `isQuery` forms have no way to write an empty structure or list. */
interface Subject {
  readonly service: Service;
  // biome-ignore lint/suspicious/noExplicitAny: the SDK's protocol classes are not typed for outside use.
  readonly client: any;
  readonly isQuery: boolean;
}

function subject(name: string, protocol: Protocol, sdk: object, client: unknown): Subject {
  const service = fakeService(name, protocol, sdk, 'all', { xmlNamespace: `http://${name}.test/` });
  return { service, client, isQuery: protocol === 'awsQuery' || protocol === 'ec2Query' };
}

const options = (namespace: string) => ({
  defaultNamespace: namespace,
  errorTypeRegistries: [],
  xmlNamespace: 'http://test/',
  version: '2030-01-01',
  serviceTarget: 'Target',
});

const subjects = [
  subject('ec2', 'ec2Query', ec2, new AwsEc2QueryProtocol(options('com.amazonaws.ec2') as never)),
  subject('sts', 'awsQuery', sts, new AwsQueryProtocol(options('com.amazonaws.sts') as never)),
  subject('kms', 'awsJson1_1', kms, new AwsJson1_1Protocol(options('com.amazonaws.kms') as never)),
  subject('cloudtrail', 'awsJson1_1', cloudtrail, new AwsJson1_1Protocol(options('com.amazonaws.cloudtrail') as never)),
  subject('ebs', 'restJson1', ebs, new AwsRestJsonProtocol(options('com.amazonaws.ebs') as never)),
];

const context = {
  base64Decoder: fromBase64,
  base64Encoder: toBase64,
  utf8Decoder: fromUtf8,
  utf8Encoder: toUtf8,
  disableHostPrefix: true,
  endpoint: async () => ({ protocol: 'http:', hostname: 'localhost', path: '/' }),
};

interface SdkStream {
  transformToByteArray(): Promise<Uint8Array>;
}

/** Names that no client writes, but a reader must survive. */
const awkward = [
  '',
  ' ',
  'a b',
  '+',
  '%',
  '%41',
  '&',
  '=',
  '<b>&amp;"\'',
  ']]>',
  'ß€😀',
  '__proto__',
  'constructor',
  'x.y',
  '\n',
  '\t|',
];
const text = fc.oneof(fc.string({ unit: 'grapheme', maxLength: 12 }), fc.constantFrom(...awkward));

/** Values of a shape: any members present or not, structures nested at most `depth` deep. */
function arbitraryOf(shape: Shape, depth: number, isLabel = false): fc.Arbitrary<unknown> {
  if (shape.isStructSchema()) return structureOf(shape, depth);
  if (shape.isListSchema())
    return fc.array(arbitraryOf(shape.getValueSchema(), depth - 1), { maxLength: depth > 0 ? 3 : 0 });
  if (shape.isMapSchema())
    return fc.dictionary(text, arbitraryOf(shape.getValueSchema(), depth - 1), { maxKeys: 3, noNullPrototype: true });
  if (shape.isBooleanSchema()) return fc.boolean();
  if (shape.isNumericSchema()) return fc.maxSafeInteger();
  if (shape.isBlobSchema()) return fc.uint8Array({ maxLength: 40 });
  if (shape.isTimestampSchema())
    return fc.date({ min: new Date(0), max: new Date('2100-01-01T00:00:00Z'), noInvalidDate: true });
  return isLabel ? fc.stringMatching(/^[A-Za-z0-9:/+=%-]{1,12}$/) : text;
}

function structureOf(shape: Shape, depth: number): fc.Arbitrary<unknown> {
  const members: Record<string, fc.Arbitrary<unknown>> = {};
  const required: string[] = [];
  for (const [name, member] of shape.structIterator()) {
    const isNested = member.isStructSchema() || member.isListSchema() || member.isMapSchema();
    const { httpLabel, httpHeader, httpPayload, idempotencyToken } = traitsOf(member);
    if (isNested && depth <= 0) continue;
    if (httpLabel || httpPayload || idempotencyToken) required.push(name);
    const isFraction = member.isNumericSchema() && isFractional(shape, name);
    members[name] = isFraction
      ? fc.double({ noNaN: true, noDefaultInfinity: true })
      : arbitraryOf(member, depth - 1, Boolean(httpLabel || httpHeader));
  }
  return fc.record(members, { requiredKeys: required, noNullPrototype: true });
}

/** What is left of a value in a form that can't write emptiness. */
function withoutEmpty(value: unknown): unknown {
  if (Array.isArray(value)) {
    const items = value.map(withoutEmpty).filter((item) => item !== undefined);
    return items.length > 0 ? items : undefined;
  }
  if (typeof value !== 'object' || value === null || value instanceof Date || value instanceof Uint8Array) return value;
  const entries = Object.entries(value).map(([key, item]) => [key, withoutEmpty(item)] as const);
  const kept = entries.filter(([, item]) => item !== undefined);
  return kept.length > 0 ? Object.fromEntries(kept) : undefined;
}

/** Bytes as hexadecimal, so that Buffer and Uint8Array compare; -0 as 0, which no form keeps. */
function comparable(value: unknown): unknown {
  if (value instanceof Uint8Array) return `bytes ${Buffer.from(value).toString('hex')}`;
  if (value instanceof Date) return `date ${value.getTime()}`;
  if (Object.is(value, -0)) return 0;
  if (Array.isArray(value)) return value.map(comparable);
  if (typeof value === 'object' && value !== null)
    return Object.entries(value)
      .filter(([, item]) => item !== undefined)
      .map(([key, item]) => [key, comparable(item)])
      .sort(([left], [right]) => (String(left) < String(right) ? -1 : 1));
  return value;
}

function operationSchema([, namespace, name, traits, input, output]: StaticOperationSchema) {
  return { namespace, name, traits, input, output };
}

async function sentBySdk({ client }: Subject, schema: StaticOperationSchema, input: object): Promise<WireRequest> {
  client.setSerdeContext(context);
  const request = await client.serializeRequest(operationSchema(schema), input, context);
  const query = Object.entries((request.query ?? {}) as Record<string, string | string[]>).flatMap(([name, value]) =>
    [value].flat().map((single) => `${encodeURIComponent(name)}=${encodeURIComponent(single)}`),
  );
  return {
    method: request.method,
    path: request.path,
    query: query.join('&'),
    headers: new Map(
      Object.entries(request.headers as Record<string, string>).map(([name, value]) => [name.toLowerCase(), value]),
    ),
    body:
      typeof request.body === 'string' ? Buffer.from(request.body) : Buffer.from(Uint8Array.from(request.body ?? [])),
  };
}

async function readBySdk(
  { client }: Subject,
  schema: StaticOperationSchema,
  response: { status: number; headers: object; body: string | Uint8Array },
) {
  client.setSerdeContext(context);
  const headers = Object.fromEntries(
    Object.entries(response.headers).map(([name, value]) => [name.toLowerCase(), value]),
  );
  const bytes = Buffer.from(response.body as Uint8Array);
  const body = schema[2] === 'GetSnapshotBlock' ? Readable.from([bytes], { objectMode: false }) : bytes;
  const { $metadata, ...output } = await client.deserializeResponse(
    operationSchema(schema),
    context,
    new HttpResponse({ statusCode: response.status, headers, body }),
  );
  return output as Record<string, unknown>;
}

describe.each(subjects.map((entry) => [entry.service.name, entry] as const))('%s', (_name, entry) => {
  const handler = protocolHandlers[entry.service.protocol];
  const operations = Object.entries(entry.service.catalogue);
  const numRuns = operations.length > 500 ? 4 : 30;

  test('requests of the SDK are read as they were meant', async () => {
    for (const [name, schema] of operations) {
      const shape = shapeOf(schema[4]);
      const inputs = shape.isUnitSchema() ? fc.constant({}) : structureOf(shape, 4);
      await fc.assert(
        fc.asyncProperty(inputs, async (input) => {
          const wire = await sentBySdk(entry, schema, input as object);
          const recognized = handler.recognize(entry.service, wire);
          expect(recognized.operationName).toBe(name);
          const decoded = recognized.decode(schema);
          const meant = entry.isQuery ? (withoutEmpty(input) ?? {}) : input;
          const read = entry.isQuery ? (withoutEmpty(decoded) ?? {}) : decoded;
          expect(comparable(read)).toEqual(comparable(meant));
        }),
        { numRuns },
      );
    }
  }, 120_000);

  test('answers are read by the SDK as they were meant', async () => {
    for (const [, schema] of operations) {
      const shape = shapeOf(schema[5]);
      const outputs = shape.isUnitSchema() ? fc.constant({}) : structureOf(shape, 4);
      await fc.assert(
        fc.asyncProperty(outputs, async (output) => {
          const { BlockData, ...meant } = output as { BlockData?: Uint8Array };
          const operation = entry.service.operations[schema[2]]!;
          const response = handler.encode(entry.service, operation, output, 'request-1');
          const { BlockData: payload, ...read } = await readBySdk(entry, schema, response);
          if (BlockData) expect(await (payload as SdkStream).transformToByteArray()).toEqual(BlockData);
          const compare = entry.isQuery ? asXmlReads : (value: unknown) => value;
          expect(compare(comparable(read))).toEqual(compare(comparable(meant)));
        }),
        { numRuns },
      );
    }
  }, 120_000);
});

/** The SDK's XML reader takes text of white space alone for none. */
function asXmlReads(value: unknown): unknown {
  if (typeof value === 'string') return value.trim() === '' ? '' : value;
  if (Array.isArray(value)) return value.map(asXmlReads);
  return value;
}
