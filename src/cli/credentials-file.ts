/** Credentials as an AWS shared-credentials file: the form in which the server hands out keys, and clients read them. */
import { closeSync, fsyncSync, openSync, renameSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

/**
 * Reads one profile of a shared-credentials file.
 * @throws when the profile or one of its two keys is missing
 */
export function parseCredentials(text: string, profile = 'default'): Credentials {
  const values = new Map<string, string>();
  let section = '';
  for (const line of text.split(/\r?\n/)) {
    const header = /^\s*\[\s*(?:profile\s+)?([^\]]+?)\s*\]/.exec(line);
    if (header) section = header[1]!;
    const pair = /^\s*([a-z_]+)\s*=\s*(\S.*?)\s*$/i.exec(line);
    if (pair && section === profile) values.set(pair[1]!.toLowerCase(), pair[2]!);
  }
  const accessKeyId = values.get('aws_access_key_id');
  const secretAccessKey = values.get('aws_secret_access_key');
  if (!accessKeyId || !secretAccessKey)
    throw new Error(`no aws_access_key_id and aws_secret_access_key under [${profile}]`);
  return { accessKeyId, secretAccessKey, sessionToken: values.get('aws_session_token') };
}

/** The file's text. The region is there so that a client needs nothing but this file and the endpoint. */
export function formatCredentials(credentials: Credentials, region = 'us-east-1'): string {
  return [
    '[default]',
    `aws_access_key_id = ${credentials.accessKeyId}`,
    `aws_secret_access_key = ${credentials.secretAccessKey}`,
    ...(credentials.sessionToken ? [`aws_session_token = ${credentials.sessionToken}`] : []),
    `region = ${region}`,
    '',
  ].join('\n');
}

/** Writes `text` to `path` with mode 0600; the file appears whole or not at all, and survives a power cut. */
export function writePrivateFile(path: string, text: string): void {
  const temporary = `${path}.${process.pid}.new`;
  const file = openSync(temporary, 'w', 0o600);
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(temporary, path);
  const directory = openSync(dirname(path), 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
