/** The part of the demo's story about snapshots. */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { EBSClient, GetSnapshotBlockCommand, ListChangedBlocksCommand } from '@aws-sdk/client-ebs';
import { CreateSnapshotCommand, CreateVolumeCommand, DescribeSnapshotsCommand } from '@aws-sdk/client-ec2';
import { CreateAliasCommand, CreateKeyCommand } from '@aws-sdk/client-kms';
import { filesUnder } from '../files/files-under.ts';
import type { Connection } from './connection.ts';
import { fileContains, readAt, settles } from './demo-evidence.ts';
import type { Narrator } from './demo-narrator.ts';
import type { Stage, VolumeInspection } from './demo-stage.ts';
import type { NbdClient } from './nbd-client.ts';

const mebibyte = 1024 * 1024;
const blockBytes = 512 * 1024;
const device = '/dev/sdh';
/** Written over and over while the snapshot is taken: one block, in pieces of 4 KiB. */
const counter = { at: 64 * mebibyte, pieceBytes: 4096, pieces: blockBytes / 4096 };
const bulk = { at: 128 * mebibyte, length: 16 * mebibyte };

export interface SnapshotScene {
  readonly connection: Connection;
  readonly stage: Stage;
  readonly tell: Narrator;
  /** The volume, its image, and a connection to it. */
  readonly volume: string;
  readonly image: string;
  readonly nbd: NbdClient;
  /** What the volume holds already, and some of it to look for. */
  readonly written: { readonly at: number; readonly bytes: Buffer; readonly needle: Buffer };
  /** An alias that is free; the key it is given is not the volume's. */
  readonly alias: string;
  readonly zone: string;
  /** The data directory, if the server is the demo's own: then all of it is searched, and a block of it damaged. */
  readonly ownDataDir?: string;
}

/** Returns a volume that was made from a snapshot, under a key of its own; it is detached. */
export async function tellOfSnapshots(scene: SnapshotScene): Promise<string> {
  const ebs = new EBSClient(scene.connection.sdkConfiguration());
  const { first, copy } = await tellOfOneMoment(scene);
  const later = await tellOfChanges(scene, ebs, first);
  if (scene.ownDataDir) await tellOfDamage(scene, ebs, later, scene.ownDataDir);
  ebs.destroy();
  return copy;
}

async function tellOfOneMoment(scene: SnapshotScene): Promise<{ first: string; copy: string }> {
  const { connection, stage, tell, volume, nbd, written } = scene;
  tell.chapter('A snapshot, while data is written');
  await nbd.write(bulk.at, randomBytes(bulk.length));
  const writer = new Writer(nbd);
  await writer.reaches(counter.pieces);
  tell.doing(`aws ec2 create-snapshot --volume-id ${volume}`);
  const before = writer.done;
  const first = await snapshot(stage, volume);
  const after = writer.begun;
  const isWhole = await completed(stage, first);
  await writer.reaches(after + 1);
  await writer.stop();
  tell.claim('it is completed, while the volume goes on being written to', isWhole && writer.done > after, first);

  tell.doing(`aws ec2 create-volume --snapshot-id ${first} --encrypted --kms-key-id ${scene.alias} …`);
  const copy = await volumeUnderAnotherKey(scene, first);
  await stage.attach(copy, device);
  const isThere = await stage.attached(copy, device);
  const restored = await stage.open(device);
  tell.claim(
    'a volume made from it, under another key, has the data',
    isThere && (await restored.read(written.at, written.bytes.length)).equals(written.bytes),
    copy,
  );
  const moment = momentOf(await restored.read(counter.at, blockBytes));
  tell.claim(
    'it is of one moment: all writes before are in it, and none after',
    moment !== undefined && moment >= before && moment <= after,
    moment === undefined ? '' : `write ${moment} is the last in it; ${writer.done} were made until it was completed`,
  );
  // What was read above has been fetched, and rests in the new image.
  await restored.flush();
  await restored.close();
  const { ImagePath } = await connection.call<VolumeInspection>('InspectVolume', { VolumeId: copy });
  const [old, own] = [scene.image, ImagePath!].map((path) => readAt(path, written.at, 4096)) as [Buffer, Buffer];
  tell.claim(
    'its data key is its own: the same data rests there as other bytes',
    !own.equals(old) && !own.equals(written.bytes.subarray(0, own.length)),
  );
  await stage.detach(copy, device);
  return { first, copy };
}

interface LaterSnapshot {
  readonly id: string;
  /** The index of a block that it stored, a token for it, and what is in it. */
  readonly index: number;
  readonly token: string;
  readonly content: Buffer;
}

