/** Finding all files below a directory that others work in meanwhile. */
import { type Dirent, readdirSync } from 'node:fs';
import { join } from 'node:path';

/** The paths of all regular files below `directory`. What goes away while it is looked at, or isn't there, has none. */
export function filesUnder(directory: string): string[] {
  return entriesOf(directory).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return filesUnder(path);
    return entry.isFile() ? [path] : [];
  });
}

function entriesOf(directory: string): Dirent[] {
  try {
    return readdirSync(directory, { withFileTypes: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
