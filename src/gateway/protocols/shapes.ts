/**
 * The SDK's schemas as the readers here want them. A schema is an array in the SDK's static form; `NormalizedSchema` reads
 * it. Sources: @smithy/types static-schemas, @smithy/core/schema.
 */
import { NormalizedSchema, TypeRegistry } from '@smithy/core/schema';
import type { $SchemaRef } from '@smithy/types';
import type { Service } from '../../aws/service.ts';

export type Shape = NormalizedSchema;

export function shapeOf(schema: unknown): Shape {
  return NormalizedSchema.of(schema as $SchemaRef);
}

/** The traits of a member and its target together, as the SDK names them. */
export function traitsOf(shape: Shape): Readonly<Record<string, unknown>> {
  return shape.getMergedTraits() as Record<string, unknown>;
}

/** A name among a shape's traits (`xmlName`, `ec2QueryName`), when it has one. */
export function nameTrait(shape: Shape, trait: string): string | undefined {
  const value = traitsOf(shape)[trait];
  return typeof value === 'string' ? value : undefined;
}

/** Sets a key of a map that came from a client, which may well be `__proto__`. */
export function setKey(target: Record<string, unknown>, key: string, value: unknown): void {
  if (key === '__proto__')
    Object.defineProperty(target, key, { value, enumerable: true, configurable: true, writable: true });
  else target[key] = value;
}

/**
 * The schemas know numbers, not integers. All numbers of the APIs spoken here are integers but these members of EC2
 * (botocore's model: shapes of type double and float that occur in inputs).
 */
const fractionalMembers = new Set([
  'Amount',
  'DiskImageSize',
  'Price',
  'Priority',
  'UploadSize',
  'Weight',
  'WeightedCapacity',
]);
const fractionalStructures = new Set([
  'MemoryGiBPerVCpuRequest',
  'NetworkBandwidthGbpsRequest',
  'TotalLocalStorageGBRequest',
]);

export function isFractional(structure: Shape, memberName: string): boolean {
  return fractionalMembers.has(memberName) || fractionalStructures.has(structure.getName() ?? '');
}

/** What a service's model says about one of its errors: the status (restJson1 only) and how its message is spelled. */
export interface ModelledError {
  readonly httpStatus?: number;
  readonly messageMember: 'message' | 'Message';
}

const unmodelled: ModelledError = { messageMember: 'message' };
const modelledErrors = new Map<string, ModelledError>();

/** Looks `code` up among the errors that the service's SDK client registers. */
export function modelledError(service: Service | undefined, code: string): ModelledError {
  const namespace = service && Object.values(service.catalogue)[0]?.[1];
  if (!namespace) return unmodelled;
  const key = `${namespace}#${code}`;
  const cached = modelledErrors.get(key);
  if (cached) return cached;
  const schema = TypeRegistry.for(namespace).find((candidate) => (candidate as unknown as unknown[])[2] === code);
  if (!schema) return unmodelled;
  const shape = shapeOf(schema);
  const status = traitsOf(shape).httpError;
  const modelled: ModelledError = {
    httpStatus: typeof status === 'number' ? status : undefined,
    messageMember: 'Message' in shape.getMemberSchemas() ? 'Message' : 'message',
  };
  modelledErrors.set(key, modelled);
  return modelled;
}
