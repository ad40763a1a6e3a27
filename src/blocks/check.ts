// Walks a block store and says what is wrong with it: manifests that can't be trusted, blocks that are missing or not
// what was stored, and blocks that nothing refers to. Hosts may work on the store meanwhile.
//
// What changes under the check never looks like a fault. Snapshots that are being made have a mark, and their blocks are
// nobody's garbage; neither are blocks younger than an hour. Snapshots that are being freed say so, and may lack blocks.
// Everything else that looks wrong is looked at once more before it is reported or dropped.

import { setImmediate as turn } from 'node:timers/promises';
import { alignedBuffer } from './aligned.ts';
import { BlockSet } from './block-set.ts';
import type { Manifest } from './manifest.ts';
import { DamagedManifest } from './manifest.ts';
import { readManifest } from './read-manifest.ts';
import { type BlockName, type BlockStore, blockBytes, StoreError } from './store.ts';

const readersMax = 4;
const youngMs = 60 * 60 * 1000;
const dropBatchBlocks = 1000;
/** Problems listed of each kind; all are counted. */
const listedMax = 10_000;
/** So many blocks in a row that the store can't read at all: it is the store, not the blocks. */
const unreadableMax = 16;

export interface CheckOptions {
  /** Does not read blocks, only looks whether they are there. */
  readonly quick?: boolean;
  /** Drops the blocks that nothing refers to. */
  readonly repair?: boolean;
  readonly signal?: AbortSignal;
  /** Bytes of blocks that were read, of how many. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  /** ms since the epoch; for tests */
  readonly now?: () => number;
}

export interface BlockProblem extends BlockName {
  /** `missing`: not there. `corrupt`: not what was stored. `unreadable`: the store fails to read it. */
  readonly kind: 'missing' | 'corrupt' | 'unreadable';
  readonly message: string;
  /** Those that lack it now. */
  readonly snapshotIds: readonly string[];
}

export interface CheckReport {
  readonly location: string;
  readonly storeId: string;
  /** Snapshots with a good manifest, those that are being freed left out. */
  readonly snapshots: number;
  /** Blocks that they name, each counted once. */
  readonly blocks: number;
  readonly blocksRead: number;
  readonly damagedManifests: readonly { readonly snapshotId: string; readonly message: string }[];
  /** At most 10,000; `problemCount` counts all. */
  readonly problems: readonly BlockProblem[];
  readonly problemCount: number;
  readonly unreferenced: {
    readonly blocks: number;
    readonly bytes: number;
    readonly owners: readonly { readonly snapshotId: string; readonly blocks: number }[];
  };
  /** Blocks that nothing refers to, but too young to tell. */
  readonly recentBlocks: number;
  readonly beingMade: readonly string[];
  readonly beingFreed: readonly string[];
  /** With `repair`: blocks that were dropped, or why none were. */
  readonly dropped?: number;
  readonly notRepaired?: string;
}

/** Whether nothing is wrong (any more). */
export function isFine(report: CheckReport): boolean {
  const left = report.unreferenced.blocks - (report.dropped ?? 0);
  return report.damagedManifests.length === 0 && report.problemCount === 0 && left === 0;
}

/** Rejects with StoreError when the store itself can't be worked with, and with the signal's reason. */
export async function checkStore(store: BlockStore, options: CheckOptions = {}): Promise<CheckReport> {
  return new Check(store, options).run();
}

interface Problem {
  readonly kind: BlockProblem['kind'];
  readonly message: string;
  readonly snapshotIds: Set<string>;
}

class Check {
  readonly #store: BlockStore;
  readonly #options: CheckOptions;
  /** Manifests that were looked at, good or damaged. */
  readonly #seen = new Set<string>();
  readonly #standing: string[] = [];
  readonly #damaged: { snapshotId: string; message: string }[] = [];
  readonly #named = new BlockSet();
  readonly #namedByFreed = new BlockSet();
  readonly #problems = new Map<string, Problem>();
  #problemCount = 0;
  #blocksRead = 0;
  #unreadableInARow = 0;

  constructor(store: BlockStore, options: CheckOptions) {
    this.#store = store;
    this.#options = options;
  }

