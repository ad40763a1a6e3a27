import { existsSync } from 'node:fs';
import { writePrivateFile } from '../files/durable.ts';
import type { AccessKey } from './access-keys.ts';

/**
 * Writes an AWS shared-credentials file with a `default` profile, mode 0600; it appears whole or not at all.
 * Source: AWS CLI user guide, "Configuration and credential file settings".
 */
export function writeCredentialsFile(path: string, key: AccessKey, comment: string): void {
  const text = `# ${comment}\n[default]\naws_access_key_id = ${key.accessKeyId}\naws_secret_access_key = ${key.secretAccessKey}\n`;
  writePrivateFile(path, text, 'replace');
}

/** Whether the file is there; without it its key is unknown to everyone, and a new one has to be made. */
export function hasCredentialsFile(path: string): boolean {
  return existsSync(path);
}
