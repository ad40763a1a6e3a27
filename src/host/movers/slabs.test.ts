import { expect, test } from 'vitest';
import { blockBytes } from '../../blocks/store.ts';
import { paceBeside, processorTime, utilizationBetween } from './pace.ts';
import { burstBlocks, Slabs } from './slabs.ts';

const blockMb = blockBytes / 1e6;

test('no more blocks are under way than there are slabs, and each has its turn', async () => {
  const slabs = new Slabs(3);
  let underWay = 0;
  let most = 0;
  const turns: number[] = [];
  const lend = (turn: number) =>
    slabs.lend(async () => {
      turns.push(turn);
      most = Math.max(most, ++underWay);
      await new Promise((resolve) => setImmediate(resolve));
      underWay--;
    });
  await Promise.all(Array.from({ length: 20 }, (_, turn) => lend(turn)));
  expect(most).toBe(3);
  expect(turns).toEqual(Array.from({ length: 20 }, (_, turn) => turn));
});

test('blocks pass in bursts at the pace that is given, and at once when there is none any more', async () => {
  let pace = 100;
  const slabs = new Slabs(8, () => pace);
  const pass = (blocks: number) => Promise.all(Array.from({ length: blocks }, () => slabs.lend(async () => {})));
  const began = performance.now();
  await pass(2 * burstBlocks + 1);
  // All but the last burst have been rested for. A timer may be a millisecond early.
  expect(performance.now() - began).toBeGreaterThan(((2 * burstBlocks * blockMb) / pace) * 1000 - 2);
  pace = 0.1;
  await pass(burstBlocks - 1);
  let isOver = false;
  const rest = pass(1000).then(() => (isOver = true));
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(isOver).toBe(false);
  pace = 0;
  await slabs.lend(async () => {}).then(() => rest);
});

test('the busier clients and processors, the slower, down to a pace at which snapshots still end', () => {
  expect(paceBeside(0, 1, 4)).toBe(0);
  expect(paceBeside(-100_000, 1, 4)).toBe(0);
  const paces = [0, 0.25, 0.5, 1].map((utilization) => paceBeside(10_000, utilization, 4));
  expect(paces).toEqual([4800, 432, 108, 48]);
});

test('the utilization of processors is what they were not idle', () => {
  const { total, idle } = processorTime();
  expect(total).toBeGreaterThan(idle);
  expect(utilizationBetween({ total, idle }, { total: total + 40, idle: idle + 30 })).toBe(0.25);
  // The kernel's ticks may be longer than what is looked at.
  expect(utilizationBetween({ total, idle }, { total, idle })).toBe(1);
});
