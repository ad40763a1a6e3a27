/**
 * SimulatePrincipalPolicy and SimulateCustomPolicy: what policies would decide, without asking for anything.
 * Source: IAM API reference, SimulatePrincipalPolicy.
 */
import type {
  ContextEntry,
  EvaluationResult,
  SimulateCustomPolicyRequest,
  SimulatePolicyResponse,
  SimulatePrincipalPolicyRequest,
  Statement,
} from '@aws-sdk/client-iam';
import type { Call } from '../aws/call.ts';
import { type AccessRequest, operation, type PolicyDocument } from '../aws/service.ts';
import { list, required, text } from '../aws/validate.ts';
import { lowerCaseAscii } from '../aws/wildcard.ts';
import { check, invalidInput, noSuchEntity } from './errors.ts';
import { arnText, iamAccess, tablesOf } from './identities.ts';
import { type PageInput, pageAfter, pageOf, pageRules } from './paging.ts';
import type { RequestContext } from './policy/context.ts';
import { evaluateIdentityPolicy } from './policy/evaluate.ts';
import { policyText } from './policy-documents.ts';
import { parseIdentityPolicy } from './policy-grammar.ts';
import { identityArn } from './principals.ts';
import type { Identity } from './records.ts';

/** A policy and the name by which results refer to it. */
interface NamedDocument {
  readonly name: string;
  readonly type: Statement['SourcePolicyType'];
  readonly document: PolicyDocument;
}

interface Source {
  readonly policies: readonly NamedDocument[];
  readonly boundaries: readonly NamedDocument[];
  /** Condition keys that follow from who it is. */
  readonly known: Readonly<Record<string, string>>;
}

const commonRules = {
  ...pageRules,
  ActionNames: required(list(text({ min: 3, max: 128 }), { max: 100 })),
  ResourceArns: list(text({ min: 1, max: 2048 }), { max: 100 }),
  PolicyInputList: list(policyText, { max: 50 }),
  PermissionsBoundaryPolicyInputList: list(policyText, { max: 1 }),
  ResourcePolicy: policyText,
};

export const simulatePrincipalPolicy = operation<
  SimulatePrincipalPolicyRequest,
  SimulatePolicyResponse,
  Source | undefined
>({
  name: 'SimulatePrincipalPolicy',
  effect: 'reads',
  async resolve(call, input) {
    check(input, { ...commonRules, PolicySourceArn: required(arnText) });
    const identity = await findSource(call, input.PolicySourceArn!);
    return identity && sourceOf(call, identity);
  },
  access: (call, input) => [iamAccess(call, 'SimulatePrincipalPolicy', input.PolicySourceArn!)],
  handle(call, input, source) {
    if (!source) throw noSuchEntity(`The principal ${input.PolicySourceArn} cannot be found.`);
    return simulate(call, input, source);
  },
  record: (_call, input) => ({
    requestParameters: { policySourceArn: input.PolicySourceArn ?? null, actionNames: input.ActionNames },
  }),
});

export const simulateCustomPolicy = operation<SimulateCustomPolicyRequest, SimulatePolicyResponse>({
  name: 'SimulateCustomPolicy',
  effect: 'reads',
  resolve: (_call, input) => check(input, { ...commonRules, PolicyInputList: required(commonRules.PolicyInputList) }),
  access: (call) => [iamAccess(call, 'SimulateCustomPolicy', '*')],
  handle: (call, input) => simulate(call, input, { policies: [], boundaries: [], known: {} }),
  record: (_call, input) => ({ requestParameters: { actionNames: input.ActionNames } }),
});

type Input = Omit<SimulateCustomPolicyRequest, 'PolicyInputList'> & { PolicyInputList?: string[] | undefined };

function simulate(call: Call, input: Input, source: Source): SimulatePolicyResponse {
  // To leave it out of the decision would be to answer wrongly.
  if (input.ResourcePolicy) throw invalidInput('Resource policies are not simulated here: leave out ResourcePolicy.');
  const given = (documents: readonly string[] | undefined, prefix: string): readonly NamedDocument[] =>
    (documents ?? []).map((document, index) => ({
      name: `${prefix}.${index + 1}`,
      type: 'none' as const,
      document: parseIdentityPolicy(document),
    }));
  const policies = [...source.policies, ...given(input.PolicyInputList, 'PolicyInputList')];
  const boundaryInput = given(input.PermissionsBoundaryPolicyInputList, 'PermissionsBoundaryPolicyInputList');
  const boundaries = boundaryInput.length > 0 ? boundaryInput : source.boundaries;
  const pairs = input.ActionNames!.flatMap((action) =>
    (input.ResourceArns?.length ? input.ResourceArns : ['*']).map((resource) => ({ action, resource })),
  );
  const numbered = pairs.map((pair, index) => ({ ...pair, key: String(index).padStart(6, '0') }));
  const page = input as PageInput;
  const after = pageAfter(page);
  const { rows, rest } = pageOf(
    numbered.filter(({ key }) => key > after),
    page,
    ({ key }) => key,
  );
  // Only what is shown is evaluated, so that a request's cost has a bound.
  const results = rows.map(({ action, resource }) => {
    const request: AccessRequest = { action, resource, resourceAccount: call.account };
    return evaluate(request, contextOf(source.known, input.ContextEntries ?? []), policies, boundaries);
  });
  return { EvaluationResults: results, ...rest };
}

