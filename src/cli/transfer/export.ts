/** `coffer snapshot export`: a snapshot becomes a disk image, through the EBS direct APIs. */
import { hash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { EBSClient, GetSnapshotBlockCommand, ListSnapshotBlocksCommand } from '@aws-sdk/client-ebs';
import { blockBytes } from '../../blocks/store.ts';
import { Connection, type ConnectionOptions } from '../connection.ts';
import { CommandError, exitCodes } from '../errors.ts';
import type { ImageFormat } from './image-source.ts';
import { openTarget, partialPath } from './image-target.ts';
import { interruptions } from './import.ts';
import { TransferJournal } from './journal.ts';
import { onFile } from './local-files.ts';
import { forEachParallel } from './parallel.ts';
import { Progress } from './progress.ts';

const gib = 2 ** 30;
const pageBlocks = 1000;
/** After so many blocks they are put on stable storage, and only then noted as done. */
const flushEveryBlocks = 64;

export interface ExportOptions extends ConnectionOptions {
  readonly format: ImageFormat;
  readonly parallel: number;
  readonly force?: boolean;
  readonly quiet?: boolean;
  readonly json?: boolean;
}

export interface ExportResult {
  readonly SnapshotId: string;
  readonly VolumeSize: number;
  readonly BlocksRead: number;
}

interface ExportHeader {
  readonly snapshotId: string;
  readonly format: ImageFormat;
  readonly volumeSize: number;
}

interface ListedBlock {
  readonly index: number;
  readonly token: string;
}

export async function exportImage(snapshotId: string, path: string, options: ExportOptions): Promise<ExportResult> {
  if (path === '-' && options.format !== 'raw')
    throw new CommandError('only a raw image can be written to standard output', exitCodes.usage);
  const there = path === '-' ? undefined : statSync(path, { throwIfNoEntry: false });
  if (there && !there.isFile())
    throw new CommandError(`${path} is not a file; an image is written to a new one, or to -`, exitCodes.usage);
  if (there && !options.force) throw new CommandError(`${path} exists; --force replaces it`, exitCodes.usage);
  const connection = new Connection(options);
  const ebs = new EBSClient({ ...connection.sdkConfiguration(), maxAttempts: 6 });
  try {
    return await connection.translate(async () => {
      const first = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: snapshotId, MaxResults: pageBlocks }));
      const size = first.VolumeSize!;
      return path === '-'
        ? await toStream(ebs, snapshotId, size, options)
        : await toFile(ebs, snapshotId, size, resolve(path), options);
    });
  } finally {
    ebs.destroy();
    connection.close();
  }
}

async function toFile(
  ebs: EBSClient,
  snapshotId: string,
  volumeSize: number,
  path: string,
  options: ExportOptions,
): Promise<ExportResult> {
  const journalPath = `${partialPath(path)}.journal`;
  const header: ExportHeader = { snapshotId, format: options.format, volumeSize };
  const earlier = existsSync(partialPath(path)) ? TransferJournal.load<ExportHeader>(journalPath) : undefined;
  const goesOn = earlier !== undefined && JSON.stringify(earlier.header) === JSON.stringify(header);
  const journal = goesOn
    ? earlier
    : await onFile(journalPath, 'written', () => TransferJournal.create(journalPath, header));
  if (goesOn && !options.quiet) process.stderr.write(`coffer: going on with ${partialPath(path)}\n`);
  const target = await openTarget(path, options.format, volumeSize * gib, { goesOn, width: options.parallel });
  const progress = new Progress('exporting', volumeSize * gib, { isQuiet: options.quiet });
  const interruption = interruptions();
  let unflushed: { index: number; sha256: string }[] = [];
  let flushing = Promise.resolve();
  const flush = () => {
    flushing = flushing.then(async () => {
      const batch = unflushed;
      unflushed = [];
      if (batch.length === 0) return;
      await target.flush();
      await onFile(journalPath, 'written', () => journal.add(batch));
    });
    return flushing;
  };
  let last = -1;
  let count = 0;
  try {
    await forEachParallel(listed(ebs, snapshotId), options.parallel, async (block) => {
      interruption.throwIfAny();
      progress.add((block.index - last - 1) * blockBytes, false);
      last = block.index;
      count++;
      if (journal.done.has(block.index)) {
        progress.add(blockBytes, false);
        return;
      }
      const { data, sha256 } = await fetchBlock(ebs, snapshotId, block);
      await target.write(block.index * blockBytes, data);
      unflushed.push({ index: block.index, sha256 });
      progress.add(blockBytes, true);
      if (unflushed.length >= flushEveryBlocks) await flush();
    });
    interruption.throwIfAny();
    await target.finish();
  } catch (error) {
    progress.end();
    await flush().catch(() => {});
    await target.close();
    process.stderr.write('coffer: the export stopped; the same command goes on with it\n');
    throw error;
  } finally {
    interruption.stop();
  }
  progress.add(volumeSize * gib - (last + 1) * blockBytes, false);
  progress.end();
  journal.remove();
  return { SnapshotId: snapshotId, VolumeSize: volumeSize, BlocksRead: count };
}

