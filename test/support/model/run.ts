/** A run of the model: random steps, then the end, where everything is looked at and put away. */
import { join } from 'node:path';
import { filesUnder } from '../files.ts';
import { replaceInstance, runInstance, stopOrStart } from './instances.ts';
import { disableOrEnable, enableAll, killSomething, reconcile } from './kills.ts';
import {
  compareSnapshots,
  completed,
  copySnapshot,
  createSnapshot,
  createSnapshots,
  deleteSnapshot,
  readSnapshot,
  readSomeSnapshot,
  removeSnapshot,
} from './snapshots.ts';
import { lookAtStore, storeAway, storeIsFine } from './store.ts';
import { together } from './together.ts';
import { burst, readVolume } from './traffic.ts';
import { complete, upload } from './uploads.ts';
import {
  attach,
  attachTo,
  copyVolume,
  createVolume,
  deleteVolume,
  detach,
  detachFrom,
  grow,
  removeVolume,
} from './volumes.ts';
import { ModelWorld, type Place, waitFor } from './world.ts';

const instancesAt: readonly Place[] = ['home', 'home', 'home', 'abroad', 'neighbour'];

type Step = readonly [weight: number, step: (world: ModelWorld) => Promise<void>];
const steps: readonly Step[] = [
  [40, io],
  [14, readSomeVolume],
  [18, createSnapshot],
  [5, createSnapshots],
  [11, deleteSnapshot],
  [7, readSomeSnapshot],
  [4, compareSnapshots],
  [7, copySnapshot],
  [10, createVolume],
  [4, copyVolume],
  [4, deleteVolume],
  [14, attach],
  [7, detach],
  [3, grow],
  [2, stopOrStart],
  [2, replaceInstance],
  [8, upload],
  [2, disableOrEnable],
  [3, killSomething],
  [2, storeAway],
  [2, lookAtStore],
  [6, stepsTogether],
];

async function io(world: ModelWorld): Promise<void> {
  const volumes = [...world.volumes.values()].filter((volume) => world.usable(volume).length > 0);
  if (volumes.length === 0) return attach(world);
  await burst(world, world.random.pick(volumes), 10 + world.random.below(60));
}

async function readSomeVolume(world: ModelWorld): Promise<void> {
  const volumes = [...world.volumes.values()].filter((volume) => world.usable(volume).length > 0);
  if (volumes.length > 0) await readVolume(world, world.random.pick(volumes));
}

async function stepsTogether(world: ModelWorld): Promise<void> {
  await together(world);
  await reconcile(world);
}

export interface RunOptions {
  readonly seed: number;
  /** Requests and calls. */
  readonly stepsMax: number;
  readonly msMax: number;
  /** Taken from the list of steps, even if the time is up by then: on a slow machine making the world may take all of it. */
  readonly callsMin: number;
}

/** @returns what was done, how often. @throws with the seed and the last steps */
export async function runModel({ seed, stepsMax, msMax, callsMin }: RunOptions): Promise<ReadonlyMap<string, number>> {
  const world = await ModelWorld.create(seed);
  const startedAt = Date.now();
  try {
    for (const place of instancesAt) await runInstance(world, place, false);
    for (let count = 0; count < 3; count++) {
      await createVolume(world);
      await attach(world);
    }
    // Each run has its own likings, so that rare things come together now and then.
    const weighted = steps.map(([weight, step]) => [weight * world.random.pick([0.3, 1, 1, 3]), step] as const);
    let calls = 0;
    while (calls < callsMin || (world.steps < stepsMax && Date.now() - startedAt < msMax)) {
      const step = world.random.weighted(weighted);
      world.count(step.name);
      await step(world);
      if (world.disabled.size > 0 && world.random.oneIn(8)) await enableAll(world);
      if (++calls % 400 === 0) await lookAtAll(world);
    }
    await lookAtAll(world);
    await putAway(world);
  } catch (error) {
    const { stack } = error as Error;
    const log = process.env.COFFER_MODEL_KEEP ? `\n(data in ${world.server.dataDir})` : '';
    // Without the cause, which may drag along all of a connection's state.
    throw new Error(
      `COFFER_MODEL_SEED=${seed}, step ${world.steps}: ${stack}${log}\n${world.hostLog}\nLast steps:\n${world.history}`,
    );
  } finally {
    await world.end();
  }
  return world.counts;
}

/** Reads every volume and every snapshot, and walks the store. */
async function lookAtAll(world: ModelWorld): Promise<void> {
  world.note('look at everything');
  await enableAll(world);
  await reconcile(world);
  for (const snapshot of world.snapshots.values()) {
    await completed(world, snapshot);
    await readSnapshot(world, snapshot, Number.POSITIVE_INFINITY);
  }
  for (const instance of world.instances) if (!instance.isRunning) await stopOrStart(world);
  for (const volume of world.volumes.values()) {
    if (volume.attached.length === 0) {
      const instance = world.instances.find(({ place }) => place === volume.place)!;
      await attachTo(world, volume, instance.id);
      await readVolume(world, volume);
      await detachFrom(world, volume, volume.attached[0]!);
    } else await readVolume(world, volume);
  }
  await storeIsFine(world);
}

/** Deletes everything; nothing may be left of it. */
async function putAway(world: ModelWorld): Promise<void> {
  world.note('delete everything');
  for (const one of world.uploads.values()) await complete(world, one);
  for (const volume of [...world.volumes.values()]) {
    for (const attached of volume.attached) await detachFrom(world, volume, attached);
    await removeVolume(world, volume);
  }
  for (const snapshot of world.random.shuffle([...world.snapshots.values()])) await removeSnapshot(world, snapshot);
  const { dataDir } = world.server;
  await storeIsFine(world);
  const left = () => [
    ...filesUnder(join(dataDir, 'volumes')),
    ...filesUnder(join(dataDir, 'tasks')),
    ...['blocks', 'manifests', 'marks', 'freeing'].flatMap((name) => filesUnder(join(dataDir, 'snapshots', name))),
  ];
  await waitFor('all files to be gone', async () => left().length === 0, 60_000).catch((error) => {
    throw new Error(`${error.message}: ${left().join(' ')}`);
  });
}
