/** What is wrong with an answer, whatever was asked: it has to be an answer in its protocol, and no failure of the server's. */
import {
  AwsEc2QueryProtocol,
  AwsJson1_1Protocol,
  AwsQueryProtocol,
  AwsRestJsonProtocol,
} from '@aws-sdk/core/protocols';
import { parseXML } from '@aws-sdk/xml-builder';
import { HttpResponse } from '@smithy/core/protocols';
import { fromBase64, fromUtf8, toBase64, toUtf8 } from '@smithy/core/serde';
import type { StaticOperationSchema } from '@smithy/types';
import type { Protocol } from '../../../src/aws/service.ts';
import type { Answer, Target } from './arena.ts';

export interface Refusal {
  readonly code: string;
  readonly message: string;
}

/** No message needs more, and clients print them. */
const messageLengthMax = 8 * 32_768;
/** AWS gives no message with these: none that says what is wrong with a ciphertext or a signature. */
const silent = ['InvalidCiphertextException', 'KMSInvalidSignatureException', 'KMSInvalidMacException'];
/** The production Char of XML 1.0: what may stand in a document at all. */
const allXml = /^[\u0009\u000a\u000d\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]*$/u;

/** Reads an answer as its protocol's clients do. @throws {Error} saying what is wrong with it */
export async function readAnswer(target: Target, answer: Answer): Promise<Refusal | undefined> {
  if (answer.status >= 500) throw new Error(`status ${answer.status}`);
  const { protocol } = target.service;
  const text = answer.body.toString('utf8');
  if (answer.status < 300) {
    await readOutput(protocol, target.operation.schema, answer);
    return undefined;
  }
  // Node.js's answer to a head that is too long, before there is a request.
  if (answer.status === 431 && text === '') return { code: 'HeadTooLarge', message: '' };
  if (answer.status < 400) throw new Error(`status ${answer.status}`);
  const refusal = protocol === 'awsQuery' || protocol === 'ec2Query' ? xmlRefusal(text) : jsonRefusal(answer, text);
  if (!/^[A-Za-z][A-Za-z0-9.]*$/.test(refusal.code)) throw new Error(`the error code ${JSON.stringify(refusal.code)}`);
  const mayBeSilent = silent.includes(refusal.code);
  if (typeof refusal.message !== 'string' || (refusal.message === '' && !mayBeSilent))
    throw new Error('an error without a message');
  if (refusal.message.length > messageLengthMax) throw new Error(`a message of ${refusal.message.length} characters`);
  return refusal;
}

function jsonRefusal(answer: Answer, text: string): Refusal {
  const body = JSON.parse(text) as { __type?: string; message?: string; Message?: string };
  return { code: body.__type ?? answer.headers['x-amzn-errortype'] ?? '', message: body.message ?? body.Message ?? '' };
}

function xmlRefusal(text: string): Refusal {
  const root = readXml(text) as {
    Response?: { Errors: { Error: { Code: string; Message: string } } };
    ErrorResponse?: { Error: { Code: string; Message: string } };
  };
  const error = root.ErrorResponse?.Error ?? root.Response!.Errors.Error;
  return { code: error.Code, message: error.Message };
}

function readXml(text: string): unknown {
  if (!allXml.test(text)) throw new Error('characters that no XML document may hold');
  return parseXML(text);
}

const options = (namespace: string) => ({
  defaultNamespace: namespace,
  errorTypeRegistries: [],
  xmlNamespace: '',
  version: '',
  serviceTarget: '',
});
const serdeContext = {
  base64Decoder: fromBase64,
  base64Encoder: toBase64,
  utf8Decoder: fromUtf8,
  utf8Encoder: toUtf8,
  disableHostPrefix: true,
};
// biome-ignore lint/suspicious/noExplicitAny: the SDK's protocol classes are not typed for outside use.
const sdkProtocols: Partial<Record<Protocol, (namespace: string) => any>> = {
  awsJson1_1: (namespace) => new AwsJson1_1Protocol(options(namespace) as never),
  awsQuery: (namespace) => new AwsQueryProtocol(options(namespace) as never),
  ec2Query: (namespace) => new AwsEc2QueryProtocol(options(namespace) as never),
  restJson1: (namespace) => new AwsRestJsonProtocol(options(namespace) as never),
};

/** Reads a successful answer with the SDK's own deserializer. */
async function readOutput(
  protocol: Protocol,
  schema: StaticOperationSchema | undefined,
  answer: Answer,
): Promise<void> {
  const { status: statusCode, headers, body } = answer;
  if (protocol === 'awsQuery' || protocol === 'ec2Query') readXml(body.toString('utf8'));
  if (!schema) {
    JSON.parse(body.toString('utf8'));
    return;
  }
  const [, namespace, name, traits, input, output] = schema;
  const sdk = sdkProtocols[protocol]!(namespace);
  sdk.setSerdeContext(serdeContext);
  const response = new HttpResponse({ statusCode, headers, body: Buffer.from(body) });
  await sdk.deserializeResponse({ namespace, name, traits, input, output }, serdeContext, response);
}
