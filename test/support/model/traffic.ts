/** Reads and writes of the model's volumes: one after the other, side by side, and beside something else. */
import type { Begun } from './change-log.ts';
import { type Connection, Disconnected, IoError } from './connection.ts';
import { blockBytes, type Change, type Contents, Sequence, unitBytes } from './contents.ts';
import { type ModelVolume, type ModelWorld, pause } from './world.ts';

const inFlightMax = 8;
const fillBlocks = 24;

/** A place and a length, for someone who knows the volume's size as `sizeBytes`: around the hot blocks, mostly at the edges of units and blocks, where mistakes are. */
function place(world: ModelWorld, { hot }: ModelVolume, sizeBytes: number): { offset: number; length: number } {
  const { random } = world;
  const block = random.pick(hot);
  const unitsOfBlock = blockBytes / unitBytes;
  const offset = random.weighted([
    [5, () => block * blockBytes + random.below(unitsOfBlock) * unitBytes],
    [2, () => block * blockBytes + random.below(20_000) - 10_000],
    [2, () => block * blockBytes + random.below(blockBytes)],
    [1, () => block * blockBytes],
  ])();
  const length = random.weighted([
    [6, () => unitBytes],
    [2, () => 1 + random.below(600)],
    [3, () => 1 + random.below(30_000)],
    [2, () => unitBytes * (1 + random.below(24))],
    [1, () => blockBytes * (1 + random.below(3))],
  ])();
  const from = Math.min(Math.max(0, offset), sizeBytes - 1);
  return { offset: from, length: Math.min(length, sizeBytes - from) };
}

function newChange(world: ModelWorld, volume: ModelVolume, sizeBytes: number): Change {
  const kind = world.random.weighted([
    [12, 'write' as const],
    [2, 'zero' as const],
    [1, 'allocate' as const],
    [2, 'trim' as const],
  ]);
  return { kind, ...place(world, volume, sizeBytes), write: kind === 'write' ? world.nextWrite() : 0 };
}

/** Carries out a change, and notes in the model that it was, or that nobody knows. */
async function carryOut(
  world: ModelWorld,
  connection: Connection,
  contents: Contents,
  change: Change,
  durably: boolean,
): Promise<void> {
  try {
    await connection.change(change, durably);
  } catch (failure) {
    const error = withoutStore(world, failure);
    if (error instanceof Disconnected) contents.apply(change, false);
    throw error;
  }
  contents.apply(change, true);
}

/** While the block store is away, what is not restored yet can't be read, nor be overwritten in part. */
function withoutStore(world: ModelWorld, error: unknown): unknown {
  return world.isWithoutStore && error instanceof IoError ? new Disconnected(error.message) : error;
}

const words = ({ kind, offset, length, write }: Change) =>
  `${kind} ${length} at ${offset}${write ? ` (${write})` : ''}`;

/** A burst of requests on a volume, several in flight, none at the same unit. */
export async function burst(world: ModelWorld, volume: ModelVolume, requests: number): Promise<void> {
  const { random, changes } = world;
  for (let left = requests; left > 0; ) {
    const work: Promise<void>[] = [];
    const begin = (one: Promise<void>, ended?: () => void) => {
      // Looked at when all of them have come to their end.
      one.catch(() => {});
      work.push(ended ? one.finally(ended) : one);
    };
    const attachments = world.usable(volume);
    if (attachments.length === 0) return;
    const connection = await world.connection(random.pick(attachments));
    for (let count = 1 + random.below(inFlightMax); count > 0 && left > 0; count--, left--) {
      world.count('io');
      if (random.oneIn(12)) begin(connection.flush());
      else if (random.oneIn(3)) {
        const { offset, length } = place(world, volume, connection.sizeBytes);
        const ended = changes.begin(volume, { kind: 'read', offset, length, write: 0 });
        if (ended) begin(readAndCheck(world, connection, volume, offset, length), ended);
      } else {
        const change = newChange(world, volume, connection.sizeBytes);
        const ended = changes.begin(volume, change);
        if (!ended) continue;
        world.note(`${volume.id}: ${words(change)}`);
        begin(carryOut(world, connection, volume.contents, change, random.oneIn(10)), ended);
      }
    }
    const settled = await Promise.allSettled(work);
    for (const one of settled) if (one.status === 'rejected') throw one.reason;
  }
}

async function readAndCheck(
  world: ModelWorld,
  connection: Connection,
  { id, contents }: ModelVolume,
  offset: number,
  length: number,
): Promise<void> {
  const bytes = await connection.read(offset, length).catch((error) => {
    throw withoutStore(world, error);
  });
  contents.check(offset, bytes, id);
}

