/**
 * Inputs for operations: made up by the SDK's schema of the operation, or a valid input with something about it changed.
 * Nothing here knows any operation by name; what exists in the world comes from valid inputs.
 */
import type { StaticOperationSchema } from '@smithy/types';
import { type Shape, shapeOf } from '../../../src/gateway/protocols/shapes.ts';
import {
  hostileBytes,
  hostileDate,
  hostileNumber,
  hostileString,
  lookalike,
  policyText,
  RawJson,
  wrongType,
} from './hostile.ts';
import type { Random } from './random.ts';

/** A JSON object with bytes and dates, as handlers get them; what is hostile in it may have any form. */
export type Input = Record<string, unknown>;

/** What exists, by the name of the member that it was seen as; and the values that the SDK lists for enumerations. */
export class Pool {
  readonly #byName = new Map<string, unknown[]>();
  readonly #all: string[] = [];
  readonly #enumerations: ReadonlyMap<string, readonly string[]>;

  /** @param sdks the SDK's client packages */
  constructor(sdks: readonly object[]) {
    this.#enumerations = new Map(
      sdks.flatMap((sdk) =>
        Object.entries(sdk).flatMap(([name, value]) => {
          const isEnumeration =
            typeof value === 'object' && value !== null && Object.values(value).every((one) => typeof one === 'string');
          return isEnumeration && Object.keys(value).length > 0 ? [[name, Object.values<string>(value)] as const] : [];
        }),
      ),
    );
  }

  /** Remembers every value of an input or an output. */
  learn(value: unknown, name = ''): void {
    if (Array.isArray(value)) for (const item of value.slice(0, 20)) this.learn(item, name);
    else if (isPlain(value)) for (const [key, item] of Object.entries(value)) this.learn(item, key);
    else if ((typeof value === 'string' && value !== '' && value.length <= 2048) || value instanceof Uint8Array) {
      const known = this.#byName.get(name) ?? [];
      if (known.length < 200) this.#byName.set(name, [...known, value]);
      if (typeof value === 'string' && this.#all.length < 5000) this.#all.push(value);
    }
  }

  /** Something that exists and might be meant by `name`; undefined when nothing is known. */
  find(random: Random, name: string): unknown {
    const own = this.#byName.get(name) ?? this.#byName.get(name.replace(/s$/, ''));
    const values = this.#enumerations.get(name) ?? this.#enumerations.get(`${name}Type`) ?? [];
    if (own && (values.length === 0 || random.oneIn(2))) return random.pick(own);
    return values.length > 0 ? random.pick(values) : undefined;
  }

  /** Any text that exists somewhere, whatever it is. */
  any(random: Random): string {
    return this.#all.length > 0 ? random.pick(this.#all) : '';
  }
}

export interface Model {
  readonly schema: StaticOperationSchema | undefined;
  /** A valid input. */
  readonly example: Input | undefined;
}

export function makeInput(random: Random, pool: Pool, { schema, example }: Model): Input {
  const shape = schema && shapeOf(schema[4]);
  const structure = shape?.isStructSchema() ? shape : undefined;
  if (structure && (!example || random.oneIn(4))) return structureOf(random, pool, structure, 4);
  const input = copyOf(example ?? {}) as Input;
  for (
    let changes = random.weighted([
      [5, 1],
      [3, 2],
      [1, 3],
      [0.3, 6],
    ]);
    changes > 0;
    changes--
  )
    change(random, pool, input, structure);
  return input;
}

/** Changes one thing about an object, or about something in it. */
function change(random: Random, pool: Pool, target: Input, shape: Shape | undefined): void {
  const present = Object.keys(target);
  const name = present.length > 0 ? random.pick(present) : undefined;
  const value = name === undefined ? undefined : target[name];
  const member = name === undefined ? undefined : memberOf(shape, name);
  if (name !== undefined && isPlain(value) && Object.keys(value).length > 0 && random.oneIn(2)) {
    change(random, pool, value, member?.isStructSchema() ? member : undefined);
    return;
  }
  if (name !== undefined && Array.isArray(value) && value.length > 0 && random.oneIn(2)) {
    changeList(random, pool, value, name, member);
    return;
  }
  const known = shape ? [...shape.structIterator()] : [];
  random.weighted<() => void>([
    [2, () => name !== undefined && delete target[name]],
    [2, () => name !== undefined && set(target, name, wrongType(random))],
    [6, () => name !== undefined && set(target, name, another(random, pool, name, value, member))],
    [
      known.length > 0 ? 5 : 0.5,
      () => {
        if (known.length === 0) return set(target, hostileString(random), wrongType(random));
        const [added, addedShape] = random.pick(known);
        return set(target, added, valueFor(random, pool, added, addedShape, 3));
      },
    ],
    [0.3, () => name !== undefined && set(target, name.toLowerCase(), value)],
  ])();
}

function changeList(random: Random, pool: Pool, list: unknown[], name: string, shape: Shape | undefined): void {
  const at = random.below(list.length);
  const item = list[at];
  const element = shape?.isListSchema() ? shape.getValueSchema() : undefined;
  random.weighted<() => void>([
    [2, () => void list.push(copyOf(item))],
    [1, () => void list.push(...copies(item, random.pick([20, 50, 101, 1001, 3000])))],
    [1, () => list.splice(0)],
    [1, () => void list.push(wrongType(random))],
    [3, () => void list.push(another(random, pool, name, item, element))],
    [
      4,
      () => {
        if (isPlain(item)) change(random, pool, item, element?.isStructSchema() ? element : undefined);
        else list[at] = another(random, pool, name, item, element);
      },
    ],
  ])();
}

