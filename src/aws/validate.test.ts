import { describe, expect, test } from 'vitest';
import { isAwsError } from './errors.ts';
import {
  blob,
  boolean,
  type Constraint,
  integer,
  list,
  listOf,
  oneOf,
  required,
  structure,
  text,
  textMap,
  validate,
} from './validate.ts';

function problem(input: unknown, shape: Constraint): { code: string; message: string } {
  try {
    validate(input, shape);
  } catch (error) {
    if (isAwsError(error)) return { code: error.code, message: error.message };
    throw error;
  }
  throw new Error('it is valid');
}

const shape = structure({
  KeyId: required(text({ min: 1, max: 8 })),
  NumberOfBytes: integer({ min: 1, max: 1024 }),
  KeySpec: oneOf(['AES_256', 'AES_128']),
  Name: text({ pattern: /[a-z]+/ }),
  Plaintext: blob({ min: 1, max: 4 }),
  Secret: text({ max: 2, secret: true }),
  Operations: listOf(['Encrypt', 'Decrypt']),
  Tags: list(structure({ TagKey: required(text({ min: 1, max: 3 })) }), { max: 2 }),
  EncryptionContext: textMap(),
  DryRun: boolean(),
});

describe('validate', () => {
  test('accepts what meets every constraint, and members it does not know', () => {
    validate(
      { KeyId: 'x', NumberOfBytes: 1024, Name: 'abc', Tags: [{ TagKey: 'a' }], EncryptionContext: { a: 'b' }, More: 1 },
      shape,
    );
    validate({ KeyId: 'x', Name: undefined, KeySpec: null }, shape);
  });

  test('answers in AWS’s words', () => {
    const cases: Array<[object, string]> = [
      [{}, "Value null at 'keyId' failed to satisfy constraint: Member must not be null"],
      [
        { KeyId: '' },
        "Value '' at 'keyId' failed to satisfy constraint: Member must have length greater than or equal to 1",
      ],
      [
        { KeyId: 'x', NumberOfBytes: 1025 },
        "Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024",
      ],
      [
        { KeyId: 'x', NumberOfBytes: 0 },
        "Value '0' at 'numberOfBytes' failed to satisfy constraint: Member must have value greater than or equal to 1",
      ],
      [
        { KeyId: 'x', KeySpec: 'DES' },
        "Value 'DES' at 'keySpec' failed to satisfy constraint: Member must satisfy enum value set: [AES_256, AES_128]",
      ],
      [
        { KeyId: 'x', Name: 'a1' },
        "Value 'a1' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-z]+",
      ],
      [
        { KeyId: 'x', Plaintext: Buffer.alloc(5) },
        "Value at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4",
      ],
      [
        { KeyId: 'x', Tags: [{ TagKey: 'a' }, { TagKey: 'long' }] },
        "Value 'long' at 'tags.2.member.tagKey' failed to satisfy constraint: Member must have length less than or equal to 3",
      ],
      [
        { KeyId: 'x', Operations: ['Encrypt', 'Fly'] },
        "Value '[Encrypt, Fly]' at 'operations' failed to satisfy constraint: Member must satisfy constraint: " +
          '[Member must satisfy enum value set: [Encrypt, Decrypt]]',
      ],
    ];
    for (const [input, sentence] of cases)
      expect(problem(input, shape)).toEqual({
        code: 'ValidationException',
        message: `1 validation error detected: ${sentence}`,
      });
  });

  test('names every problem at once', () => {
    expect(problem({ NumberOfBytes: 0 }, shape).message).toBe(
      "2 validation errors detected: Value null at 'keyId' failed to satisfy constraint: Member must not be null; " +
        "Value '0' at 'numberOfBytes' failed to satisfy constraint: Member must have value greater than or equal to 1",
    );
  });

  test('keeps secrets and endless values out of its messages', () => {
    expect(problem({ KeyId: 'x', Secret: 'hunter2' }, shape).message).not.toContain('hunter2');
    expect(problem({ KeyId: 'y'.repeat(100_000) }, shape).message.length).toBeLessThan(2000);
  });

  test('a member of the wrong type is a SerializationException', () => {
    for (const input of [
      { KeyId: 5 },
      { KeyId: ['x'] },
      { KeyId: 'x', NumberOfBytes: '5' },
      { KeyId: 'x', NumberOfBytes: 1.5 },
      { KeyId: 'x', Plaintext: 'text' },
      { KeyId: 'x', Tags: {} },
      { KeyId: 'x', Tags: [null] },
      { KeyId: 'x', Operations: [1] },
      { KeyId: 'x', EncryptionContext: { a: 1 } },
      { KeyId: 'x', EncryptionContext: [] },
      { KeyId: 'x', DryRun: 'true' },
    ])
      expect(problem(input, shape).code, JSON.stringify(input)).toBe('SerializationException');
    expect(problem(null, shape).code).toBe('SerializationException');
    expect(problem([], shape).code).toBe('SerializationException');
  });
});
