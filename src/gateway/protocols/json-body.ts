/**
 * JSON bodies, read and written by schema. Writing is the SDK's own serializer. Reading is ours, because the SDK's reader
 * trusts its server: it checks no types, and a server must.
 */

import { isUtf8 } from 'node:buffer';
import { JsonCodec } from '@aws-sdk/core/protocols';
import { parseRfc3339DateTimeWithOffset, parseRfc7231DateTime } from '@smithy/core/serde';
import { AwsError } from '../../aws/errors.ts';
import { isFractional, nameTrait, type Shape, setKey, shapeOf } from './shapes.ts';

/** Timestamp formats in the SDK's numbering: 5 date-time, 6 http-date, 7 seconds since the epoch. */
const dateTime = 5;
const httpDate = 6;
const epochSeconds = 7;
/** The largest distance from the epoch that a Date can hold, ms (ECMAScript, "Time Values"). */
const dateMaxMs = 8.64e15;

const serializers = {
  memberNames: newSerializer(false),
  jsonNames: newSerializer(true),
};

function newSerializer(jsonName: boolean) {
  const codec = new JsonCodec({ timestampFormat: { useTrait: true, default: epochSeconds }, jsonName });
  codec.setSerdeContext({ base64Encoder: toBase64 } as never);
  return codec.createSerializer();
}

function toBase64(value: Uint8Array | string): string {
  return typeof value === 'string'
    ? Buffer.from(value, 'utf8').toString('base64')
    : Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64');
}

/** `value` as JSON by `schema`; empty for an operation without output. */
export function writeJson(schema: unknown, value: unknown, names: keyof typeof serializers = 'memberNames'): string {
  const shape = shapeOf(schema);
  if (shape.isUnitSchema()) return '';
  const serializer = serializers[names];
  serializer.write(shape, value ?? {});
  return serializer.flush() as string;
}

/**
 * How deep a long body may nest. No shape goes deeper than a dozen levels, and V8 takes a tenth of a second to parse a
 * megabyte of brackets. A body shorter than this many bytes can't take long.
 */
const nestingMax = 512;
const nestingMattersBytes = 16 * 1024;

/**
 * The JSON object in a body; an empty body counts as an empty object.
 * @throws {AwsError} SerializationException when it isn't UTF-8, isn't JSON or isn't an object
 */
export function parseJsonObject(body: Buffer): Record<string, unknown> {
  if (body.length === 0) return {};
  if (!isUtf8(body)) throw serializationError('The request body is not valid UTF-8.');
  if (body.length > nestingMattersBytes && nestsDeeper(body, nestingMax))
    throw serializationError(`The request body is nested deeper than ${nestingMax} levels.`);
  let value: unknown;
  try {
    value = JSON.parse(body.toString('utf8'));
  } catch {
    throw serializationError('The request body is not valid JSON.');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw serializationError(`The request body must be a JSON object, not ${tokenOf(value)}.`);
  return value as Record<string, unknown>;
}

const [quote, backslash, openBracket, closeBracket, openBrace, closeBrace] = Buffer.from('"\\[]{}');

/** Whether JSON text has more brackets and braces open at a time than `max`, those within strings left out. */
function nestsDeeper(text: Buffer, max: number): boolean {
  let depth = 0;
  let isInString = false;
  for (let at = 0; at < text.length; at++) {
    const byte = text[at];
    if (isInString) {
      if (byte === backslash) at++;
      else if (byte === quote) isInString = false;
    } else if (byte === quote) isInString = true;
    else if (byte === openBracket || byte === openBrace) {
      if (++depth > max) return true;
    } else if (byte === closeBracket || byte === closeBrace) depth--;
  }
  return false;
}

/**
 * Reads `value` (from JSON.parse) as `schema` says: blobs become bytes, timestamps Dates, unknown members go.
 * @throws {AwsError} SerializationException when a type differs
 */
export function readJson(schema: unknown, value: object): object {
  const shape = shapeOf(schema);
  if (shape.isUnitSchema()) return {};
  return readerOf(shape)(value, '') as object;
}

/** `path` is where `value` stands, for the error's text. */
type Reader = (value: unknown, path: string) => unknown;

const structureReaders = new WeakMap<object, Reader>();

function readerOf(shape: Shape): Reader {
  if (shape.isStructSchema()) {
    const schema = shape.getSchema() as object;
    let reader = structureReaders.get(schema);
    if (!reader) {
      reader = structureReader(shape);
      structureReaders.set(schema, reader);
    }
    return reader;
  }
  if (shape.isListSchema()) return listReader(shape);
  if (shape.isMapSchema()) return mapReader(shape);
  return scalarReader(shape);
}

function structureReader(shape: Shape): Reader {
  // Made on first use: structures may contain themselves.
  let members: Array<{ name: string; wireName: string; read: Reader }> | undefined;
  return (value, path) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrongType(value, 'Structure', path);
    members ??= [...shape.structIterator()].map(([name, member]) => ({
      name,
      wireName: nameTrait(member, 'jsonName') ?? name,
      read: member.isNumericSchema() && isFractional(shape, name) ? readNumber : readerOf(member),
    }));
    const source = value as Record<string, unknown>;
    const result: Record<string, unknown> = {};
    for (const { name, wireName, read } of members) {
      if (!Object.hasOwn(source, wireName)) continue;
      const member = source[wireName];
      if (member !== null) result[name] = read(member, path === '' ? wireName : `${path}.${wireName}`);
    }
    return result;
  };
}