/** Another value in the place of one, mostly of the same type. */
function another(random: Random, pool: Pool, name: string, value: unknown, shape: Shape | undefined): unknown {
  if (shape) return valueFor(random, pool, name, shape, 3);
  if (typeof value === 'string') return text(random, pool, name, value);
  if (typeof value === 'number') return hostileNumber(random);
  if (typeof value === 'boolean') return !value;
  if (value instanceof Uint8Array) return bytes(random, pool, name);
  if (Array.isArray(value)) return Array.from({ length: random.below(4) }, () => text(random, pool, name));
  return wrongType(random);
}

function structureOf(random: Random, pool: Pool, shape: Shape, depth: number): Input {
  const input: Input = {};
  const members = [...shape.structIterator()];
  // Operations with dozens of members would refuse all but a few combinations at once.
  const chance = Math.min(0.6, 5 / Math.max(1, members.length));
  for (const [name, member] of members) {
    const isNested = member.isStructSchema() || member.isListSchema() || member.isMapSchema();
    if (random.next() < chance && !(isNested && depth <= 0))
      set(input, name, valueFor(random, pool, name, member, depth - 1));
  }
  return input;
}

function valueFor(random: Random, pool: Pool, name: string, shape: Shape, depth: number): unknown {
  if (random.oneIn(25)) return wrongType(random);
  if (shape.isStructSchema()) return structureOf(random, pool, shape, depth);
  if (shape.isListSchema()) return listOf(random, pool, name, shape.getValueSchema(), depth);
  if (shape.isMapSchema()) {
    const entries = Array.from({ length: random.pick([0, 1, 2, 3, 12]) }, () => [
      text(random, pool, name),
      valueFor(random, pool, name, shape.getValueSchema(), depth - 1),
    ]);
    return Object.fromEntries(entries);
  }
  if (shape.isBooleanSchema()) return random.oneIn(2);
  if (shape.isNumericSchema()) return hostileNumber(random);
  if (shape.isBlobSchema()) return bytes(random, pool, name);
  if (shape.isTimestampSchema()) return hostileDate(random);
  return text(random, pool, name);
}

function listOf(random: Random, pool: Pool, name: string, element: Shape, depth: number): unknown[] {
  const length = random.weighted([
    [2, 0],
    [5, 1],
    [4, 2],
    [2, 3],
    [0.3, 60],
    [0.1, 1001],
  ]);
  if (length < 10) return Array.from({ length }, () => valueFor(random, pool, name, element, depth - 1));
  const item = valueFor(random, pool, name, element, depth - 1);
  return random.oneIn(2) ? copies(item, length) : Array.from({ length }, (_, index) => numbered(item, index));
}

/** What no body is longer than. */
const copiedMax = 2 ** 20;

/** The same again and again, as often as a body has room for it. */
function copies(item: unknown, count: number): unknown[] {
  const size = JSON.stringify(item)?.length ?? 1;
  return Array(Math.min(count, Math.ceil(copiedMax / size))).fill(item);
}

/** The same text with a number behind, so that a list's elements differ. */
function numbered(item: unknown, index: number): unknown {
  if (typeof item === 'string') return `${item.slice(0, 200)}${index}`;
  if (!isPlain(item)) return item;
  return Object.fromEntries(Object.entries(item).map(([name, value]) => [name, numbered(value, index)]));
}

function text(random: Random, pool: Pool, name: string, before?: string): string {
  const real = () => {
    const found = pool.find(random, name);
    return typeof found === 'string' ? found : (before ?? pool.any(random));
  };
  return random.weighted<() => string>([
    [9, real],
    [3, () => lookalike(random, real())],
    [1, () => pool.any(random)],
    [5, () => hostileString(random)],
    [/Policy|Document/.test(name) ? 6 : 0, () => policyText(random)],
  ])();
}

function bytes(random: Random, pool: Pool, name: string): Uint8Array {
  const found = pool.find(random, name);
  if (!(found instanceof Uint8Array) || random.oneIn(2)) return hostileBytes(random);
  const changed = Buffer.from(found);
  if (changed.length === 0 || random.oneIn(3)) return changed;
  changed[random.below(changed.length)]! ^= 1 << random.below(8);
  return random.oneIn(3) ? changed.subarray(0, random.below(changed.length)) : changed;
}

function memberOf(shape: Shape | undefined, name: string): Shape | undefined {
  return shape?.isStructSchema() ? shape.getMemberSchemas()[name] : undefined;
}

/** Also sets what is named like something that every object has. */
function set(target: Input, name: string, value: unknown): void {
  Object.defineProperty(target, name, { value, enumerable: true, configurable: true, writable: true });
}

export function isPlain(value: unknown): value is Input {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof Uint8Array) &&
    !(value instanceof Date) &&
    !(value instanceof RawJson)
  );
}

function copyOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(copyOf);
  if (!isPlain(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, copyOf(item)]));
}
