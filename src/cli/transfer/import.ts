/** `coffer snapshot import`: a disk image becomes a snapshot, through the EBS direct APIs. */
import { createHash, hash } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import {
  CompleteSnapshotCommand,
  EBSClient,
  ListSnapshotBlocksCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
} from '@aws-sdk/client-ebs';
import { blockBytes } from '../../blocks/store.ts';
import { Connection, type ConnectionOptions } from '../connection.ts';
import { CommandError, exitCodes } from '../errors.ts';
import { type ImageFormat, type ImageSource, isZeroBlock, openSource } from './image-source.ts';
import { stateDirectory, TransferJournal } from './journal.ts';
import { forEachParallel } from './parallel.ts';
import { Progress, sizeText } from './progress.ts';

const gib = 2 ** 30;
/** Minutes without a block after which the server gives an import up: long enough to resume one the next day. */
const timeoutMinutes = 24 * 60;

export interface ImportOptions extends ConnectionOptions {
  readonly format?: ImageFormat;
  readonly size?: number;
  readonly description?: string;
  readonly encrypted?: boolean;
  readonly kmsKeyId?: string;
  readonly parent?: string;
  readonly tag: readonly string[];
  readonly parallel: number;
  readonly resume?: string;
  readonly quiet?: boolean;
  readonly json?: boolean;
}

interface ImportHeader {
  readonly snapshotId: string;
  readonly endpoint: string;
  readonly region: string;
  readonly source: ImageSource['identity'] | null;
  readonly parent: string | null;
  /** GiB; absent in journals of earlier versions, as what follows. */
  readonly volumeSize?: number;
  /** As it was named, or null. */
  readonly format?: ImageFormat | null;
}

export interface ImportResult {
  readonly SnapshotId: string;
  readonly VolumeSize: number;
  readonly BlocksWritten: number;
}

export async function importImage(path: string, options: ImportOptions): Promise<ImportResult> {
  const file = path === '-' ? path : resolve(path);
  const connection = new Connection(options);
  const ebs = new EBSClient({ ...connection.sdkConfiguration(), maxAttempts: 6 });
  let source: ImageSource | undefined;
  try {
    const earlier = options.resume === undefined ? undefined : resumed(options.resume, connection, options);
    const opened = await openSource(file, options.format ?? earlier?.header.format ?? undefined, options.parallel);
    source = opened;
    if (earlier) checkSame(earlier.header, opened);
    return await connection.translate(() => transfer(ebs, connection, opened, options, earlier));
  } finally {
    ebs.destroy();
    connection.close();
    await source?.close();
  }
}

