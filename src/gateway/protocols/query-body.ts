/**
 * Form bodies of the query protocols, read by schema: the reverse of the SDK's QueryShapeSerializer.
 * `Filter.1.Name=tag:K&Filter.1.Value.1=V` becomes {Filters: [{Name: 'tag:K', Values: ['V']}]}.
 * Sources: Smithy, "AWS Query protocol" and "AWS EC2 Query protocol".
 */
import { parseRfc3339DateTimeWithOffset } from '@smithy/core/serde';
import { AwsError } from '../../aws/errors.ts';
import { isFractional, nameTrait, type Shape, setKey, shapeOf, traitsOf } from './shapes.ts';

/** Bounds of one request. AWS's own clients stay far below (a thousand ids in a call). */
const parametersMax = 20_000;
/** Parts of all names together: `Filter.1.Value.1` has four. */
const partsMax = 60_000;
const nestingMax = 16;

export interface QueryStyle {
  /** ec2Query: `ec2QueryName`, capitalized names, all lists flattened. */
  readonly isEc2: boolean;
}

/** Parameters as a tree: `A.B.1=x` is the value `x` at A → B → 1. */
export class ParameterTree {
  value: string | undefined;
  /** Most have none, and there may be tens of thousands. */
  #children: Map<string, ParameterTree> | undefined;

  get children(): ReadonlyMap<string, ParameterTree> {
    return this.#children ?? none;
  }

  add(name: string, child: ParameterTree): void {
    this.#children ??= new Map();
    this.#children.set(name, child);
  }
}

const none: ReadonlyMap<string, ParameterTree> = new Map();

/**
 * The parameters of a query string and of a form body.
 * @throws {AwsError} MalformedQueryString for broken encoding, a parameter given twice, or more than the bounds above
 */
export function parseForm(...forms: readonly string[]): ParameterTree {
  const root = new ParameterTree();
  let count = 0;
  let parts = 0;
  for (const form of forms) {
    if (form === '') continue;
    for (const pair of form.split('&')) {
      if (pair === '') continue;
      if (++count > parametersMax) throw malformed(`The request has more than ${parametersMax} parameters.`);
      const equals = pair.indexOf('=');
      const name = decode(equals < 0 ? pair : pair.slice(0, equals));
      parts += insert(root, name, equals < 0 ? '' : decode(pair.slice(equals + 1)));
      if (parts > partsMax) throw malformed(`The names of the parameters have more than ${partsMax} parts.`);
    }
  }
  return root;
}

function decode(text: string): string {
  const spaced = text.includes('+') ? text.replace(/\+/g, ' ') : text;
  if (!spaced.includes('%')) return spaced;
  try {
    return decodeURIComponent(spaced);
  } catch {
    throw malformed('The query string contains a percent-encoding that is not valid UTF-8.');
  }
}

/** @returns how many parts the name has */
function insert(root: ParameterTree, name: string, value: string): number {
  let node = root;
  const segments = name.split('.', nestingMax + 1);
  if (segments.length > nestingMax) throw malformed(`A parameter is nested deeper than ${nestingMax} levels.`);
  for (const segment of segments) {
    let child = node.children.get(segment);
    if (!child) {
      child = new ParameterTree();
      node.add(segment, child);
    }
    node = child;
  }
  if (node.value !== undefined && node.value !== value)
    throw malformed(`The parameter ${shown(name)} is given more than once.`);
  node.value = value;
  return segments.length;
}

/**
 * Reads the input of an operation. Parameters that the schema doesn't know are left out.
 * @throws {AwsError} InvalidParameterValue for a value of the wrong type, MalformedQueryString for a list or structure
 *   that is written in no way the protocol has
 */
export function readQuery(schema: unknown, tree: ParameterTree, style: QueryStyle): object {
  const shape = shapeOf(schema);
  if (shape.isUnitSchema()) return {};
  return readStructure(shape, tree, style, '');
}

interface Member {
  readonly name: string;
  readonly shape: Shape;
  readonly isFractional: boolean;
}

const memberTables = {
  ec2: new WeakMap<object, Map<string, Member>>(),
  plain: new WeakMap<object, Map<string, Member>>(),
};

/** A structure's members by the name that they have in requests. */
function membersOf(shape: Shape, style: QueryStyle): Map<string, Member> {
  const tables = style.isEc2 ? memberTables.ec2 : memberTables.plain;
  const key = shape.getSchema() as object;
  let table = tables.get(key);
  if (!table) {
    table = new Map();
    for (const [name, member] of shape.structIterator()) {
      const entry = { name, shape: member, isFractional: isFractional(shape, name) };
      table.set(parameterName(name, member, style), entry);
    }
    tables.set(key, table);
  }
  return table;
}

function parameterName(memberName: string, member: Shape, style: QueryStyle): string {
  const ec2Name = style.isEc2 ? nameTrait(member, 'ec2QueryName') : undefined;
  if (ec2Name !== undefined) return ec2Name;
  const name = nameTrait(member, 'xmlName') ?? memberName;
  return style.isEc2 ? name[0]!.toUpperCase() + name.slice(1) : name;
}

function readStructure(shape: Shape, tree: ParameterTree, style: QueryStyle, path: string): object {
  const result: Record<string, unknown> = {};
  const members = membersOf(shape, style);
  for (const [name, child] of tree.children) {
    const member = members.get(name);
    if (!member) continue;
    const memberPath = path === '' ? name : `${path}.${name}`;
    const value =
      member.isFractional && member.shape.isNumericSchema()
        ? readNumber(scalarOf(child, memberPath), memberPath)
        : readValue(member.shape, child, style, memberPath);
    if (value !== undefined) result[member.name] = value;
  }
  return result;
}

