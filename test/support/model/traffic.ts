/** Reads and writes of the model's volumes: one after the other, side by side, and beside something else. */
import { type Connection, Disconnected } from './connection.ts';
import { blockBytes, type Change, type Contents, Sequence, unitBytes, unitsOf } from './contents.ts';
import type { ModelVolume, ModelWorld } from './world.ts';

const inFlightMax = 8;

/** A place and a length: around the hot blocks, mostly at the edges of units and blocks, where mistakes are. */
function place(world: ModelWorld, { hot, contents }: ModelVolume): { offset: number; length: number } {
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
    [1, () => blockBytes],
  ])();
  const from = Math.min(Math.max(0, offset), contents.sizeBytes - 1);
  return { offset: from, length: Math.min(length, contents.sizeBytes - from) };
}

function newChange(world: ModelWorld, volume: ModelVolume): Change {
  const kind = world.random.weighted([
    [12, 'write' as const],
    [2, 'zero' as const],
    [2, 'trim' as const],
  ]);
  return { kind, ...place(world, volume), write: kind === 'write' ? world.nextWrite() : 0 };
}

function take(taken: Set<number>, range: Pick<Change, 'offset' | 'length'>): boolean {
  const units = [...unitsOf({ ...range, kind: 'write', write: 0 })];
  if (units.some((unit) => taken.has(unit))) return false;
  for (const unit of units) taken.add(unit);
  return true;
}

/** Carries out a change, and notes in the model that it was, or that nobody knows. */
async function carryOut(connection: Connection, contents: Contents, change: Change, durably: boolean) {
  try {
    await connection.change(change, durably);
  } catch (error) {
    if (!(error instanceof Disconnected)) throw error;
    contents.apply(change, false);
    throw error;
  }
  contents.apply(change, true);
}

const words = ({ kind, offset, length, write }: Change) =>
  `${kind} ${length} at ${offset}${write ? ` (${write})` : ''}`;

/** A burst of requests on a volume, several in flight, none at the same unit. */
export async function burst(world: ModelWorld, volume: ModelVolume, requests: number): Promise<void> {
  const { random } = world;
  const attachments = world.usable(volume);
  for (let left = requests; left > 0; ) {
    const taken = new Set<number>();
    const work: Promise<void>[] = [];
    const begin = (one: Promise<void>) => {
      // Looked at when all of them have come to their end.
      one.catch(() => {});
      work.push(one);
    };
    for (let count = 1 + random.below(inFlightMax); count > 0 && left > 0; count--, left--) {
      const connection = await world.connection(random.pick(attachments));
      world.count('io');
      if (random.oneIn(12)) begin(connection.flush());
      else if (random.oneIn(3)) {
        const { offset, length } = place(world, volume);
        if (take(taken, { offset, length })) begin(readAndCheck(connection, volume, offset, length));
      } else {
        const change = newChange(world, volume);
        if (!take(taken, change)) continue;
        world.note(`${volume.id}: ${words(change)}`);
        begin(carryOut(connection, volume.contents, change, random.oneIn(10)));
      }
    }
    const settled = await Promise.allSettled(work);
    for (const one of settled) if (one.status === 'rejected') throw one.reason;
  }
}

async function readAndCheck(connection: Connection, { id, contents }: ModelVolume, offset: number, length: number) {
  contents.check(offset, await connection.read(offset, length), id);
}

/** Everything of a volume that was ever written, and something around it. */
export async function readVolume(world: ModelWorld, volume: ModelVolume): Promise<void> {
  const connection = await world.connection(world.random.pick(world.usable(volume)));
  const { contents, id } = volume;
  world.note(`${id}: read whole`);
  const blocks = new Set(contents.touchedBlocks());
  for (let count = 0; count < 3; count++) blocks.add(world.random.below(contents.sizeBytes / blockBytes));
  for (const block of [...blocks]) if ((block + 1) * blockBytes < contents.sizeBytes) blocks.add(block + 1);
  for (const block of blocks) {
    world.count('blocks read');
    await readAndCheck(connection, volume, block * blockBytes, blockBytes);
  }
}

/** A change made while something else went on. */
interface Made {
  readonly volume: ModelVolume;
  readonly change: Change;
  readonly sequence: Sequence;
  readonly position: number;
}

/**
 * Writers that go on beside something else, each one request after the other, over all the volumes in turn. Every unit is
 * changed at most once.
 */
export class Traffic {
  readonly #world: ModelWorld;
  readonly #volumes: readonly ModelVolume[];
  readonly #taken: ReadonlyMap<ModelVolume, Set<number>>;
  readonly #made: Made[] = [];
  readonly #inFlight = new Set<Made>();
  readonly #writers: Promise<void>[];
  #isEnding = false;

  private constructor(world: ModelWorld, volumes: readonly ModelVolume[], writers: number) {
    this.#world = world;
    this.#volumes = volumes;
    this.#taken = new Map(volumes.map((volume) => [volume, new Set<number>()]));
    this.#writers = volumes.length === 0 ? [] : Array.from({ length: writers }, () => this.#write());
    for (const one of this.#writers) one.catch(() => {});
  }

  /** Begins once all the volumes that can be used have connections; these are not renewed. */
  static async begin(world: ModelWorld, volumes: readonly ModelVolume[], writers = 2): Promise<Traffic> {
    for (const volume of volumes) for (const one of world.usable(volume)) await world.connection(one);
    return new Traffic(world, volumes, writers);
  }

  /** From now on: what is in flight, and what is begun later. Asked again, what has been begun since. */
  changesFromNow(): () => readonly Made[] {
    const inFlight = [...this.#inFlight];
    const position = this.#made.length;
    return () => [...inFlight, ...this.#made.slice(position)];
  }

  /** Ends; what broke because the connection did is not a failure. */
  async end(): Promise<void> {
    this.#isEnding = true;
    const settled = await Promise.allSettled(this.#writers);
    for (const one of settled) if (one.status === 'rejected' && !(one.reason instanceof Disconnected)) throw one.reason;
  }

  async #write(): Promise<void> {
    const world = this.#world;
    const sequence = new Sequence();
    for (let failures = 0; !this.#isEnding && failures < 20; ) {
      const volume = world.random.pick(this.#volumes);
      const open = volume.attached.map(({ connection }) => connection).filter((one) => one?.isOpen);
      const connection = open.length === 0 ? undefined : world.random.pick(open);
      const change = newChange(world, volume);
      if (!connection || !take(this.#taken.get(volume)!, change)) {
        failures++;
        continue;
      }
      const made = { volume, change, sequence, position: sequence.length++ };
      this.#made.push(made);
      this.#inFlight.add(made);
      world.note(`${volume.id}: ${words(change)}, meanwhile`);
      world.count('io beside');
      await carryOut(connection, volume.contents, change, world.random.oneIn(20));
      this.#inFlight.delete(made);
    }
  }
}

/** What a point in time of a volume holds that was fixed while `made` went on; `before`: the contents without those. */
export function contentsAtPoint(before: Contents, volume: ModelVolume, made: readonly Made[]): Contents {
  const contents = before.clone();
  for (const one of made) if (one.volume === volume) contents.applyToPoint(one.change, one.sequence, one.position);
  return contents;
}
