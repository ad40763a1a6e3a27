/** Snapshots of a running server's volumes, with what shall be in them: blocks that tests write, and compare later. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import {
  CopySnapshotCommand,
  CreateSnapshotCommand,
  CreateVolumeCommand,
  DescribeSnapshotsCommand,
  DescribeVolumeStatusCommand,
  type Snapshot,
  type VolumeStatusItem,
} from '@aws-sdk/client-ec2';
import { NbdClient } from '../../src/cli/nbd-client.ts';
import { filesUnder } from './files.ts';
import { type TestServer, until } from './server.ts';
import { Volumes, zone } from './volumes.ts';

export const blockBytes = 512 * 1024;
export const mebibyte = 1024 * 1024;

/** What was held up is tried again after pauses that grow to a minute. */
const retryPatienceMs = 120_000;

/** What blocks of a volume or snapshot hold; all others are zeros. */
export type Content = ReadonlyMap<number, Buffer>;

export class Stored extends Volumes {
  /** Where the blocks are: `snapshots` in the data directory unless said otherwise. */
  readonly store: string;

  constructor(server: TestServer, store = join(server.dataDir, 'snapshots')) {
    super(server);
    this.store = store;
  }

  async snapshot(VolumeId: string): Promise<string> {
    return (await this.ec2.send(new CreateSnapshotCommand({ VolumeId }))).SnapshotId!;
  }

  async copy(SourceSnapshotId: string, more: object = {}): Promise<string> {
    const copy = new CopySnapshotCommand({ SourceRegion: 'us-east-1', SourceSnapshotId, ...more });
    return (await this.ec2.send(copy)).SnapshotId!;
  }

  async describeSnapshot(id: string): Promise<Snapshot> {
    return (await this.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [id] }))).Snapshots![0]!;
  }

  async completed(id: string, timeoutMs = retryPatienceMs): Promise<void> {
    await until(
      async () => {
        const { State, StateMessage } = await this.describeSnapshot(id);
        if (State === 'error') throw new Error(`${id}: ${StateMessage}`);
        return State === 'completed';
      },
      `${id} to be complete`,
      timeoutMs,
    );
  }

  /** Waits until a snapshot in this state says what troubles it; its words. */
  async trouble(id: string, state: 'pending' | 'error' = 'pending'): Promise<string> {
    let last: Snapshot = {};
    await until(async () => {
      last = await this.describeSnapshot(id);
      return last.StateMessage !== undefined && last.State === state;
    }, `${id} to say what troubles it`);
    return this.#forItsOwner(last.StateMessage!);
  }

  async status(VolumeId: string): Promise<VolumeStatusItem> {
    return (await this.ec2.send(new DescribeVolumeStatusCommand({ VolumeIds: [VolumeId] }))).VolumeStatuses![0]!;
  }

  /** Waits until a volume is impaired; the words of its event. */
  async impaired(volumeId: string): Promise<string> {
    let words = '';
    await until(async () => {
      const { VolumeStatus, Events } = await this.status(volumeId);
      words = Events?.[0]?.Description ?? '';
      return VolumeStatus?.Status === 'impaired';
    }, `${volumeId} to be impaired`);
    return this.#forItsOwner(words);
  }

  /** Where things lie is the operator's: whoever owns a volume or snapshot is not told. */
  #forItsOwner(words: string): string {
    for (const place of [this.server.dataDir, this.store, 's3://', '127.0.0.1'])
      if (words.includes(place)) throw new Error(`this tells of ${place}: ${words}`);
    return words;
  }

  async initialized(volumeId: string): Promise<void> {
    await until(
      async () => {
        const { VolumeStatus } = await this.status(volumeId);
        const details = VolumeStatus!.Details!.find(({ Name }) => Name === 'initialization-state');
        return details?.Status === ('completed' as string) && VolumeStatus!.Status === 'ok';
      },
      `${volumeId} to be filled`,
      retryPatienceMs,
    );
  }

  /** A volume of a snapshot, from the moment when it can be attached. */
  async restore(SnapshotId: string, more: object = {}): Promise<string> {
    const made = await this.ec2.send(new CreateVolumeCommand({ SnapshotId, AvailabilityZone: zone, ...more }));
    return made.VolumeId!;
  }

  /** Writes random blocks and flushes; what they hold. */
  async write(socket: string, indexes: readonly number[]): Promise<Map<number, Buffer>> {
    const content = new Map(indexes.map((index) => [index, randomBytes(blockBytes)]));
    await withNbd(socket, async (nbd) => {
      for (const [index, bytes] of content) await nbd.write(index * blockBytes, bytes);
      await nbd.flush();
    });
    return content;
  }

  /** Which of the blocks do not read as they should; a read that fails counts by its error. */
  async differences(socket: string, content: Content): Promise<Map<number, string>> {
    const found = new Map<number, string>();
    await withNbd(socket, async (nbd) => {
      for (const [index, bytes] of content) {
        const read = await nbd.read(index * blockBytes, blockBytes).catch((error: Error) => error);
        if (read instanceof Error) found.set(index, read.message);
        else if (!read.equals(bytes)) found.set(index, 'other bytes');
      }
    });
    return found;
  }

  /** A block's file in a store that is a directory. */
  blockFile(owner: string, index: number): string {
    const hex = index.toString(16).padStart(8, '0');
    return join(this.store, 'blocks', owner, '0000', hex);
  }

  /** How many blocks the store has of a snapshot. */
  blocksOf(owner: string): number {
    return filesUnder(join(this.store, 'blocks', owner)).length;
  }
}

export async function withNbd<T>(socket: string, work: (nbd: NbdClient) => Promise<T>): Promise<T> {
  const nbd = await NbdClient.connect(socket);
  try {
    return await work(nbd);
  } finally {
    await nbd.close().catch(() => {});
  }
}

export const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index);
