import { closeSync, existsSync, fsyncSync, openSync, renameSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import type { AccessKey } from './access-keys.ts';

/**
 * Writes an AWS shared-credentials file with a `default` profile, mode 0600; it appears whole or not at all.
 * Source: AWS CLI user guide, "Configuration and credential file settings".
 */
export function writeCredentialsFile(path: string, key: AccessKey, comment: string): void {
  const text = `# ${comment}\n[default]\naws_access_key_id = ${key.accessKeyId}\naws_secret_access_key = ${key.secretAccessKey}\n`;
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

/** Whether the file is there; without it its key is unknown to everyone, and a new one has to be made. */
export function hasCredentialsFile(path: string): boolean {
  return existsSync(path);
}
