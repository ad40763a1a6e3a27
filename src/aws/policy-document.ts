/**
 * The grammar that all policy documents share: elements, their forms, and which exclude each other. What a kind of policy
 * asks for beyond that is its service's business, and so are the words of a refusal.
 * Source: IAM user guide, "Grammar of the IAM JSON policy language".
 */
import type { AwsError } from './errors.ts';
import type { PolicyDocument, PolicyStatement } from './service.ts';

/** What may be wrong with a document. */
export type PolicyFault =
  | 'json'
  | 'repeated'
  | 'document'
  | 'documentElement'
  | 'version'
  | 'id'
  | 'noStatement'
  | 'statement'
  | 'statementElement'
  | 'effect'
  | 'sid'
  | 'both'
  | 'strings'
  | 'condition';

const documentElements = ['Version', 'Id', 'Statement'];
const statementElements = [
  'Sid',
  'Effect',
  'Principal',
  'NotPrincipal',
  'Action',
  'NotAction',
  'Resource',
  'NotResource',
  'Condition',
];
const versions: readonly unknown[] = [undefined, '2012-10-17', '2008-10-17'];

/**
 * Reads a policy document. `Principal` may still be anything (see `principalFault`), and no element but `Effect` need be
 * there.
 * @param refusal the service's error for a fault; `element` names what it is about, where that is one of several
 * @throws {AwsError} what `refusal` makes
 */
export function parsePolicyDocument(
  text: string,
  refusal: (fault: PolicyFault, element: string) => AwsError,
): { document: PolicyDocument; statements: readonly PolicyStatement[] } {
  const require = (isRight: boolean, fault: PolicyFault, element = '') => {
    if (!isRight) throw refusal(fault, element);
  };
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    throw refusal('json', '');
  }
  require(namesIn(text) === membersOf(document), 'repeated');
  if (!isObject(document)) throw refusal('document', '');
  const other = otherThan(documentElements, document);
  require(other === undefined, 'documentElement', other);
  require(versions.includes(document.Version), 'version');
  require(document.Id === undefined || typeof document.Id === 'string', 'id');
  const statements = listOf(document.Statement);
  require(statements.length > 0, 'noStatement');
  for (const statement of statements) {
    if (!isObject(statement)) throw refusal('statement', '');
    const unknown = otherThan(statementElements, statement);
    require(unknown === undefined, 'statementElement', unknown);
    require(statement.Effect === 'Allow' || statement.Effect === 'Deny', 'effect');
    require(statement.Sid === undefined || typeof statement.Sid === 'string', 'sid');
    for (const name of ['Principal', 'Action', 'Resource'])
      require(statement[name] === undefined || statement[`Not${name}`] === undefined, 'both', name);
    for (const name of ['Action', 'NotAction', 'Resource', 'NotResource'])
      require(statement[name] === undefined || isStrings(statement[name]), 'strings', name);
    require(isCondition(statement.Condition), 'condition');
  }
  return { document: document as unknown as PolicyDocument, statements: statements as readonly PolicyStatement[] };
}

/** How many members the objects of a JSON text name. Where a name comes twice, of its values only the last is read. */
function namesIn(json: string): number {
  let count = 0;
  for (const [, colon] of json.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?/g)) if (colon) count++;
  return count;
}

/** How many members there are in a value, at any depth, which is the caller's choice. */
function membersOf(value: unknown): number {
  let count = 0;
  for (const open = [value]; open.length > 0; ) {
    const each = open.pop();
    if (typeof each !== 'object' || each === null) continue;
    const inside = Object.values(each);
    if (!Array.isArray(each)) count += inside.length;
    for (const one of inside) open.push(one);
  }
  return count;
}

/** Operators, each with condition keys, each with one value or several. */
function isCondition(condition: unknown): boolean {
  if (condition === undefined) return true;
  const isValue = (value: unknown) => ['string', 'number', 'boolean'].includes(typeof value);
  return (
    isObject(condition) &&
    Object.values(condition).every(
      (keys) => isObject(keys) && Object.values(keys).every((values) => [values].flat().every(isValue)),
    )
  );
}

const awsPrincipal =
  /^(?:\*|\d{12}|A(?:ID|RO)A[A-Z0-9]{12,124}(?::[\w+=,.@-]+)?|arn:aws[a-z-]*:(?:iam::\d{12}:(?:root|(?:user|role)\/[\w+=,.@/-]+)|sts::\d{12}:(?:assumed-role|federated-user)\/[\w+=,.@:/-]+))$/;
const principalKinds = ['AWS', 'Service', 'Federated', 'CanonicalUser'];

/**
 * What is wrong with a `Principal` or `NotPrincipal`: its form, or one of the names under `AWS`; undefined when nothing is.
 * Source: IAM user guide, "AWS JSON policy elements: Principal".
 */
export function principalFault(element: unknown): 'form' | { readonly name: string } | undefined {
  if (element === '*') return undefined;
  if (!isObject(element) || Object.keys(element).length === 0) return 'form';
  for (const [kind, names] of Object.entries(element)) {
    if (!isStrings(names) || names.length === 0 || !principalKinds.includes(kind)) return 'form';
    const wrong = kind === 'AWS' ? strings(names).find((name) => !awsPrincipal.test(name)) : undefined;
    if (wrong !== undefined) return { name: wrong };
  }
  return undefined;
}

/** The strings of an element that is one, a list of them, or absent. */
export function strings(element: string | readonly string[] | undefined): readonly string[] {
  if (element === undefined) return [];
  return typeof element === 'string' ? [element] : element;
}

export function isStrings(value: unknown): value is string | readonly string[] {
  return typeof value === 'string' || (Array.isArray(value) && value.every((item) => typeof item === 'string'));
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function listOf(value: unknown): readonly unknown[] {
  if (value === undefined || value === null) return [];
  return Array.isArray(value) ? value : [value];
}

function otherThan(names: readonly string[], object: object): string | undefined {
  return Object.keys(object).find((name) => !names.includes(name));
}
