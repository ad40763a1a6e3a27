/**
 * Our policy evaluation beside another one: random cases decided by both must end alike.
 *
 * The other is `@cloud-copilot/iam-simulate`, licensed AGPL-3.0-or-later. It is a development dependency: these tests run
 * it as it comes from the registry, nothing of it is in our sources, and nothing that we hand out contains or needs it.
 * Grants are not part of IAM's policy language and not of the simulator; they have tests of their own
 * (src/iam/authorize.test.ts, src/kms/grants.test.ts).
 *
 * Where the two differ for a reason that AWS's documentation decides, or leaves open, the case is put to the simulator in
 * the words that mean to it what they mean to us: see `inTheirWords`, one rule for each such difference. After that there
 * must be no difference at all.
 *
 * The same cases each time, unless the environment asks for others:
 *
 * COFFER_COMPARISONS=1000000 bin/test test/iam-comparison.test.ts   as many cases as that
 * COFFER_SEED=random                                                others, or with a number those of a run that failed
 */
import { runSimulation } from '@cloud-copilot/iam-simulate';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Call } from '../src/aws/call.ts';
import { systemClock } from '../src/aws/clock.ts';
import type { AccessRequest } from '../src/aws/service.ts';
import { decide } from '../src/iam/authorize.ts';
import { requestContext } from '../src/iam/policy/context.ts';
import { conditionKeys, isList, type PolicyCase, policyCase, region } from './support/policy-cases.ts';
import { inTheirWords, withEverything, withoutRole } from './support/policy-translation.ts';

const { COFFER_COMPARISONS = '6000', COFFER_SEED = '1' } = process.env;
const runs = Number(COFFER_COMPARISONS);
const seed = COFFER_SEED === 'random' ? Math.floor(Math.random() * 2 ** 31) : Number(COFFER_SEED);

type Decision = 'Allowed' | 'ExplicitlyDenied' | 'ImplicitlyDenied';

const callOf = ({ principal }: PolicyCase) =>
  ({
    principal,
    account: principal.account,
    region,
    clock: systemClock,
    sourceIp: '10.0.0.1',
    userAgent: 'test',
  }) as Call;
const requestOf = (given: PolicyCase): AccessRequest => ({
  action: given.action,
  resource: given.resource,
  resourceAccount: given.account,
  ...(given.resourcePolicy ? { resourcePolicy: given.resourcePolicy } : {}),
  context: given.context,
});

async function ours(given: PolicyCase): Promise<Decision> {
  const { identity, boundary, session } = given;
  const permissions = { identity, boundary, session: session && [session], tags: {} };
  const denial = await decide(callOf(given), requestOf(given), permissions);
  if (!denial) return 'Allowed';
  return denial.explicit ? 'ExplicitlyDenied' : 'ImplicitlyDenied';
}

/** The whole context of the request as we make it, for the simulator, which makes none. */
function contextOf(given: PolicyCase): Record<string, string | string[]> {
  const context = requestContext(callOf(given), requestOf(given));
  return Object.fromEntries(
    conditionKeys.flatMap((key) => {
      const values = context.get(key);
      return values ? [[key, isList(key) ? [...values] : values[0]!]] : [];
    }),
  );
}

type Policies = Pick<PolicyCase, 'identity' | 'boundary' | 'session' | 'resourcePolicy'>;

async function simulated(given: PolicyCase, policies: Policies): Promise<Decision> {
  const { identity, boundary, session, resourcePolicy } = policies;
  const named = (policy: object, index: number) => ({ name: `policy-${index}`, policy });
  const result = await runSimulation(
    {
      request: {
        principal: given.principal.arn,
        action: given.action,
        resource: { resource: given.resource, accountId: given.account },
        contextVariables: contextOf(given),
      },
      identityPolicies: identity.map(named),
      ...(session ? { sessionPolicy: session } : {}),
      ...(boundary ? { permissionBoundaryPolicies: [named(boundary, 0)] } : {}),
      ...(resourcePolicy ? { resourcePolicy } : {}),
      serviceControlPolicies: [],
      resourceControlPolicies: [],
    },
    {},
  );
  if (result.resultType !== 'single') throw new Error(`not a case for the simulator: ${JSON.stringify(result)}`);
  expect(result.result.ignoredContextKeys).toEqual([]);
  return result.overallResult as Decision;
}

async function theirs(given: PolicyCase): Promise<Decision> {
  const policies = inTheirWords(given, contextOf(given));
  // IAM user guide, "Policy evaluation logic": what a resource's policy gives the session itself, no session policy limits.
  // The simulator lets session policies limit everything.
  const byResource = withoutRole(policies.resourcePolicy);
  const isUnlimited =
    policies.session !== undefined &&
    given.principal.account === given.account &&
    (await simulated(given, { identity: [], boundary: undefined, session: undefined, resourcePolicy: byResource })) ===
      'Allowed';
  return simulated(given, isUnlimited ? { ...policies, session: withEverything(policies.session!) } : policies);
}

/** Across accounts we don't tell how the resource's side refused, nor the caller's before that side has agreed. */
const toldApart = (given: PolicyCase, decision: Decision) =>
  given.principal.account !== given.account && decision !== 'Allowed' ? 'Denied' : decision;

describe('a random case is decided as by the other implementation', () => {
  const decisions: Record<string, number> = {};
  it(
    `in ${runs} cases from seed ${seed}`,
    async () => {
      await fc.assert(
        fc.asyncProperty(policyCase, async (given) => {
          const [mine, other] = [await ours(given), await theirs(given)];
          decisions[mine] = (decisions[mine] ?? 0) + 1;
          expect(toldApart(given, mine)).toBe(toldApart(given, other));
        }),
        { numRuns: runs, seed },
      );
    },
    180_000 + runs * 20,
  );
  it('of which many are allowed, and many refused in either way', () => {
    const { Allowed = 0, ExplicitlyDenied = 0, ImplicitlyDenied = 0 } = decisions;
    expect(Allowed).toBeGreaterThan(runs * 0.35);
    expect(Allowed).toBeLessThan(runs * 0.65);
    expect(ExplicitlyDenied).toBeGreaterThan(runs * 0.03);
    expect(ImplicitlyDenied).toBeGreaterThan(runs * 0.2);
  });
});