/** Writes a stretch of whole blocks, so that there is something to restore and to copy for a while. */
export async function fill(world: ModelWorld, volume: ModelVolume): Promise<void> {
  const blocks = volume.contents.sizeBytes / blockBytes;
  const first = world.random.below(blocks - fillBlocks);
  const attachments = world.usable(volume);
  if (attachments.length === 0) return;
  const connection = await world.connection(world.random.pick(attachments));
  for (let block = first; block < first + fillBlocks; block++) {
    const change: Change = {
      kind: 'write',
      offset: block * blockBytes,
      length: blockBytes,
      write: world.nextWrite(),
    };
    const ended = world.changes.begin(volume, change);
    if (!ended) continue;
    world.note(`${volume.id}: ${words(change)}, to fill it`);
    world.count('io');
    await carryOut(world, connection, volume.contents, change, false).finally(ended);
  }
}

/** Everything of a volume that was ever written, and something around it. */
export async function readVolume(world: ModelWorld, volume: ModelVolume): Promise<void> {
  const attachments = world.usable(volume);
  if (attachments.length === 0) return;
  const connection = await world.connection(world.random.pick(attachments));
  const { contents, id } = volume;
  world.note(`${id}: read whole`);
  const blocks = new Set(contents.touchedBlocks());
  for (let count = 0; count < 3; count++) blocks.add(world.random.below(contents.sizeBytes / blockBytes));
  for (const block of [...blocks]) if ((block + 1) * blockBytes < contents.sizeBytes) blocks.add(block + 1);
  for (const block of blocks) {
    const range = { offset: block * blockBytes, length: blockBytes };
    const ended = world.changes.begin(volume, { kind: 'read', ...range, write: 0 });
    if (!ended) continue;
    world.count('blocks read');
    await readAndCheck(world, connection, volume, range.offset, range.length).finally(ended);
  }
}

/** Writers that go on beside something else, each one request after the other, over all the volumes in turn. */
export class Traffic {
  readonly #world: ModelWorld;
  readonly #volumes: readonly ModelVolume[];
  readonly #writers: Promise<void>[];
  #isEnding = false;

  private constructor(world: ModelWorld, volumes: readonly ModelVolume[], writers: number) {
    this.#world = world;
    this.#volumes = volumes;
    this.#writers = volumes.length === 0 ? [] : Array.from({ length: writers }, () => this.#write());
    for (const one of this.#writers) one.catch(() => {});
  }

  /** Begins once all the volumes that can be used have connections; these are not renewed. */
  static async begin(world: ModelWorld, volumes: readonly ModelVolume[], writers = 2): Promise<Traffic> {
    for (const volume of volumes) for (const one of world.usable(volume)) await world.connection(one).catch(ignoreGone);
    return new Traffic(world, volumes, writers);
  }

  /** Ends; what broke because the connection did is not a failure. */
  async end(): Promise<void> {
    this.#isEnding = true;
    for (const one of await Promise.allSettled(this.#writers)) if (one.status === 'rejected') ignoreGone(one.reason);
  }

  async #write(): Promise<void> {
    const world = this.#world;
    const sequence = new Sequence();
    for (let failures = 0; !this.#isEnding && failures < 20; ) {
      const volume = world.random.pick(this.#volumes);
      const open = volume.attached.map(({ connection }) => connection).filter((one) => one?.isOpen);
      const connection = open.length === 0 ? undefined : world.random.pick(open);
      const change = newChange(world, volume, connection?.sizeBytes ?? volume.contents.sizeBytes);
      const ended = connection && world.changes.begin(volume, change, sequence);
      if (!connection || !ended) {
        failures++;
        // Others may have to end what they have in flight.
        await pause(0);
        continue;
      }
      world.note(`${volume.id}: ${words(change)}, meanwhile`);
      world.count('io beside');
      await carryOut(world, connection, volume.contents, change, world.random.oneIn(20)).finally(ended);
    }
  }
}

export function ignoreGone(error: unknown): void {
  if (!(error instanceof Disconnected)) throw error;
}

/**
 * What a point in time of a volume holds that was fixed while `begun` went on.
 * @param before the contents without those
 * @param sizeBytes the volume may have been grown meanwhile
 */
export function contentsAtPoint(
  before: Contents,
  volume: ModelVolume,
  begun: readonly Begun<ModelVolume>[],
  sizeBytes: number,
): Contents {
  const contents = before.clone(sizeBytes);
  for (const { change, sequence, position, ...one } of begun)
    if (one.volume === volume && change.kind !== 'read') contents.applyToPoint(change, sequence, position);
  return contents;
}
