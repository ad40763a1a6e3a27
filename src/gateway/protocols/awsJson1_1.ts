/**
 * awsJson1_1: KMS, CloudTrail. POST /, `X-Amz-Target: Prefix.Operation`, a JSON object in and out.
 * Source: Smithy, "AWS JSON 1.1 protocol".
 */
import { AwsError } from '../../aws/errors.ts';
import type { Service } from '../../aws/service.ts';
import { parseJsonObject, readJson, writeJson } from './json-body.ts';
import type { ProtocolHandler, WireResponse } from './protocol.ts';
import { modelledError } from './shapes.ts';

export const awsJson1_1: ProtocolHandler = {
  recognize: (_service, request) => ({
    operationName: operationOfTarget(request.headers.get('x-amz-target')),
    decode: (schema) => readJson(schema?.[4], parseJsonObject(request.body)),
  }),

  encode: (_service, operation, output, requestId) =>
    jsonResponse(200, writeJson(operation.schema?.[5], output), requestId),

  encodeError: encodeJsonError,

  unknownOperation: unknownTarget,
};

/** The operation in `X-Amz-Target`: what follows the last dot. */
export function operationOfTarget(target: string | undefined): string {
  return target?.slice(target.lastIndexOf('.') + 1) ?? '';
}

export function unknownTarget(service: Service, operationName: string, isKnown: boolean): AwsError {
  return new AwsError(
    'UnknownOperationException',
    isKnown
      ? `Coffer does not implement the operation ${operationName} of ${service.name}.`
      : `The service ${service.name} has no operation ${operationName}.`,
  );
}

export function encodeJsonError(service: Service | undefined, error: AwsError, requestId: string): WireResponse {
  const { messageMember } = modelledError(service, error.code);
  const body = JSON.stringify({ __type: error.code, [messageMember]: error.message, ...error.members });
  return jsonResponse(error.httpStatus, body, requestId);
}

export function jsonResponse(status: number, body: string, requestId: string): WireResponse {
  return { status, headers: { 'x-amzn-RequestId': requestId, 'Content-Type': 'application/x-amz-json-1.1' }, body };
}
