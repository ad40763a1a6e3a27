// Whole signed HTTP requests (AWS Signature Version 4, header form), made before a measurement so that the load generator
// has nothing to compute. They hold for five minutes: sign them just before each measurement.

import { createHash, createHmac } from 'node:crypto';

export interface Signer {
  readonly endpoint: string;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
  readonly region: string;
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
const hmac = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest();

export function sign(signer: Signer, service: string, headers: Readonly<Record<string, string>>, body: string): Buffer {
  const { host } = new URL(signer.endpoint);
  const { region } = signer;
  const { accessKeyId, secretAccessKey } = signer.credentials;
  const date = new Date().toISOString().replace(/[-:]|\.\d{3}/g, '');
  const day = date.slice(0, 8);
  const all: Record<string, string> = { ...headers, host, 'x-amz-date': date };
  const names = Object.keys(all).sort();
  const canonical = [
    'POST',
    '/',
    '',
    ...names.map((name) => `${name}:${all[name]}`),
    '',
    names.join(';'),
    sha256(body),
  ].join('\n');
  const scope = `${day}/${region}/${service}/aws4_request`;
  const toSign = ['AWS4-HMAC-SHA256', date, scope, sha256(canonical)].join('\n');
  const key = [day, region, service, 'aws4_request'].reduce<string | Buffer>(hmac, `AWS4${secretAccessKey}`);
  const signature = hmac(key, toSign).toString('hex');
  const lines = [
    'POST / HTTP/1.1',
    ...names.map((name) => `${name}: ${all[name]}`),
    `authorization: AWS4-HMAC-SHA256 Credential=${accessKeyId}/${scope}, SignedHeaders=${names.join(';')}, Signature=${signature}`,
    `content-length: ${Buffer.byteLength(body)}`,
  ];
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body}`);
}

/** One call of the key service. */
export function signKms(signer: Signer, operation: string, input: object): Buffer {
  const headers = { 'content-type': 'application/x-amz-json-1.1', 'x-amz-target': `TrentService.${operation}` };
  return sign(signer, 'kms', headers, JSON.stringify(input));
}
