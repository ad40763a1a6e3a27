/** What tells a crash of the machine from the end of a process: after the latter the page cache is still there. */
import { readFileSync } from 'node:fs';

let id: string | undefined;

/** Changes with each start of the machine (random(4), `/proc/sys/kernel/random/boot_id`). */
export function bootId(): string {
  return (id ??= readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim());
}