function readValue(shape: Shape, tree: ParameterTree, style: QueryStyle, path: string): unknown {
  if (shape.isStructSchema()) {
    if (tree.value && tree.children.size === 0) throw malformed(`The parameter ${shown(path)} must have members.`);
    return readStructure(shape, tree, style, path);
  }
  if (shape.isListSchema()) return readList(shape, tree, style, path);
  if (shape.isMapSchema()) return readMap(shape, tree, style, path);
  return readScalar(shape, scalarOf(tree, path), path);
}

function readList(shape: Shape, tree: ParameterTree, style: QueryStyle, path: string): unknown[] {
  if (tree.value) throw malformed(`The parameter ${shown(path)} is a list; write ${shown(path)}.1.`);
  const element = shape.getValueSchema();
  const isFlat = style.isEc2 || Boolean(traitsOf(shape).xmlFlattened);
  const elementName = isFlat ? '' : partName(element, 'member', style);
  const items = isFlat ? tree : tree.children.get(elementName);
  if (!items) {
    if (tree.children.size === 0) return [];
    throw malformed(`The parameter ${shown(path)} is a list; write ${shown(path)}.${elementName}.1.`);
  }
  const itemsPath = isFlat ? path : `${path}.${elementName}`;
  return inOrder(items, itemsPath).map(([index, item]) => readValue(element, item, style, `${itemsPath}.${index}`));
}

function readMap(shape: Shape, tree: ParameterTree, style: QueryStyle, path: string): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  const isFlat = Boolean(traitsOf(shape).xmlFlattened);
  const entries = isFlat ? tree : tree.children.get('entry');
  if (!entries) return result;
  const valueShape = shape.getValueSchema();
  const keyName = partName(shape.getKeySchema(), 'key', style);
  const valueName = partName(valueShape, 'value', style);
  const entriesPath = isFlat ? path : `${path}.entry`;
  for (const [index, entry] of inOrder(entries, entriesPath)) {
    const entryPath = `${entriesPath}.${index}`;
    const key = entry.children.get(keyName)?.value;
    const value = entry.children.get(valueName);
    if (key === undefined || value === undefined)
      throw malformed(`The parameter ${shown(entryPath)} must have ${keyName} and ${valueName}.`);
    setKey(result, key, readValue(valueShape, value, style, `${entryPath}.${valueName}`));
  }
  return result;
}

function partName(shape: Shape, fallback: string, style: QueryStyle): string {
  const ec2Name = style.isEc2 ? nameTrait(shape, 'ec2QueryName') : undefined;
  return ec2Name ?? nameTrait(shape, 'xmlName') ?? fallback;
}

/** The numbered children in the order of their numbers. Gaps close, so a huge number costs nothing. */
function inOrder(tree: ParameterTree, path: string): Array<[number, ParameterTree]> {
  const items: Array<[number, ParameterTree]> = [];
  for (const [name, child] of tree.children) {
    if (!/^[1-9][0-9]{0,8}$/.test(name))
      throw malformed(`The parameter ${shown(`${path}.${name}`)} must be numbered from 1.`);
    items.push([Number(name), child]);
  }
  return items.sort((left, right) => left[0] - right[0]);
}

function scalarOf(tree: ParameterTree, path: string): string {
  if (tree.value === undefined) throw malformed(`The parameter ${shown(path)} takes a single value.`);
  return tree.value;
}

function readScalar(shape: Shape, text: string, path: string): unknown {
  if (shape.isStringSchema()) return text;
  if (shape.isBooleanSchema()) {
    if (text !== 'true' && text !== 'false') throw invalid(path, text, 'Parameter must be true or false.');
    return text === 'true';
  }
  if (shape.isNumericSchema()) return readInteger(text, path);
  if (shape.isTimestampSchema()) {
    try {
      return parseRfc3339DateTimeWithOffset(text);
    } catch {
      throw invalid(path, text, 'Parameter must be a timestamp such as 2030-01-31T23:59:59Z.');
    }
  }
  if (shape.isBlobSchema()) {
    if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) throw invalid(path, text, 'Parameter must be base64-encoded.');
    return new Uint8Array(Buffer.from(text, 'base64'));
  }
  throw new Error(`no reader for ${shape.getName(true)} in a query`);
}

function readInteger(text: string, path: string): number {
  const value = Number(text);
  if (!/^[+-]?[0-9]+$/.test(text) || !Number.isSafeInteger(value))
    throw invalid(path, text, 'Parameter must be an integer.');
  return value;
}

function readNumber(text: string, path: string): number {
  const value = Number(text);
  if (!/^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$/.test(text) || !Number.isFinite(value))
    throw invalid(path, text, 'Parameter must be a number.');
  return value;
}

function invalid(path: string, text: string, why: string): AwsError {
  return new AwsError(
    'InvalidParameterValue',
    `Value (${shown(text)}) for parameter ${shown(path)} is invalid. ${why}`,
  );
}

function malformed(message: string): AwsError {
  return new AwsError('MalformedQueryString', message);
}

/** Client text in an error: no longer than a line. */
function shown(text: string): string {
  return text.length <= 128 ? text : `${text.slice(0, 128)}…`;
}
