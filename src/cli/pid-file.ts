/** A file with this process's id, for whoever has to find it. */
import { writeFileSync } from 'node:fs';

export function writePidFile(path: string): void {
  writeFileSync(path, `${process.pid}\n`, { mode: 0o600 });
}
