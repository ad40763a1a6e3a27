/** What the server beside a host knows of it: its files in the data directory, and how its process ends. */
import { join } from 'node:path';

/** How a host process ends when another one took its place. */
export const supersededExitCode = 75;

/**
 * The files of a host in its data directory. `synced` is touched when the control plane has answered the host for the first
 * time, and for the first time after it was away.
 */
export function hostFiles(dataDir: string) {
  const file = (name: string) => join(dataDir, `host.${name}`);
  return { lock: file('lock'), pid: file('pid'), log: file('log'), synced: file('synced'), started: file('started') };
}
