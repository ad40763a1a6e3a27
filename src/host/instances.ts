/** The directories of instances: `DIR/instances/i-…/dev`, where the sockets of attached volumes appear. */
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import type { DesiredAttachment, DesiredInstance } from '../aws/host-protocol.ts';

const instanceIdForm = /^i-[0-9a-f]{8,32}$/;
/** A Unix socket's path has at most this many bytes (sun_path is 108, with the closing zero). */
export const socketPathBytesMax = 107;

export class InstanceDirectories {
  readonly #root: string;

  constructor(dataDir: string) {
    this.#root = join(dataDir, 'instances');
    mkdirSync(this.#root, { recursive: true, mode: 0o700 });
  }

  /** The instances whose directory is there. */
  list(): string[] {
    return readdirSync(this.#root).filter((name) => instanceIdForm.test(name));
  }

  /** Makes the directories of `desired`, and removes any other's that has no open attachment. */
  reconcile(desired: readonly DesiredInstance[], inUse: ReadonlySet<string>): void {
    const wanted = new Set(desired.map((instance) => instance.instanceId).filter((id) => instanceIdForm.test(id)));
    for (const id of wanted) mkdirSync(join(this.#root, id, 'dev'), { recursive: true, mode: 0o700 });
    for (const id of this.list()) {
      if (!wanted.has(id) && !inUse.has(id)) rmSync(join(this.#root, id), { recursive: true, force: true });
    }
  }

  /**
   * Where an attachment's socket goes; its directory is there afterwards.
   * @throws when the path would leave the instance's directory or is too long for a socket
   */
  socketPath(attachment: Pick<DesiredAttachment, 'instanceId' | 'devicePath'>): string {
    const { instanceId, devicePath } = attachment;
    const home = join(this.#root, instanceId);
    const path = normalize(join(home, devicePath));
    if (!instanceIdForm.test(instanceId) || !path.startsWith(`${home}/`) || devicePath.includes('\0'))
      throw new Error(`the device path ${JSON.stringify(devicePath)} is not inside the instance's directory`);
    if (Buffer.byteLength(path) > socketPathBytesMax)
      throw new Error(
        `the socket path ${path} is longer than ${socketPathBytesMax} bytes; use a shorter data directory`,
      );
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    return path;
  }
}