  async run(): Promise<CheckReport> {
    const { signal, quick, repair } = this.#options;
    // What is being made is asked first: one that ends meanwhile is then among the manifests.
    const making = await collect(this.#store.listMarks(signal));
    await this.#readManifests(await collect(this.#store.listManifests(signal)));
    const present = await this.#listBlocks();
    this.#findMissing(present.namedAndThere);
    if (!quick || this.#problemCount > 0) await this.#readBlocks(present.namedAndThere);
    await this.#lookAgain();
    const candidates = await this.#unreferenced(present.others, making);
    const notRepaired = repair ? this.#reasonNotToRepair() : undefined;
    const dropped = repair && !notRepaired ? await this.#drop(candidates.old) : undefined;
    const owners = [...candidates.old.owners()].map((snapshotId) => ({
      snapshotId,
      blocks: count(candidates.old.indexesOf(snapshotId)),
    }));
    return {
      location: this.#store.location,
      storeId: this.#store.id,
      snapshots: this.#standing.length,
      blocks: this.#named.size,
      blocksRead: this.#blocksRead,
      damagedManifests: this.#damaged,
      problems: this.#listProblems(),
      problemCount: this.#problemCount,
      unreferenced: { blocks: candidates.old.size, bytes: candidates.old.size * blockBytes, owners },
      recentBlocks: candidates.young,
      beingMade: await collect(this.#store.listMarks(signal)),
      beingFreed: await collect(this.#store.listFreeing(signal)),
      ...(dropped !== undefined && { dropped }),
      ...(notRepaired !== undefined && { notRepaired }),
    };
  }

  /** Takes in what manifests name. */
  async #readManifests(snapshotIds: readonly string[]): Promise<void> {
    const { signal } = this.#options;
    const freed = new Set(await collect(this.#store.listFreeing(signal)));
    for (const snapshotId of snapshotIds) {
      if (this.#seen.has(snapshotId)) continue;
      this.#seen.add(snapshotId);
      const manifest = await this.#tryManifest(snapshotId);
      if (!manifest) continue;
      if (!freed.has(snapshotId)) this.#standing.push(snapshotId);
      const names = freed.has(snapshotId) ? this.#namedByFreed : this.#named;
      for (let position = 0; position < manifest.blocks; position++) names.add(nameAt(manifest, position));
    }
  }

  /** Undefined when it is gone, and when it is damaged, which is noted. */
  async #tryManifest(snapshotId: string): Promise<Manifest | undefined> {
    try {
      return await readManifest(this.#store, snapshotId, this.#options.signal);
    } catch (error) {
      if (!(error instanceof DamagedManifest)) throw error;
      if (!this.#damaged.some((each) => each.snapshotId === snapshotId)) {
        this.#damaged.push({ snapshotId, message: error.message });
      }
      return undefined;
    }
  }

  async #listBlocks(): Promise<{ readonly namedAndThere: BlockSet; readonly others: BlockSet }> {
    const namedAndThere = new BlockSet();
    const others = new BlockSet();
    for await (const name of this.#store.listBlocks(undefined, this.#options.signal)) {
      (this.#named.has(name) ? namedAndThere : others).add(name);
    }
    return { namedAndThere, others };
  }

  #findMissing(there: BlockSet): void {
    if (there.size === this.#named.size) return;
    for (const owner of this.#named.owners()) {
      for (const index of this.#named.indexesOf(owner)) {
        const name = { owner, index };
        if (there.has(name)) continue;
        this.#note(name, 'missing', `block ${index} of ${owner} is missing in the block store`);
      }
    }
  }

  /** Reads every block once, unless the check is a quick one, and finds out whose the missing ones are. */
  async #readBlocks(there: BlockSet): Promise<void> {
    const { signal, onProgress, quick } = this.#options;
    const done = new BlockSet();
    const totalBytes = there.size * blockBytes;
    onProgress?.(0, totalBytes);
    for (const snapshotId of this.#standing) {
      const manifest = await this.#tryManifest(snapshotId);
      let next = 0;
      const reader = async () => {
        const bytes = alignedBuffer(blockBytes);
        while (manifest && next < manifest.blocks) {
          signal?.throwIfAborted();
          const position = next++;
          const name = nameAt(manifest, position);
          if (!quick && there.has(name) && done.add(name)) {
            await this.#readBlock(name, manifest.sha256At(position), bytes);
            this.#blocksRead += 1;
            onProgress?.(this.#blocksRead * blockBytes, totalBytes);
          } else if (position % 65_536 === 0) await turn();
          this.#problems.get(keyOf(name))?.snapshotIds.add(snapshotId);
        }
      };
      await Promise.all(Array.from({ length: quick ? 1 : readersMax }, reader));
    }
  }

  async #readBlock(name: BlockName, sha256: Buffer, bytes: Buffer): Promise<void> {
    try {
      await this.#store.getBlock(name, sha256, bytes, this.#options.signal);
      this.#unreadableInARow = 0;
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      if (error.code === 'Missing') this.#note(name, 'missing', error.message);
      else if (error.code === 'Corrupt') this.#note(name, 'corrupt', error.message);
      else {
        if (++this.#unreadableInARow > unreadableMax || error.code === 'Denied') throw error;
        this.#note(name, 'unreadable', error.message);
      }
    }
  }

  #note(name: BlockName, kind: Problem['kind'], message: string): void {
    this.#problemCount += 1;
    if (this.#problems.size < listedMax) this.#problems.set(keyOf(name), { kind, message, snapshotIds: new Set() });
  }

  /** Blocks of snapshots that went away meanwhile are no problem; nor are those that were not there for a moment. */
  async #lookAgain(): Promise<void> {
    const { signal } = this.#options;
    if (this.#problems.size === 0) return;
    // In this order: one that lost blocks meanwhile is among those that are being freed, or its manifest is gone by then.
    const freed = await collect(this.#store.listFreeing(signal));
    const standing = new Set(await collect(this.#store.listManifests(signal)));
    for (const snapshotId of freed) standing.delete(snapshotId);
    for (const [key, { kind, snapshotIds }] of this.#problems) {
      for (const snapshotId of snapshotIds) if (!standing.has(snapshotId)) snapshotIds.delete(snapshotId);
      const isBack = kind === 'missing' && (await this.#store.blockStoredAt(nameOf(key), signal)) !== undefined;
      if (snapshotIds.size > 0 && !isBack) continue;
      this.#problems.delete(key);
      this.#problemCount -= 1;
    }
  }

  async #unreferenced(
    others: BlockSet,
    making: readonly string[],
  ): Promise<{ readonly old: BlockSet; readonly young: number }> {
    const { signal, now = Date.now } = this.#options;
    const busy = new Set([...making, ...(await this.#busyOwners())]);
    // Those that were begun and finished since the check began: a long one can take hours.
    await this.#readManifests(await collect(this.#store.listManifests(signal)));
    const old = new BlockSet();
    let young = 0;
    for (const owner of others.owners()) {
      if (busy.has(owner)) continue;
      for (const index of others.indexesOf(owner)) {
        const name = { owner, index };
        if (this.#named.has(name) || this.#namedByFreed.has(name)) continue;
        const storedAt = await this.#store.blockStoredAt(name, signal);
        if (storedAt === undefined) continue;
        if (now() - storedAt < youngMs) young += 1;
        else old.add(name);
      }
    }
    return { old, young };
  }

  #reasonNotToRepair(): string | undefined {
    if (this.#damaged.length === 0) return undefined;
    const ids = this.#damaged.map(({ snapshotId }) => snapshotId).join(', ');
    return `what the damaged manifests name can't be known, and may be among these blocks: ${ids}`;
  }

  /** Drops blocks in batches. Before each one, looks whether something refers to them by now. */
  async #drop(blocks: BlockSet): Promise<number> {
    const { signal } = this.#options;
    let dropped = 0;
    let batch: BlockName[] = [];
    const flush = async () => {
      const busy = await this.#busyOwners();
      await this.#readManifests(await collect(this.#store.listManifests(signal)));
      if (this.#damaged.length > 0) return;
      const free = batch.filter(
        (name) => !busy.has(name.owner) && !this.#named.has(name) && !this.#namedByFreed.has(name),
      );
      await this.#store.deleteBlocks(free, signal);
      dropped += free.length;
      batch = [];
    };
    for (const owner of blocks.owners()) {
      for (const index of blocks.indexesOf(owner)) {
        batch.push({ owner, index });
        if (batch.length === dropBatchBlocks) await flush();
      }
    }
    if (batch.length > 0) await flush();
    await this.#store.sync();
    return dropped;
  }

  /** Snapshots that are being made or freed now. */
  async #busyOwners(): Promise<Set<string>> {
    const { signal } = this.#options;
    const making = await collect(this.#store.listMarks(signal));
    return new Set([...making, ...(await collect(this.#store.listFreeing(signal)))]);
  }

  /** By name: they were found by readers that don't wait for each other, and two checks should say the same. */
  #listProblems(): BlockProblem[] {
    const problems = [...this.#problems].map(([key, { kind, message, snapshotIds }]) => ({
      kind,
      ...nameOf(key),
      snapshotIds: [...snapshotIds].sort(),
      message,
    }));
    return problems.sort((a, b) => (a.owner === b.owner ? a.index - b.index : a.owner < b.owner ? -1 : 1));
  }
}

function nameAt(manifest: Manifest, position: number): BlockName {
  return { owner: manifest.ownerAt(position), index: manifest.indexAt(position) };
}

function keyOf({ owner, index }: BlockName): string {
  return `${owner}/${index}`;
}

function nameOf(key: string): BlockName {
  const slash = key.indexOf('/');
  return { owner: key.slice(0, slash), index: Number(key.slice(slash + 1)) };
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

function count(items: Iterable<unknown>): number {
  let number = 0;
  for (const _ of items) number += 1;
  return number;
}
