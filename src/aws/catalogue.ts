import type { StaticOperationSchema } from '@smithy/types';

/** First element of an operation's schema in the SDK's static form (`@smithy/types`, static-schemas). */
const operationSchemaKind = 9;

/** Every operation that an SDK client package exports a schema for, by name. */
export function catalogueOf(sdk: object): Record<string, StaticOperationSchema> {
  const operations: Record<string, StaticOperationSchema> = {};
  for (const [name, value] of Object.entries(sdk)) {
    if (name.endsWith('$') && Array.isArray(value) && value[0] === operationSchemaKind)
      operations[name.slice(0, -1)] = value as unknown as StaticOperationSchema;
  }
  return operations;
}
