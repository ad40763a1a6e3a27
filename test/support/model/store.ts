/** The block store itself: whether it has what it should, also while it is worked on, and what becomes of it when it is away. */
import { type CheckReport, checkStore, isFine } from '../../../src/blocks/check.ts';
import { openStore } from '../../../src/blocks/open-store.ts';
import { readManifest } from '../../../src/blocks/read-manifest.ts';
import type { BlockStore } from '../../../src/blocks/store.ts';
import { isOfKill, reconcile } from './kills.ts';
import { readSomeSnapshot } from './snapshots.ts';
import { interruptible, isRefusal, type Step, sideBySide } from './together.ts';
import { burst, Traffic } from './traffic.ts';
import { type ModelWorld, pause, waitFor } from './world.ts';

/** To a check that is made at this time, nothing is too young to be garbage. */
const later = () => Date.now() + 2 * 3600_000;

async function withStore<Result>(world: ModelWorld, use: (store: BlockStore) => Promise<Result>): Promise<Result> {
  const store = await openStore(world.store.location, { create: false });
  try {
    return await use(store);
  } finally {
    store.close();
  }
}

/** At any time everything that stands is whole, and nothing is there that nobody answers for. */
export async function lookAtStore(world: ModelWorld): Promise<void> {
  world.note('look at the store');
  const report = await withStore(world, (store) => checkStore(store, { quick: world.random.oneIn(2), now: later }));
  if (!isFine(report)) throw new Error(`the store is not fine: ${JSON.stringify(report)}`);
}

/** When all work is done the store has the snapshots that there are, what they need, and nothing else. */
export async function storeIsFine(world: ModelWorld): Promise<void> {
  // What a snapshot is based on stays until it is completed.
  const parents = [...world.uploads.values()].map(({ parentId }) => parentId).filter((id) => id !== undefined);
  const expected = listed([...world.snapshots.keys(), ...parents]);
  const uploads = listed([...world.uploads.keys()]);
  let report: CheckReport | undefined;
  let standing: readonly string[] = [];
  await withStore(world, async (store) => {
    await waitFor('the store to have what is needed and nothing else', async () => {
      report = await checkStore(store, { now: later });
      if (report.damagedManifests.length > 0 || report.problemCount > 0) throw new Error('the store has problems');
      standing = await Array.fromAsync(store.listManifests());
      const isIdle = report.beingFreed.length === 0 && listed(report.beingMade) === uploads;
      return isFine(report) && isIdle && listed(standing) === expected;
    });
    for (const id of standing) await storesOnlyChanges(store, id);
  }).catch((error) => {
    throw new Error(`${error.message}: ${JSON.stringify(report)}, snapshots ${listed(standing)}, not ${expected}`);
  });
}

/** A snapshot stores no block that the one that it is based on has the same. */
async function storesOnlyChanges(store: BlockStore, snapshotId: string): Promise<void> {
  const manifest = await readManifest(store, snapshotId);
  const [parentId] = manifest?.header.ancestors ?? [];
  const parent = parentId && (await readManifest(store, parentId));
  if (!manifest || !parent) return;
  for (const { owner, index, sha256 } of manifest.entries()) {
    const position = parent.find(index);
    if (owner === snapshotId && position >= 0 && parent.sha256At(position).equals(sha256))
      throw new Error(`${snapshotId} stores block ${index}, which is that of ${parentId}`);
  }
}

const listed = (ids: readonly string[]) => [...new Set(ids)].sort().join(' ');

/** The block store goes away for a while, in the middle of things, and comes back. */
export async function storeAway(world: ModelWorld): Promise<void> {
  const { random } = world;
  const volumes = random.shuffle([...world.volumes.values()].filter(({ attached }) => attached.length > 0));
  const traffic = await Traffic.begin(world, volumes.slice(0, random.below(3)));
  const steps = Array.from({ length: 1 + random.below(3) }, () =>
    random.pick([...interruptible, readSomeSnapshot, io]),
  );
  world.note(`without the store: ${steps.map(({ name }) => name).join(', ')}`);
  const isEarly = random.oneIn(2);
  let working = isEarly ? sideBySide(world, steps, mayFail) : undefined;
  if (isEarly) await pause(random.below(20));
  world.removeStore();
  working ??= sideBySide(world, steps, mayFail);
  working.catch(() => {});
  await pause(random.below(1200));
  if (random.oneIn(3)) await world.kill('host');
  await pause(random.below(300));
  world.returnStore();
  // Some of the steps wait for the traffic to end.
  await traffic.end();
  await working;
  world.isWithoutStore = false;
  await reconcile(world);
}

const mayFail = (error: Error) => isRefusal(error) || isOfKill(error);

const io: Step = async function io(world) {
  const volumes = [...world.volumes.values()].filter((volume) => world.usable(volume).length > 0);
  if (volumes.length > 0) await burst(world, world.random.pick(volumes), 20);
};