/** Blocks in their order, holes as zeros; fetched ahead, as many at a time as asked for. */
async function toStream(
  ebs: EBSClient,
  snapshotId: string,
  volumeSize: number,
  options: ExportOptions,
): Promise<ExportResult> {
  const progress = new Progress('exporting', volumeSize * gib, { isQuiet: options.quiet });
  const zeros = Buffer.alloc(blockBytes);
  const ahead: { readonly index: number; readonly data: Promise<Buffer> }[] = [];
  let next = 0;
  let count = 0;
  const writeBlock = async (data: Buffer, wasMoved: boolean) => {
    if (!process.stdout.write(data)) await once(process.stdout, 'drain');
    next++;
    progress.add(blockBytes, wasMoved);
  };
  const writeOldest = async () => {
    const { index, data } = ahead.shift()!;
    while (next < index) await writeBlock(zeros, false);
    await writeBlock(await data, true);
  };
  for await (const block of listed(ebs, snapshotId)) {
    count++;
    const data = fetchBlock(ebs, snapshotId, block).then((fetched) => fetched.data);
    // Its failure is thrown when its turn comes; until then it is nobody's.
    data.catch(() => {});
    ahead.push({ index: block.index, data });
    if (ahead.length >= options.parallel) await writeOldest();
  }
  while (ahead.length > 0) await writeOldest();
  while (next < (volumeSize * gib) / blockBytes) await writeBlock(zeros, false);
  progress.end();
  return { SnapshotId: snapshotId, VolumeSize: volumeSize, BlocksRead: count };
}

async function* listed(ebs: EBSClient, snapshotId: string): AsyncGenerator<ListedBlock> {
  let NextToken: string | undefined;
  do {
    const page = await ebs.send(
      new ListSnapshotBlocksCommand({ SnapshotId: snapshotId, MaxResults: pageBlocks, NextToken }),
    );
    for (const { BlockIndex, BlockToken } of page.Blocks ?? []) yield { index: BlockIndex!, token: BlockToken! };
    NextToken = page.NextToken;
  } while (NextToken);
}

/** @throws {CommandError} for a block that is not what its checksum says */
async function fetchBlock(
  ebs: EBSClient,
  snapshotId: string,
  { index, token }: ListedBlock,
): Promise<{ data: Buffer; sha256: string }> {
  const answer = await ebs.send(
    new GetSnapshotBlockCommand({ SnapshotId: snapshotId, BlockIndex: index, BlockToken: token }),
  );
  const data = Buffer.from(await answer.BlockData!.transformToByteArray());
  const sha256 = hash('sha256', data, 'base64');
  if (data.length !== blockBytes || sha256 !== answer.Checksum)
    throw new CommandError(`block ${index} of ${snapshotId} arrived damaged: its SHA-256 is not the one announced`);
  return { data, sha256 };
}