function listReader(shape: Shape): Reader {
  const read = lazyReader(() => shape.getValueSchema());
  return (value, path) => {
    if (!Array.isArray(value)) throw wrongType(value, 'List', path);
    return value.filter((element) => element !== null).map((element, index) => read(element, `${path}[${index}]`));
  };
}

function mapReader(shape: Shape): Reader {
  const read = lazyReader(() => shape.getValueSchema());
  return (value, path) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrongType(value, 'Map', path);
    const result: Record<string, unknown> = {};
    for (const [key, element] of Object.entries(value))
      if (element !== null) setKey(result, key, read(element, `${path}.${key}`));
    return result;
  };
}

function lazyReader(shape: () => Shape): Reader {
  let reader: Reader | undefined;
  return (value, path) => (reader ??= readerOf(shape()))(value, path);
}

function scalarReader(shape: Shape): Reader {
  if (shape.isStringSchema()) return readString;
  if (shape.isBooleanSchema()) return readBoolean;
  if (shape.isNumericSchema()) return readInteger;
  if (shape.isBlobSchema()) return readBlob;
  if (shape.isTimestampSchema()) return timestampReader(shape.getSchema() as number);
  if (shape.isDocumentSchema()) return (value) => value;
  throw new Error(`no reader for ${shape.getName(true)} in JSON`);
}

const readString: Reader = (value, path) => {
  if (typeof value !== 'string') throw wrongType(value, 'String', path);
  return value;
};

const readBoolean: Reader = (value, path) => {
  if (typeof value !== 'boolean') throw wrongType(value, 'Boolean', path);
  return value;
};

const readNumber: Reader = (value, path) => {
  if (typeof value !== 'number' || !Number.isFinite(value)) throw wrongType(value, 'Number', path);
  return value;
};

const readInteger: Reader = (value, path) => {
  if (!Number.isSafeInteger(value)) throw wrongType(value, 'Integer', path);
  return value;
};

const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

const readBlob: Reader = (value, path) => {
  if (typeof value !== 'string') throw wrongType(value, 'Blob', path);
  if (!base64.test(value)) throw serializationError(`The value of ${path} is not valid base64.`);
  // Memory of its own, not of Buffer's pool, so that whoever wipes it wipes the only copy.
  const bytes = Buffer.allocUnsafeSlow(Buffer.byteLength(value, 'base64'));
  bytes.write(value, 'base64');
  return bytes;
};

function timestampReader(format: number): Reader {
  if (format === dateTime || format === httpDate) {
    const parse = format === dateTime ? parseRfc3339DateTimeWithOffset : parseRfc7231DateTime;
    return (value, path) => {
      try {
        return parse(value);
      } catch {
        throw wrongType(value, 'Timestamp', path);
      }
    };
  }
  return (value, path) => {
    if (typeof value !== 'number' || Math.abs(value * 1000) > dateMaxMs) throw wrongType(value, 'Timestamp', path);
    return new Date(Math.round(value * 1000));
  };
}

export function serializationError(message: string): AwsError {
  return new AwsError('SerializationException', message);
}

/** Worded as AWS words it ("STRING_VALUE cannot be converted to Integer"), and says where. */
function wrongType(value: unknown, wanted: string, path: string): AwsError {
  return serializationError(`${tokenOf(value)} cannot be converted to ${wanted}${path === '' ? '' : ` at ${path}`}`);
}

function tokenOf(value: unknown): string {
  if (value === null) return 'NULL_VALUE';
  if (Array.isArray(value)) return 'START_ARRAY';
  switch (typeof value) {
    case 'string':
      return 'STRING_VALUE';
    case 'number':
      return Number.isInteger(value) ? 'NUMBER_VALUE' : 'DECIMAL_VALUE';
    case 'boolean':
      return value ? 'TRUE_VALUE' : 'FALSE_VALUE';
    default:
      return 'START_OBJECT';
  }
}
