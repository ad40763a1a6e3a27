/**
 * ec2Query: EC2. Like awsQuery, but with its own names (`ec2QueryName`), lists without a level of their own, and another
 * error form. Source: Smithy, "AWS EC2 Query protocol".
 */
import { namespaceOf, recognizeAction, unknownAction } from './awsQuery.ts';
import type { ProtocolHandler } from './protocol.ts';
import { writeXmlMembers, xmlElement } from './xml-body.ts';

const prolog = '<?xml version="1.0" encoding="UTF-8"?>\n';
const contentType = 'text/xml;charset=UTF-8';

export const ec2Query: ProtocolHandler = {
  recognize: (_service, request) => recognizeAction(request, { isEc2: true }),

  encode(service, operation, output, requestId) {
    const { name, schema } = operation;
    // Operations without output answer <return>true</return>.
    const members = schema?.[5] === 'unit' ? '<return>true</return>' : writeXmlMembers(schema?.[5], output);
    const root = `${name}Response`;
    const body = `${prolog}<${root}${namespaceOf(service)}>${xmlElement('requestId', requestId)}${members}</${root}>`;
    return { status: 200, headers: { 'x-amzn-RequestId': requestId, 'Content-Type': contentType }, body };
  },

  encodeError(_service, error, requestId) {
    const detail = `<Error>${xmlElement('Code', error.code)}${xmlElement('Message', error.message)}</Error>`;
    const body = `${prolog}<Response><Errors>${detail}</Errors>${xmlElement('RequestID', requestId)}</Response>`;
    return { status: error.httpStatus, headers: { 'x-amzn-RequestId': requestId, 'Content-Type': contentType }, body };
  },

  unknownOperation: unknownAction,
};
