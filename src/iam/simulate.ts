/**
 * SimulatePrincipalPolicy and SimulateCustomPolicy: what policies would decide, without asking for anything. The decision is
 * the one that requests get (authorize.ts), with the context that the simulation gives.
 * Source: IAM API reference, SimulatePrincipalPolicy.
 */
import {
  type ContextEntry,
  ContextKeyTypeEnum,
  type EvaluationResult,
  type SimulateCustomPolicyRequest,
  type SimulatePolicyResponse,
  type SimulatePrincipalPolicyRequest,
  type Statement,
} from '@aws-sdk/client-iam';
import { parseArn } from '../aws/arn.ts';
import type { Call, Principal } from '../aws/call.ts';
import { type AccessRequest, operation, type PolicyDocument } from '../aws/service.ts';
import { list, oneOf, required, structure, text } from '../aws/validate.ts';
import { lowerCaseAscii } from '../aws/wildcard.ts';
import { decide } from './authorize.ts';
import { check, invalidInput, noSuchEntity } from './errors.ts';
import { arnText, iamAccess, tablesOf } from './identities.ts';
import { type PageInput, pageAfter, pageOf, pageRules } from './paging.ts';
import type { RequestContext } from './policy/context.ts';
import { evaluateIdentityPolicy, evaluateResourcePolicy } from './policy/evaluate.ts';
import { policyText } from './policy-documents.ts';
import { parseIdentityPolicy, parseResourcePolicy } from './policy-grammar.ts';
import { identityArn, userPrincipal } from './principals.ts';
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
  /** Who it is, if it can make requests. */
  readonly user: Principal | undefined;
  /** Condition keys that follow from who it is. */
  readonly known: Readonly<Record<string, string>>;
}

const commonRules = {
  ...pageRules,
  ActionNames: required(list(text({ min: 3, max: 128 }), { max: 100 })),
  ContextEntries: list(
    structure({
      ContextKeyName: text({ min: 5, max: 256 }),
      ContextKeyType: oneOf(Object.values(ContextKeyTypeEnum)),
      ContextKeyValues: list(text()),
    }),
  ),
  ResourceArns: list(text({ min: 1, max: 2048 }), { max: 100 }),
  PolicyInputList: list(policyText, { max: 50 }),
  PermissionsBoundaryPolicyInputList: list(policyText, { max: 1 }),
  ResourcePolicy: policyText,
  ResourceOwner: text({ min: 1, max: 2048 }),
  CallerArn: text({ min: 1, max: 2048 }),
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
  handle: (call, input) => simulate(call, input, { policies: [], boundaries: [], user: undefined, known: {} }),
  record: (_call, input) => ({ requestParameters: { actionNames: input.ActionNames } }),
});

type Input = Omit<SimulateCustomPolicyRequest, 'PolicyInputList'> & { PolicyInputList?: string[] | undefined };

async function simulate(call: Call, input: Input, source: Source): Promise<SimulatePolicyResponse> {
  const given = (documents: readonly string[] | undefined, prefix: string): readonly NamedDocument[] =>
    (documents ?? []).map((document, index) => ({
      name: `${prefix}.${index + 1}`,
      type: 'none' as const,
      document: parseIdentityPolicy(document),
    }));
  const boundaryInput = given(input.PermissionsBoundaryPolicyInputList, 'PermissionsBoundaryPolicyInputList');
  const setting: Setting = {
    call: { ...call, principal: callerOf(call, input, source), via: undefined },
    policies: [...source.policies, ...given(input.PolicyInputList, 'PolicyInputList')],
    boundary: (boundaryInput[0] ?? source.boundaries[0])?.document,
    resourcePolicy: input.ResourcePolicy === undefined ? undefined : parseResourcePolicy(input.ResourcePolicy),
    owner: ownerOf(input.ResourceOwner),
  };
  // One that can't be asked for would be decided about all the same.
  const noAction = input.ActionNames!.find((name) => !/^[a-z0-9-]+:\w+$/i.test(name));
  if (noAction !== undefined) throw invalidInput(`${noAction} is not the name of an action, such as iam:CreateUser.`);
  const noArn = input.ResourceArns?.find((name) => name !== '*' && !parseArn(name));
  if (noArn !== undefined) throw invalidInput(`Resource ${noArn} must be in ARN format or "*".`);
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
  const results: EvaluationResult[] = [];
  for (const { action, resource } of rows)
    results.push(await evaluate(setting, action, resource, contextOf(source.known, input.ContextEntries ?? [])));
  return { EvaluationResults: results, ...rest };
}

