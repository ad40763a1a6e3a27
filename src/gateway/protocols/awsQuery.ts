/**
 * awsQuery: STS. A form body (or a query string) with Action and Version in, XML out.
 * Source: Smithy, "AWS Query protocol".
 */
import { AwsError } from '../../aws/errors.ts';
import type { Service } from '../../aws/service.ts';
import type { ProtocolHandler, RecognizedRequest, WireRequest } from './protocol.ts';
import { parseForm, type QueryStyle, readQuery } from './query-body.ts';
import { escapeXml, writeXmlMembers, xmlElement } from './xml-body.ts';

export const awsQuery: ProtocolHandler = {
  recognize: (_service, request) => recognizeAction(request, { isEc2: false }),

  encode(service, operation, output, requestId) {
    const { name, schema } = operation;
    const result =
      schema?.[5] === 'unit' ? '' : `<${name}Result>${writeXmlMembers(schema?.[5], output)}</${name}Result>`;
    const metadata = `<ResponseMetadata>${xmlElement('RequestId', requestId)}</ResponseMetadata>`;
    const body = `<${name}Response${namespaceOf(service)}>${result}${metadata}</${name}Response>`;
    return { status: 200, headers: { 'x-amzn-RequestId': requestId, 'Content-Type': 'text/xml' }, body };
  },

  encodeError(service, error, requestId) {
    const type = xmlElement('Type', error.fault === 'client' ? 'Sender' : 'Receiver');
    const detail = `<Error>${type}${xmlElement('Code', error.code)}${xmlElement('Message', error.message)}</Error>`;
    const body = `<ErrorResponse${namespaceOf(service)}>${detail}${xmlElement('RequestId', requestId)}</ErrorResponse>`;
    return { status: error.httpStatus, headers: { 'x-amzn-RequestId': requestId, 'Content-Type': 'text/xml' }, body };
  },

  unknownOperation: unknownAction,
};

export function namespaceOf(service: Service | undefined): string {
  return service?.xmlNamespace ? ` xmlns="${escapeXml(service.xmlNamespace)}"` : '';
}

/**
 * Finds Action in the query string or the form body; parameters may stand in both. Only a glance: the whole form is read
 * after the signature is verified, and a second Action is then refused.
 */
export function recognizeAction(request: WireRequest, style: QueryStyle): RecognizedRequest {
  const form = request.body.toString('utf8');
  const found = actionParameter.exec(request.query) ?? actionParameter.exec(form);
  const action = found && parseForm(found[1]!).children.get('Action')?.value;
  if (!action) throw new AwsError('MissingAction', 'The request is missing an action or a required parameter.');
  return { operationName: action, decode: (schema) => readQuery(schema?.[4], parseForm(request.query, form), style) };
}

const actionParameter = /(?:^|&)(Action=[^&]*)/;

export function unknownAction(service: Service, action: string, isKnown: boolean): AwsError {
  const name = action.slice(0, 128);
  return new AwsError(
    'InvalidAction',
    isKnown
      ? `The action ${name} is not valid for this web service: Coffer does not implement it (service ${service.name}).`
      : `The action ${name} is not valid for this web service.`,
  );
}
