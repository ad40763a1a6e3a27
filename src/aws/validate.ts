/**
 * Constraints on request members, and the sentence that AWS services answer with when some are not met:
 *
 *     2 validation errors detected: Value null at 'keyId' failed to satisfy constraint: Member must not be null; …
 *
 * The SDK's schemas carry names and types but no lengths, patterns or enum values, so each operation states them here,
 * from its API reference page. A member of the wrong JSON type is a SerializationException, as AWS has it.
 */
import { AwsError } from './errors.ts';

/** Adds to `problems` what is wrong with `value`, which stands at `path`; the value is present. */
type Check = (value: unknown, path: string, problems: string[]) => void;

export interface Constraint {
  readonly check: Check;
  readonly required?: boolean;
}

/** How much of a refused value a message repeats, in characters. */
const shownMax = 1024;

/**
 * @throws {AwsError} ValidationException naming every constraint that is not met, or SerializationException for a member
 * of the wrong type
 */
export function validate(input: unknown, shape: Constraint): void {
  const problems: string[] = [];
  if (!isObject(input)) throw wrongType(input, 'structure');
  shape.check(input, '', problems);
  if (problems.length === 0) return;
  const errors = problems.length === 1 ? 'error' : 'errors';
  throw new AwsError('ValidationException', `${problems.length} validation ${errors} detected: ${problems.join('; ')}`);
}

/** The same constraint on a member that must be there. */
export function required(constraint: Constraint): Constraint {
  return { ...constraint, required: true };
}

/** A structure with these members (API names; members not named are ignored). */
export function structure(members: Readonly<Record<string, Constraint>>): Constraint {
  const entries = Object.entries(members).map(([name, constraint]) => ({ name, label: lowerCamel(name), constraint }));
  return {
    check(value, path, problems) {
      if (!isObject(value)) throw wrongType(value, 'structure');
      const prefix = path === '' ? '' : `${path}.`;
      for (const { name, label, constraint } of entries) {
        const member = (value as Record<string, unknown>)[name];
        if (member !== undefined && member !== null) constraint.check(member, prefix + label, problems);
        else if (constraint.required)
          problems.push(`Value null at '${prefix}${label}' failed to satisfy constraint: Member must not be null`);
      }
    },
  };
}

/** A string, its length in UTF-16 units. `secret` keeps the value out of the message. */
export function text(rules: { min?: number; max?: number; pattern?: RegExp; secret?: boolean } = {}): Constraint {
  const pattern = rules.pattern && new RegExp(`^(?:${rules.pattern.source})$`, rules.pattern.flags);
  return {
    check(value, path, problems) {
      if (typeof value !== 'string') throw wrongType(value, 'String');
      const shown = rules.secret ? undefined : value;
      checkLength(value.length, rules, shown, path, problems);
      if (pattern && !pattern.test(value))
        fail(shown, path, `Member must satisfy regular expression pattern: ${rules.pattern!.source}`, problems);
    },
  };
}

/** One of these strings. */
export function oneOf(values: readonly string[]): Constraint {
  return {
    check(value, path, problems) {
      if (typeof value !== 'string') throw wrongType(value, 'String');
      if (!values.includes(value)) fail(value, path, enumSentence(values), problems);
    },
  };
}

export function integer(rules: { min?: number; max?: number } = {}): Constraint {
  return {
    check(value, path, problems) {
      if (typeof value !== 'number' || !Number.isInteger(value)) throw wrongType(value, 'Integer');
      if (rules.max !== undefined && value > rules.max)
        fail(String(value), path, `Member must have value less than or equal to ${rules.max}`, problems);
      if (rules.min !== undefined && value < rules.min)
        fail(String(value), path, `Member must have value greater than or equal to ${rules.min}`, problems);
    },
  };
}

export function boolean(): Constraint {
  return {
    check(value) {
      if (typeof value !== 'boolean') throw wrongType(value, 'Boolean');
    },
  };
}

/** A point in time, already decoded; never the `Invalid Date`. */
export function timestamp(): Constraint {
  return {
    check(value) {
      if (!(value instanceof Date) || Number.isNaN(value.getTime())) throw wrongType(value, 'Timestamp');
    },
  };
}

/** Bytes, already decoded from base64; never shown in a message. */
export function blob(rules: { min?: number; max?: number } = {}): Constraint {
  return {
    check(value, path, problems) {
      if (!(value instanceof Uint8Array)) throw wrongType(value, 'Blob');
      checkLength(value.length, rules, undefined, path, problems);
    },
  };
}

/** A list of members that each meet `member`. */
export function list(member: Constraint, rules: { min?: number; max?: number } = {}): Constraint {
  return {
    check(value, path, problems) {
      if (!Array.isArray(value)) throw wrongType(value, 'List');
      checkLength(value.length, rules, listText(value), path, problems);
      value.forEach((item, index) => {
        if (item === null || item === undefined) throw wrongType(item, 'list member');
        member.check(item, `${path}.${index + 1}.member`, problems);
      });
    },
  };
}

/** A list of enum values; AWS words a wrong one about the list as a whole. */
export function listOf(values: readonly string[], rules: { min?: number; max?: number } = {}): Constraint {
  return {
    check(value, path, problems) {
      if (!Array.isArray(value)) throw wrongType(value, 'List');
      for (const item of value) if (typeof item !== 'string') throw wrongType(item, 'String');
      checkLength(value.length, rules, listText(value), path, problems);
      if (!value.every((item) => values.includes(item)))
        fail(listText(value), path, `Member must satisfy constraint: [${enumSentence(values)}]`, problems);
    },
  };
}

/** A map from string to string. */
export function textMap(): Constraint {
  return {
    check(value) {
      if (!isObject(value)) throw wrongType(value, 'Map');
      for (const item of Object.values(value)) if (typeof item !== 'string') throw wrongType(item, 'String');
    },
  };
}

function checkLength(
  length: number,
  rules: { min?: number; max?: number },
  shown: string | undefined,
  path: string,
  problems: string[],
): void {
  if (rules.max !== undefined && length > rules.max)
    fail(shown, path, `Member must have length less than or equal to ${rules.max}`, problems);
  if (rules.min !== undefined && length < rules.min)
    fail(shown, path, `Member must have length greater than or equal to ${rules.min}`, problems);
}

function fail(shown: string | undefined, path: string, constraint: string, problems: string[]): void {
  const value = shown === undefined ? '' : ` '${shown.length > shownMax ? `${shown.slice(0, shownMax)}…` : shown}'`;
  problems.push(`Value${value} at '${path}' failed to satisfy constraint: ${constraint}`);
}

const enumSentence = (values: readonly string[]) => `Member must satisfy enum value set: [${values.join(', ')}]`;
const listText = (value: readonly unknown[]) => `[${value.filter((item) => typeof item === 'string').join(', ')}]`;
const lowerCamel = (name: string) => name.charAt(0).toLowerCase() + name.slice(1);

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);
}

function wrongType(value: unknown, wanted: string): AwsError {
  const kind = value === null || value === undefined ? 'NULL' : Array.isArray(value) ? 'LIST' : typeof value;
  return new AwsError('SerializationException', `${kind.toUpperCase()}_VALUE can not be converted to a ${wanted}`);
}
