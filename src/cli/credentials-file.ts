/** Reading credentials from an AWS shared-credentials file. */

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

/**
 * Reads one profile of a shared-credentials file.
 * Source: AWS CLI user guide, "Configuration and credential file settings".
 * @throws when the profile or one of its two keys is missing
 */
export function parseCredentials(text: string, profile = 'default'): Credentials {
  const values = parseProfile(text, profile);
  const accessKeyId = values.get('aws_access_key_id');
  const secretAccessKey = values.get('aws_secret_access_key');
  if (!accessKeyId || !secretAccessKey)
    throw new Error(`no aws_access_key_id and aws_secret_access_key under [${profile}]`);
  return { accessKeyId, secretAccessKey, sessionToken: values.get('aws_session_token') };
}

/** All settings of one profile, names in lower case; empty when there is no such profile. */
export function parseProfile(text: string, profile = 'default'): Map<string, string> {
  const values = new Map<string, string>();
  let section = '';
  for (const line of text.split(/\r?\n/)) {
    const header = /^\s*\[\s*(?:profile\s+)?([^\]]+?)\s*\]/.exec(line);
    if (header) section = header[1]!;
    const pair = /^\s*([a-z_]+)\s*=\s*(\S.*?)\s*$/i.exec(line);
    if (pair && section === profile) values.set(pair[1]!.toLowerCase(), pair[2]!);
  }
  return values;
}