async function transfer(
  ebs: EBSClient,
  connection: Connection,
  source: ImageSource,
  options: ImportOptions,
  earlier: TransferJournal<ImportHeader> | undefined,
): Promise<ImportResult> {
  const sizeGib = earlier?.header.volumeSize ?? volumeSize(source, options);
  await source.begin?.();
  const journal = earlier ?? (await started(ebs, connection, source, options, sizeGib));
  const { snapshotId } = journal.header;
  // Said before anything can come between: whoever is killed says nothing any more.
  if (!options.quiet && !earlier) process.stderr.write(`coffer: importing into ${snapshotId}\n`);
  const sizeBytes = source.sizeBytes ?? sizeGib * gib;
  const progress = new Progress('importing', sizeBytes, { isQuiet: options.quiet });
  const interruption = interruptions();
  // Where the image holds nothing, a parent's blocks would show through: zeros take their place.
  const toClear = journal.header.parent ? await blocksOf(ebs, journal.header.parent) : new Set<number>();
  const put = async (index: number, data: Buffer, digest: string) => {
    await ebs.send(
      new PutSnapshotBlockCommand({
        SnapshotId: snapshotId,
        BlockIndex: index,
        BlockData: data,
        DataLength: blockBytes,
        Checksum: digest,
        ChecksumAlgorithm: 'SHA256',
        Progress: Math.min(100, Math.floor((index * blockBytes * 100) / sizeBytes)),
      }),
    );
    journal.add([{ index, sha256: digest }]);
  };
  let last = -1;
  let isTooLarge = false;
  try {
    await forEachParallel(source.blocks(), options.parallel, async ({ index, read }) => {
      interruption.throwIfAny();
      if (index >= sizeGib * (gib / blockBytes)) {
        isTooLarge = true;
        throw new CommandError(`the image is larger than ${sizeGib} GiB; import it anew, with its size as --size`);
      }
      progress.add((index - last - 1) * blockBytes, false);
      last = index;
      const data = await read();
      const digest = hash('sha256', data, 'base64');
      const earlier = journal.done.get(index);
      const isNeeded = earlier === undefined ? toClear.has(index) || !isZeroBlock(data) : earlier !== digest;
      toClear.delete(index);
      if (isNeeded) await put(index, data, digest);
      progress.add(blockBytes, isNeeded);
    });
    // A stream that ends before it did the last time.
    for (const index of journal.done.keys()) if (index > last) toClear.add(index);
    const zeros = Buffer.alloc(blockBytes);
    const digest = hash('sha256', zeros, 'base64');
    await forEachParallel(toClear, options.parallel, async (index) => {
      interruption.throwIfAny();
      if (journal.done.get(index) !== digest) await put(index, zeros, digest);
    });
    interruption.throwIfAny();
  } catch (error) {
    progress.end();
    if (isTooLarge) journal.remove();
    else process.stderr.write(`coffer: the import stopped; go on with: ${resumption(snapshotId, source, options)}\n`);
    throw error;
  } finally {
    interruption.stop();
  }
  await ebs.send(
    new CompleteSnapshotCommand({
      SnapshotId: snapshotId,
      ChangedBlocksCount: journal.done.size,
      Checksum: aggregate(journal.done),
      ChecksumAlgorithm: 'SHA256',
      ChecksumAggregationMethod: 'LINEAR',
    }),
  );
  journal.remove();
  progress.add(Math.max(0, sizeBytes - (last + 1) * blockBytes), false);
  progress.end();
  return { SnapshotId: snapshotId, VolumeSize: sizeGib, BlocksWritten: journal.done.size };
}

/** GiB. @throws {CommandError} when it is not known, or too small for the image */
function volumeSize(source: ImageSource, options: ImportOptions): number {
  if (source.sizeBytes === undefined) {
    if (options.size === undefined)
      throw new CommandError(
        'name the size of the volume with --size GIB: it is not known of standard input',
        exitCodes.usage,
      );
    return options.size;
  }
  if (source.sizeBytes === 0) throw new CommandError('the image is empty', exitCodes.usage);
  const needed = Math.ceil(source.sizeBytes / gib);
  if (options.size !== undefined && options.size < needed)
    throw new CommandError(
      `the image has ${sizeText(source.sizeBytes)}; --size must be ${needed} at least`,
      exitCodes.usage,
    );
  return options.size ?? needed;
}

async function started(
  ebs: EBSClient,
  connection: Connection,
  source: ImageSource,
  options: ImportOptions,
  sizeGib: number,
): Promise<TransferJournal<ImportHeader>> {
  const { SnapshotId } = await ebs.send(
    new StartSnapshotCommand({
      VolumeSize: sizeGib,
      Timeout: timeoutMinutes,
      Description: options.description,
      ParentSnapshotId: options.parent,
      ...(options.encrypted || options.kmsKeyId ? { Encrypted: true } : {}),
      KmsKeyArn: options.kmsKeyId,
      ...(options.tag.length > 0 ? { Tags: options.tag.map(tagOf) } : {}),
    }),
  );
  const path = journalPath(SnapshotId!);
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  return TransferJournal.create<ImportHeader>(path, {
    snapshotId: SnapshotId!,
    endpoint: connection.endpoint.url,
    region: connection.region,
    source: source.identity ?? null,
    parent: options.parent ?? null,
    volumeSize: sizeGib,
    format: options.format ?? null,
  });
}

