import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { type Later, type Operation, operation, type RecordDetails } from '../aws/service.ts';
import { type Constraint, validate } from '../aws/validate.ts';
import { type Conditions, keyAccess, requireCustomerManaged, requireSeen } from './access.ts';
import { openGrantToken } from './grant-tokens.ts';
import { findKey, type KeySubject } from './identifiers.ts';
import type { Key, KeyStore } from './key-store.ts';
import { keyResource, parameters } from './trail.ts';

interface KeyInput {
  KeyId?: string | undefined;
  GrantTokens?: string[] | undefined;
}

/** An operation on the one key that its `KeyId` names. */
interface KeyOperation<Input extends KeyInput, Output> {
  readonly name: string;
  readonly effect: 'reads' | 'writes' | 'waits';
  /** CloudTrail's `readOnly`. Default: effect is `reads`. */
  readonly readOnly?: boolean;
  readonly input: Constraint;
  /** It uses the key: `KeyId` may be an alias too, and the request may carry grant tokens. Default false. */
  readonly usesKey?: boolean;
  /** Whether it works on keys of other accounts, named by their ARNs. Default: whatever uses keys does. */
  readonly otherAccounts?: boolean;
  /** It changes the key, which nobody may do to an AWS managed one. Default false. */
  readonly changesKey?: boolean;
  /** What must hold of the input beyond its constraints. */
  readonly check?: (input: Input) => void;
  readonly conditions?: (call: Call, input: Input) => Conditions;
  readonly handle: (call: Call, input: Input, key: Key) => Promise<Output | Later<Output>> | Output | Later<Output>;
  /** Members of the request that the trail shows, or how to show them. */
  readonly parameters: readonly string[] | ((input: Input) => Record<string, unknown> | null);
  readonly response?: (output: Output, key: Key) => Record<string, unknown> | null;
  /** CloudTrail's `additionalEventData`. */
  readonly additional?: (output: Output, key: Key) => Record<string, unknown> | undefined;
}

export function keyOperation<Input extends KeyInput, Output>(
  store: KeyStore,
  definition: KeyOperation<Input, Output>,
): Operation<Input, Output, KeySubject> {
  const { name, effect, changesKey, conditions, handle } = definition;
  const { usesKey = false, otherAccounts = usesKey } = definition;
  const readOnly = definition.readOnly ?? effect === 'reads';
  return operation<Input, Output, KeySubject>({
    name,
    effect,
    readOnly,
    resolve(call, input) {
      validate(input, definition.input);
      definition.check?.(input);
      if (usesKey) checkGrantTokens(call, store, input.GrantTokens);
      return findKey(call, store, input.KeyId!, { aliases: usesKey, otherAccounts });
    },
    access: (call, input, subject) => [keyAccess(call, subject, name, conditions?.(call, input))],
    handle(call, input, subject) {
      const { key } = subject;
      requireSeen(call, subject, name);
      if (changesKey) requireCustomerManaged(call, key, name);
      return handle(call, input, key);
    },
    record: (_call, input, output, subject): RecordDetails => ({
      requestParameters:
        typeof definition.parameters === 'function'
          ? definition.parameters(input)
          : parameters(input, definition.parameters),
      responseElements: output !== undefined && subject ? definition.response?.(output, subject.key) : null,
      resources: subject ? [keyResource(subject.key)] : [],
      ...(output !== undefined && subject && definition.additional
        ? { additionalEventData: definition.additional(output, subject.key) }
        : {}),
    }),
  });
}

/** @throws {AwsError} InvalidGrantTokenException */
export function checkGrantTokens(call: Call, store: KeyStore, tokens: readonly string[] | undefined): void {
  if (tokens) for (const token of tokens) openGrantToken(call, store.rootKey, token);
}

/** @throws {AwsError} DryRunOperationException, when the caller only asked whether the request would succeed */
export function stopIfDryRun(input: { DryRun?: boolean | undefined }): void {
  if (input.DryRun)
    throw new AwsError('DryRunOperationException', 'The request would have succeeded, but the DryRun option is set.');
}
