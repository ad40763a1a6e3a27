/**
 * Made-up requests to every operation that there is: none gives a 5xx, none that is refused changes anything, none takes
 * over 100 ms (more on a slow machine), and no secret comes back in a message or gets into the trail. What is asked is made by the SDK's schemas
 * (test/support/fuzz), so a new operation is asked too.
 *
 * The same requests each time, unless COFFER_FUZZ_SEED is another number or `random`; with COFFER_FUZZ_SECONDS it goes on
 * for so long (`Infinity`: until it finds something).
 */
import { describe, expect, test } from 'vitest';
import { AwsError } from '../src/aws/errors.ts';
import type { Operation } from '../src/aws/service.ts';
import { Arena } from './support/fuzz/arena.ts';
import { Fuzzer } from './support/fuzz/fuzzer.ts';

const { COFFER_FUZZ_SEED = '1' } = process.env;
const seed = COFFER_FUZZ_SEED === 'random' ? Math.floor(Math.random() * 2 ** 32) : Number(COFFER_FUZZ_SEED);
const seconds = Number(process.env.COFFER_FUZZ_SECONDS ?? 0);
const timeout = Math.min(2 ** 31 - 1, (seconds + 180) * 1000);
/** Requests that succeed wear a world out: after so many rounds it is replaced. */
const roundsPerWorld = 20;

describe(`made-up requests (COFFER_FUZZ_SEED=${seed})`, () => {
  test.each([
    ['past the socket', 'dispatch', 8],
    ['through the socket', 'send', 15],
  ] as const)(
    'get an answer at once, change nothing if refused, tell no secrets: %s',
    async (name, way, roundsMin) => {
      const end = performance.now() + seconds * 1000;
      const goOn = () => round < roundsMin || performance.now() < end;
      let round = 0;
      do {
        const arena = await Arena.create();
        try {
          const fuzzer = new Fuzzer(arena, way === 'send' ? seed + 1 : seed, way);
          const started = performance.now();
          let left = roundsPerWorld;
          // A world that was made is used, even if the time is up by now.
          do await fuzzer.round(round++);
          while (--left > 0 && goOn());
          const { requests, refused, operations, slowest, slowestMs } = fuzzer.tally;
          const perSecond = (requests / (performance.now() - started)) * 1000;
          console.log(
            `${name}: ${requests} requests (${refused} refused) to ${operations.size} operations, ` +
              `${perSecond.toFixed()}/s; slowest ${slowest}, ${slowestMs.toFixed()} ms`,
          );
          expect(fuzzer.faults.map(({ operation, what, request }) => `${operation}: ${what}\n${request}`)).toEqual([]);
          expect(await fuzzer.findSecrets()).toEqual([]);
          expect(operations.size).toBe(arena.targets.length);
        } finally {
          await arena.close();
        }
      } while (goOn());
    },
    timeout,
  );
});

test('operations that fail, change something and refuse, dawdle, tell secrets or let anyone in are found', async () => {
  const arena = await Arena.create();
  try {
    const refuse = () => {
      throw new AwsError('ValidationException', 'no');
    };
    let dawdled = 0;
    const instead: Record<string, Partial<Operation>> = {
      'kms:ListKeys': { handle: () => (undefined as unknown as { a: string }).a },
      'kms:DescribeKey': {
        effect: 'waits',
        async handle(call) {
          await call.transaction(({ db }) => db.updateTable('accounts').set({ name: call.requestId }).execute());
          return refuse();
        },
      },
      'sts:GetCallerIdentity': {
        // Three times, as often as one request is tried; too long for the slowest machine.
        handle: () => (dawdled++ < 3 ? new Promise((resolve) => setTimeout(resolve, 1000, {})) : {}),
      },
      'ec2:DescribeRegions': { access: () => [] },
      'iam:ListUsers': {
        handle() {
          const secret = [...arena.secrets.values()][0]!.toString('hex');
          throw new AwsError('ValidationError', `The secret is ${secret}`);
        },
      },
    };
    for (const { name, operation } of arena.targets) Object.assign(operation, instead[name]);
    const fuzzer = new Fuzzer(arena, 1, 'dispatch', ({ name }) => name in instead);
    for (let round = 0; round < 40; round++) await fuzzer.round(round);
    const found = new Set(
      fuzzer.faults.map(({ operation, what }) => `${operation} ${what.replace(/\d+ ms|\n.*/gs, '')}`),
    );
    expect([...found].sort()).toEqual([
      'ec2:DescribeRegions needs no permission',
      'kms:DescribeKey was refused, and yet it changed accounts',
      'kms:ListKeys status 500',
      'sts:GetCallerIdentity took ',
    ]);
    expect(await fuzzer.findSecrets()).toEqual(["root's secret, hex"]);
  } finally {
    await arena.close();
  }
});