/** The indexes of a snapshot's blocks. */
async function blocksOf(ebs: EBSClient, snapshotId: string): Promise<Set<number>> {
  const indexes = new Set<number>();
  let NextToken: string | undefined;
  do {
    const page = await ebs.send(
      new ListSnapshotBlocksCommand({ SnapshotId: snapshotId, MaxResults: 10_000, NextToken }),
    );
    for (const { BlockIndex } of page.Blocks ?? []) indexes.add(BlockIndex!);
    NextToken = page.NextToken;
  } while (NextToken);
  return indexes;
}

/** The command that goes on with an import. */
function resumption(snapshotId: string, source: ImageSource, options: ImportOptions): string {
  const { endpoint, profile, region, data } = options;
  const server = Object.entries({ endpoint, profile, region, data }).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, quoted(value)],
  );
  const words = ['coffer snapshot import --resume', snapshotId, ...server, quoted(source.identity?.path ?? '-')];
  return words.join(' ');
}

function quoted(word: string): string {
  return /^[\w./:@%+,=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function resumed(snapshotId: string, connection: Connection, options: ImportOptions): TransferJournal<ImportHeader> {
  const journal = TransferJournal.load<ImportHeader>(journalPath(snapshotId));
  if (!journal)
    throw new CommandError(
      `there is no record of an import into ${snapshotId} in ${stateDirectory()}; start it anew without --resume`,
      exitCodes.usage,
    );
  const { header } = journal;
  if (header.region !== connection.region)
    throw new CommandError(`the import into ${snapshotId} was begun in ${header.region}; name it with --region`);
  const { size, format } = options;
  if (size !== undefined && header.volumeSize !== undefined && size !== header.volumeSize)
    throw new CommandError(`${snapshotId} has ${header.volumeSize} GiB, not ${size}`, exitCodes.usage);
  if (format !== undefined && header.format !== undefined && format !== header.format)
    throw new CommandError(`the import into ${snapshotId} was begun with another --format`, exitCodes.usage);
  return journal;
}

/** Standard input is read again from its start: blocks that are the same are not sent again. @throws {CommandError} */
function checkSame({ snapshotId, source: then }: ImportHeader, source: ImageSource): void {
  if (then && JSON.stringify(then) !== JSON.stringify(source.identity))
    throw new CommandError(
      `the image is not the one that the import into ${snapshotId} began with (${then.path}, as it was then)`,
    );
}

function journalPath(snapshotId: string): string {
  if (!/^snap-[0-9a-f]+$/.test(snapshotId))
    throw new CommandError(`${JSON.stringify(snapshotId)} is not a snapshot id`, exitCodes.usage);
  return join(stateDirectory(), `import-${snapshotId}`);
}

function tagOf(text: string): { Key: string; Value: string } {
  const equals = text.indexOf('=');
  if (equals < 1) throw new CommandError(`${JSON.stringify(text)} is not a tag; write KEY=VALUE`, exitCodes.usage);
  return { Key: text.slice(0, equals), Value: text.slice(equals + 1) };
}

/** SHA-256 of the blocks' digests in the order of their indexes. Source: EBS API reference, CompleteSnapshot. */
export function aggregate(digests: ReadonlyMap<number, string>): string {
  const all = createHash('sha256');
  for (const [, digest] of [...digests].sort(([left], [right]) => left - right))
    all.update(Buffer.from(digest, 'base64'));
  return all.digest('base64');
}

/** Ctrl-C ends a transfer between two blocks, so that its journal says what is done. A second one ends it at once. */
export function interruptions() {
  let signal: NodeJS.Signals | undefined;
  const note = (name: NodeJS.Signals) => {
    if (signal) process.exit(130);
    signal = name;
  };
  process.on('SIGINT', note).on('SIGTERM', note);
  return {
    throwIfAny() {
      if (signal) throw new CommandError(`stopped by ${signal}`);
    },
    stop: () => void process.off('SIGINT', note).off('SIGTERM', note),
  };
}