/** What is the same for all the requests of a simulation. */
interface Setting {
  readonly call: Call;
  readonly policies: readonly NamedDocument[];
  readonly boundary: PolicyDocument | undefined;
  readonly resourcePolicy: PolicyDocument | undefined;
  /** The account of resources whose ARNs have none. */
  readonly owner: string | undefined;
}

/**
 * Who makes the simulated requests. Where no policy on the resource is to name the caller, it doesn't matter who it is.
 * @throws {AwsError} InvalidInput
 */
function callerOf(call: Call, { CallerArn, ResourcePolicy }: Input, { user }: Source): Principal {
  const account = CallerArn === undefined ? undefined : /^arn:[^:]*:iam::(\d{12}):user\/.+$/.exec(CallerArn)?.[1];
  if (CallerArn !== undefined && account === undefined)
    throw invalidInput(`Invalid Entity Arn: ${CallerArn} does not clearly define entity type and name.`);
  if (account !== undefined && CallerArn !== user?.arn)
    return { type: 'IAMUser', account, arn: CallerArn!, principalId: CallerArn! };
  if (user) return user;
  if (ResourcePolicy !== undefined)
    throw invalidInput('CallerArn is required with a ResourcePolicy, unless PolicySourceArn is the ARN of a user.');
  return { type: 'IAMUser', account: call.account, arn: '', principalId: '' };
}

/** @param owner an ARN of the account, or its number */
function ownerOf(owner: string | undefined): string | undefined {
  if (owner === undefined) return undefined;
  const account = parseArn(owner)?.account ?? owner;
  if (!/^\d{12}$/.test(account)) throw invalidInput(`Invalid ResourceOwner: ${owner}.`);
  return account;
}

/** Services whose resources are closed to their own account, too, unless their policy opens them. */
const opensByPolicyOnly = /^(?:kms|sts):/i;

async function evaluate(
  { call, policies, boundary, resourcePolicy, owner }: Setting,
  action: string,
  resource: string,
  context: RequestContext & { missing: () => string[] },
): Promise<EvaluationResult> {
  const { principal } = call;
  const ownAccount = resourcePolicy ? parseArn(resource)?.account || owner : undefined;
  const asked: AccessRequest = { action, resource, resourceAccount: ownAccount ?? principal.account };
  const byResource =
    resourcePolicy && evaluateResourcePolicy(resourcePolicy, principal, asked, context, boundary !== undefined);
  const counts = resourcePolicy && (byResource!.effect !== 'silent' || opensByPolicyOnly.test(action));
  const request = counts ? { ...asked, resourcePolicy } : asked;
  const identity = policies.map(({ document }) => document);
  const denial = await decide(call, request, { identity, boundary, session: undefined, tags: {} }, context);
  const verdicts = policies.map(({ name, type, document }) => ({
    source: { SourcePolicyId: name, SourcePolicyType: type },
    effect: evaluateIdentityPolicy(document, request, context).effect,
  }));
  if (byResource)
    verdicts.push({
      source: { SourcePolicyId: 'ResourcePolicy', SourcePolicyType: 'resource' },
      effect: byResource.effect,
    });
  const isDenied = denial?.explicit || byResource?.effect === 'deny';
  const isWithin = boundary && evaluateIdentityPolicy(boundary, request, context).effect === 'allow';
  return {
    EvalActionName: action,
    EvalResourceName: resource,
    EvalDecision: isDenied ? 'explicitDeny' : denial ? 'implicitDeny' : 'allowed',
    MatchedStatements: verdicts
      .filter(({ effect }) => effect === (isDenied ? 'deny' : 'allow'))
      .map(({ source }) => source),
    MissingContextValues: context.missing(),
    ...(isWithin === undefined
      ? {}
      : { PermissionsBoundaryDecisionDetail: { AllowedByPermissionsBoundary: isWithin } }),
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
    user: isUser ? userPrincipal(identity) : undefined,
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