async function tellOfChanges(scene: SnapshotScene, ebs: EBSClient, first: string): Promise<LaterSnapshot> {
  const { stage, tell, volume, nbd } = scene;
  tell.chapter('The next one stores what changed');
  const changedAt = bulk.at + 4 * mebibyte;
  const changed = randomBytes(2 * blockBytes);
  await nbd.write(changedAt, changed);
  await nbd.flush();
  tell.doing(`aws ec2 create-snapshot --volume-id ${volume};  aws ebs list-changed-blocks …`);
  const id = await snapshot(stage, volume);
  const isWhole = await completed(stage, id);
  const { ChangedBlocks = [] } = await ebs.send(
    new ListChangedBlocksCommand({ FirstSnapshotId: first, SecondSnapshotId: id }),
  );
  // The two above, and the one that was written to all the while.
  const expected = [counter.at, changedAt, changedAt + blockBytes].map((at) => at / blockBytes);
  tell.claim(
    'the blocks that differ are the three that were written in between',
    isWhole && ChangedBlocks.map((each) => each.BlockIndex).join() === expected.join(),
    `blocks of 512 KiB number ${expected.join(', ')}`,
  );
  if (existsSync(blocksOf(stage, first))) {
    const [full, more] = [first, id].map((each) => filesUnder(blocksOf(stage, each)).length) as [number, number];
    tell.claim(
      'only these were stored',
      more === expected.length,
      `${sizeOf(full)} for the first snapshot, ${sizeOf(more)} for the second`,
    );
  }
  const token = ChangedBlocks[1]?.SecondBlockToken ?? '';
  return { id, index: changedAt / blockBytes, token, content: changed.subarray(0, blockBytes) };
}

async function tellOfDamage(
  { stage, tell, written }: SnapshotScene,
  ebs: EBSClient,
  { id, index, token, content }: LaterSnapshot,
  dataDir: string,
): Promise<void> {
  const files = filesUnder(dataDir);
  tell.claim(
    `the plaintext is still in none of the files, ${files.length} by now`,
    !files.some((file) => fileContains(file, written.needle)),
  );

  tell.chapter('A block in the store is damaged');
  const file = filesUnder(blocksOf(stage, id)).find((path) => Number.parseInt(path.slice(-8), 16) === index)!;
  const read = async () => {
    const request = { SnapshotId: id, BlockIndex: index, BlockToken: token };
    const { BlockData } = await ebs.send(new GetSnapshotBlockCommand(request));
    return Buffer.from(await BlockData!.transformToByteArray());
  };
  const stored = readFileSync(file);
  const damaged = Buffer.from(stored);
  damaged[1000]! ^= 1;
  tell.doing(`aws ebs get-snapshot-block --snapshot-id ${id} --block-index ${index} …`);
  writeFileSync(file, damaged);
  const error = await read().then(
    () => undefined,
    (error: Error) => error,
  );
  tell.claim(
    'with one bit of it changed it is not given out, and named',
    error?.message.includes(`${index} of ${id}`) ?? false,
    error ? `${error.name}: ${error.message}` : '',
  );
  writeFileSync(file, stored);
  tell.claim('put right, it can be read', (await read()).equals(content));
}

/** Where the blocks that a snapshot stored lie, if the block store is the data directory's own. */
export function blocksOf(stage: Stage, snapshotId: string): string {
  return join(stage.dataDir, 'snapshots', 'blocks', snapshotId);
}

async function snapshot(stage: Stage, volume: string): Promise<string> {
  const { SnapshotId } = await stage.ec2.send(new CreateSnapshotCommand({ VolumeId: volume }));
  stage.snapshots.push(SnapshotId!);
  return SnapshotId!;
}

function completed(stage: Stage, snapshotId: string): Promise<boolean> {
  return settles(async () => {
    const { Snapshots } = await stage.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [snapshotId] }));
    return Snapshots![0]!.State === 'completed';
  });
}

async function volumeUnderAnotherKey({ stage, alias, zone }: SnapshotScene, snapshotId: string): Promise<string> {
  const { KeyMetadata } = await stage.kms.send(
    new CreateKeyCommand({ Description: 'coffer demo, of a restored volume' }),
  );
  stage.keys.push(KeyMetadata!.KeyId!);
  await stage.kms.send(new CreateAliasCommand({ AliasName: alias, TargetKeyId: KeyMetadata!.KeyId }));
  const { VolumeId } = await stage.ec2.send(
    new CreateVolumeCommand({ SnapshotId: snapshotId, AvailabilityZone: zone, Encrypted: true, KmsKeyId: alias }),
  );
  stage.volumes.push(VolumeId!);
  return VolumeId!;
}

/** Writes its counter into one piece after the other, each when the one before is acknowledged. */
class Writer {
  /** How many writes were sent, and how many acknowledged. */
  begun = 0;
  done = 0;
  #isStopping = false;
  readonly #end: Promise<void>;

  constructor(nbd: NbdClient) {
    this.#end = this.#run(nbd);
    // Seen by whoever waits for it.
    this.#end.catch(() => {});
  }

  async reaches(count: number): Promise<void> {
    await Promise.race([this.#end, settles(() => this.done >= count)]);
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#end;
  }

  async #run(nbd: NbdClient): Promise<void> {
    const piece = randomBytes(counter.pieceBytes);
    while (!this.#isStopping) {
      const number = ++this.begun;
      piece.writeUInt32LE(number);
      await nbd.write(counter.at + (number % counter.pieces) * counter.pieceBytes, piece);
      this.done = number;
    }
  }
}

/** The last write that `block` has, if it has all before it and none after; else undefined. */
function momentOf(block: Buffer): number | undefined {
  const numbers = Array.from({ length: counter.pieces }, (_, piece) => block.readUInt32LE(piece * counter.pieceBytes));
  const last = Math.max(...numbers);
  const isOneMoment = numbers.every((number, piece) => {
    const wanted = last - ((last - piece) % counter.pieces);
    return number === wanted;
  });
  return isOneMoment ? last : undefined;
}

function sizeOf(blocks: number): string {
  return `${(blocks * blockBytes) / mebibyte} MiB`;
}
