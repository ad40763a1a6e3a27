/**
 * internalJson: Coffer's own services (`coffer`, `coffer-host`). awsJson1_1 on the wire, but no schemas: bodies are the
 * JSON of plain data, bytes as base64.
 */
import { encodeJsonError, jsonResponse, operationOfTarget, unknownTarget } from './awsJson1_1.ts';
import { parseJsonObject } from './json-body.ts';
import type { ProtocolHandler } from './protocol.ts';

export const internalJson: ProtocolHandler = {
  recognize: (_service, request) => ({
    operationName: operationOfTarget(request.headers.get('x-amz-target')),
    decode: () => parseJsonObject(request.body),
  }),
  encode: (_service, _operation, output, requestId) => jsonResponse(200, stringify(output ?? {}), requestId),
  encodeError: encodeJsonError,
  unknownOperation: unknownTarget,
};

function stringify(output: unknown): string {
  // `this`, because JSON.stringify has already called Buffer's toJSON on the value that it passes.
  return JSON.stringify(output, function (this: Record<string, unknown>, key: string, value: unknown) {
    const original = this[key];
    return original instanceof Uint8Array ? Buffer.from(original).toString('base64') : value;
  });
}