function evaluate(
  request: AccessRequest,
  context: RequestContext & { missing: () => string[] },
  policies: readonly NamedDocument[],
  boundaries: readonly NamedDocument[],
): EvaluationResult {
  const verdicts = policies.map((policy) => ({
    policy,
    effect: evaluateIdentityPolicy(policy.document, request, context).effect,
  }));
  const limits = boundaries.map(({ document }) => evaluateIdentityPolicy(document, request, context).effect);
  const isWithin = limits.every((effect) => effect === 'allow');
  const isDenied = verdicts.some(({ effect }) => effect === 'deny') || limits.includes('deny');
  const isAllowed = verdicts.some(({ effect }) => effect === 'allow') && isWithin;
  const deciding = isDenied ? 'deny' : 'allow';
  return {
    EvalActionName: request.action,
    EvalResourceName: request.resource,
    EvalDecision: isDenied ? 'explicitDeny' : isAllowed ? 'allowed' : 'implicitDeny',
    MatchedStatements: verdicts
      .filter(({ effect }) => effect === deciding)
      .map(({ policy }) => ({ SourcePolicyId: policy.name, SourcePolicyType: policy.type })),
    MissingContextValues: context.missing(),
    ...(boundaries.length > 0 ? { PermissionsBoundaryDecisionDetail: { AllowedByPermissionsBoundary: isWithin } } : {}),
  };
}

/** The context that a request gives, which remembers what was asked of it in vain. */
function contextOf(known: Source['known'], entries: readonly ContextEntry[]) {
  const values = new Map<string, readonly string[]>();
  const lists = new Set<string>();
  for (const [key, value] of Object.entries(known)) values.set(lowerCaseAscii(key), [value]);
  for (const { ContextKeyName, ContextKeyType, ContextKeyValues } of entries) {
    if (!ContextKeyName) continue;
    values.set(lowerCaseAscii(ContextKeyName), ContextKeyValues ?? []);
    if (ContextKeyType?.endsWith('List')) lists.add(lowerCaseAscii(ContextKeyName));
  }
  const missing = new Set<string>();
  return {
    get(key: string) {
      const value = values.get(lowerCaseAscii(key));
      if (value === undefined) missing.add(key);
      return value;
    },
    isMultivalued: (key: string) => lists.has(lowerCaseAscii(key)),
    missing: () => [...missing],
  };
}

async function findSource(call: Call, arn: string): Promise<Identity | undefined> {
  const candidates = await tablesOf(call)
    .selectFrom('iam_identities')
    .selectAll()
    .where('account', '=', call.account)
    .where('name', '=', arn.slice(arn.lastIndexOf('/') + 1))
    .execute();
  return candidates.find((identity) => identityArn(identity) === arn);
}

async function sourceOf(call: Call, identity: Identity): Promise<Source> {
  const iam = tablesOf(call);
  const groups = await iam
    .selectFrom('iam_memberships')
    .innerJoin('iam_identities', 'iam_identities.id', 'iam_memberships.group_id')
    .selectAll('iam_identities')
    .where('user_id', '=', identity.id)
    .execute();
  const policies: NamedDocument[] = [];
  for (const owner of [identity, ...groups]) {
    const inline = await iam
      .selectFrom('iam_inline_policies')
      .select(['name', 'document'])
      .where('identity_id', '=', owner.id)
      .execute();
    for (const { name, document } of inline)
      policies.push({ name: `${owner.kind}_${owner.name}_${name}`, type: owner.kind, document: JSON.parse(document) });
    const attached = await iam
      .selectFrom('iam_attachments')
      .select('arn')
      .where('identity_id', '=', owner.id)
      .execute();
    for (const { arn } of attached) policies.push(await managed(call, arn));
  }
  const isUser = identity.kind === 'user';
  return {
    policies,
    boundaries: identity.boundary_arn ? [await managed(call, identity.boundary_arn)] : [],
    known: {
      'aws:PrincipalAccount': identity.account,
      'aws:PrincipalArn': identityArn(identity),
      ...(isUser ? { 'aws:username': identity.name, 'aws:userid': identity.id } : {}),
    },
  };
}

async function managed(call: Call, arn: string): Promise<NamedDocument> {
  const row = await tablesOf(call)
    .selectFrom('iam_policies')
    .innerJoin('iam_policy_versions', (join) =>
      join
        .onRef('iam_policy_versions.arn', '=', 'iam_policies.arn')
        .onRef('iam_policy_versions.version', '=', 'iam_policies.default_version'),
    )
    .select(['name', 'document', 'account'])
    .where('iam_policies.arn', '=', arn)
    .executeTakeFirstOrThrow();
  const type = row.account === 'aws' ? ('aws-managed' as const) : ('user-managed' as const);
  return { name: row.name, type, document: JSON.parse(row.document) };
}
