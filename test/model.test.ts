/**
 * A real server and its host, driven at random, against a model in memory: what every volume and every snapshot reads, whatever
 * is written, trimmed, snapshotted, copied, restored, grown, detached, deleted or killed meanwhile.
 *
 * Tests take the same steps each time; COFFER_MODEL_SEED=random searches further. COFFER_MODEL_SEED=N repeats a run (as far
 * as processes can be made to), COFFER_MODEL_STEPS or COFFER_MODEL_MINUTES make it as long as you like, COFFER_MODEL_STORE=s3
 * has it keep snapshots in a bucket of a Ceph gateway, COFFER_MODEL_LOG names a file for all steps, COFFER_MODEL_KEEP leaves
 * the server and its data.
 */
import { expect, test } from 'vitest';
import { runModel } from './support/model/run.ts';

const asked = process.env.COFFER_MODEL_SEED ?? '1';
const seed = asked === 'random' ? Math.floor(Math.random() * 2 ** 31) : Number(asked);
const minutes = Number(process.env.COFFER_MODEL_MINUTES ?? (process.env.COFFER_MODEL_STEPS ? 24 * 60 : 0.6));
const stepsMax = Number(process.env.COFFER_MODEL_STEPS ?? Number.POSITIVE_INFINITY);
const callsMin = process.env.COFFER_MODEL_STEPS ? 0 : 60;

test(
  `volumes and snapshots read what the model says (COFFER_MODEL_SEED=${seed})`,
  async () => {
    console.log(`COFFER_MODEL_SEED=${seed}`);
    const counts = await runModel({ seed, stepsMax, msMax: minutes * 60_000, callsMin });
    console.log([...counts].map(([what, count]) => `${what} ${count}`).join(', '));
    expect(counts.get('io')).toBeGreaterThan(0);
  },
  minutes * 60_000 + 600_000,
);
