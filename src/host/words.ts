/**
 * What the control plane is told of a failure, and shows to the owner of a volume or snapshot. Where things lie on this machine
 * is the operator's: the log has it.
 */
import { basename } from 'node:path';
import { isAwsError } from '../aws/errors.ts';

/** KMS's own words, where it was KMS that refused; otherwise the message, files named without their directories. */
export function wordsOf(error: unknown): string {
  if (isAwsError(error)) return error.message;
  const { code, syscall, message } = error as NodeJS.ErrnoException;
  // Node.js names the file last: `EIO: i/o error, open '/…'`.
  if (code !== undefined && syscall !== undefined && message?.startsWith(`${code}: `))
    return message.replace(/, .*$/s, '');
  return withoutDirectories(message ?? String(error));
}

/** Absolute paths, in quotation marks or up to the next space, become the names of the files. */
export function withoutDirectories(text: string): string {
  return text
    .replace(/(['"])(\/[^'"\n]*)\1/g, (_, quote, path) => `${quote}${basename(path)}${quote}`)
    .replace(/(^|[\s(:=])(\/[^\s'",;:()]+)/g, (_, before, path) => `${before}${basename(path)}`);
}
