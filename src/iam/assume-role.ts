/** AssumeRole: temporary credentials of a role, for whom its trust policy lets in. Source: STS API reference, AssumeRole. */
import type { AssumeRoleRequest, AssumeRoleResponse } from '@aws-sdk/client-sts';
import { parseArn } from '../aws/arn.ts';
import type { Call, Principal } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { type PrincipalIds, withPrincipals } from '../aws/policy-principals.ts';
import { type AccessRequest, operation, type PolicyDocument, type PolicyStatement } from '../aws/service.ts';
import { integer, list, required, structure, text } from '../aws/validate.ts';
import type { RootKey } from '../crypto/root-key.ts';
import { check, malformedPolicy, validationError } from './errors.ts';
import { arnText, type PlainTag, recordedTags, tablesOf, tagKeyText, tagListRule, tagsOf } from './identities.ts';
import { mfaRules, refuseMfa } from './mfa.ts';
import { parseIdentityPolicy } from './policy-grammar.ts';
import { sessionArn } from './principal-ids.ts';
import type { Identity } from './records.ts';
import { inheritedTags, roleTagConditions, sessionTagConditions, sessionTags } from './session-tags.ts';
import { createSession } from './sessions.ts';

/**
 * The longest session token, characters. It carries policies and tags of the session, and every request must carry it
 * among its headers, for which a server has 32 KiB. AWS has such a limit, too, and doesn't tell which.
 */
const tokenLengthMax = 24 * 1024;
/** A session that a role's session asked for. */
const chainedMaxSeconds = 3600;

interface RoleToAssume {
  readonly role: Identity | undefined;
  readonly tags: readonly PlainTag[];
}

export function assumeRole(rootKey: RootKey) {
  return operation<AssumeRoleRequest, AssumeRoleResponse, RoleToAssume>({
    name: 'AssumeRole',
    effect: 'reads',
    async resolve(call, input) {
      check(input, {
        RoleArn: required(arnText),
        RoleSessionName: required(text({ min: 2, max: 64, pattern: /[\w+=,.@-]*/ })),
        DurationSeconds: integer({ min: 900, max: 43_200 }),
        Policy: text({ min: 1, max: 2048, pattern: /[\u0009\u000A\u000D\u0020-\u00FF]+/ }),
        PolicyArns: list(structure({ arn: required(arnText) }), { max: 10 }),
        Tags: tagListRule,
        TransitiveTagKeys: list(tagKeyText, { max: 50 }),
        ExternalId: text({ min: 2, max: 1224, pattern: /[\w+=,.@:/-]*/ }),
        SourceIdentity: text({ min: 2, max: 64, pattern: /[\w+=,.@-]*/ }),
        ...mfaRules,
      });
      refuseMfa(input);
      if (!/^arn:aws[a-z-]*:iam::\d{12}:role\/./.test(input.RoleArn!))
        throw validationError(`${input.RoleArn} is invalid`);
      if (call.principal.type === 'Root')
        throw new AwsError('AccessDenied', 'Roles may not be assumed by root accounts.', { httpStatus: 403 });
      const role = await findRole(call, input.RoleArn!);
      return { role, tags: role ? await tagsOf(call, role.id) : [] };
    },
    access(call, input, { role, tags }) {
      const inherited = inheritedTags(call.principal);
      const sourceIdentity = input.SourceIdentity ?? call.principal.session?.sourceIdentity;
      const request = (action: string): AccessRequest => ({
        action,
        resource: input.RoleArn!,
        resourceAccount: parseArn(input.RoleArn!)!.account,
        // A role that isn't there lets nobody in, and doesn't tell.
        resourcePolicy: role ? asResourcePolicy(role) : { Statement: [] },
        context: {
          'sts:RoleSessionName': input.RoleSessionName!,
          ...(input.ExternalId ? { 'sts:ExternalId': input.ExternalId } : {}),
          ...(sourceIdentity ? { 'sts:SourceIdentity': sourceIdentity } : {}),
          ...sessionTagConditions(input, inherited),
          ...roleTagConditions(tags, inherited),
        },
      });
      return [
        request('sts:AssumeRole'),
        ...(input.Tags?.length || inherited.length > 0 ? [request('sts:TagSession')] : []),
        ...(sourceIdentity ? [request('sts:SetSourceIdentity')] : []),
      ];
    },
    async handle(call, input, subject) {
      const role = subject.role!;
      const seconds = checkDuration(call.principal, role, input.DurationSeconds);
      const sourceIdentity = sourceIdentityOf(call.principal, input.SourceIdentity);
      const tags = sessionTags(input, inheritedTags(call.principal));
      if (input.Policy !== undefined) parseIdentityPolicy(input.Policy);
      const policyArns = (input.PolicyArns ?? []).map(({ arn }) => arn!);
      await requirePolicies(call, role, policyArns);
      const now = call.clock.now();
      const principal = sessionPrincipal(role, input.RoleSessionName!);
      const credentials = createSession(rootKey, principal, now, now + seconds * 1000, {
        ...(input.Policy === undefined ? {} : { policy: input.Policy }),
        ...(policyArns.length > 0 ? { policyArns } : {}),
        ...tags,
        ...(sourceIdentity ? { sourceIdentity } : {}),
      });
      const packed = Math.ceil((credentials.SessionToken.length * 100) / tokenLengthMax);
      if (packed > 100)
        throw new AwsError(
          'PackedPolicyTooLarge',
          `Packed size of session policies and session tags consumes ${packed}% of allotted space.`,
        );
      const isPacked = input.Policy !== undefined || policyArns.length > 0 || tags.tags !== undefined;
      return {
        Credentials: credentials,
        AssumedRoleUser: { AssumedRoleId: principal.principalId, Arn: principal.arn },
        ...(isPacked ? { PackedPolicySize: packed } : {}),
        ...(sourceIdentity ? { SourceIdentity: sourceIdentity } : {}),
      };
    },
    record: (call, input, output) => ({
      requestParameters: {
        incomingTransitiveTags: incomingTags(call.principal),
        roleArn: input.RoleArn ?? null,
        roleSessionName: input.RoleSessionName ?? null,
        durationSeconds: input.DurationSeconds,
        externalId: input.ExternalId,
        policy: input.Policy,
        policyArns: input.PolicyArns,
        tags: recordedTags(input.Tags),
        transitiveTagKeys: input.TransitiveTagKeys,
        sourceIdentity: input.SourceIdentity,
      },
      // Neither the secret nor the token.
      responseElements: output
        ? {
            credentials: {
              accessKeyId: output.Credentials!.AccessKeyId,
              expiration: output.Credentials!.Expiration,
            },
            assumedRoleUser: {
              assumedRoleId: output.AssumedRoleUser!.AssumedRoleId,
              arn: output.AssumedRoleUser!.Arn,
            },
            packedPolicySize: output.PackedPolicySize,
            sourceIdentity: output.SourceIdentity,
          }
        : null,
      resources: input.RoleArn
        ? [{ ARN: input.RoleArn, accountId: parseArn(input.RoleArn)?.account ?? '', type: 'AWS::IAM::Role' }]
        : [],
    }),
  });
}

/** The principal of a session of a role. */
export function sessionPrincipal(role: Identity, sessionName: string): Principal & { principalId: string } {
  return {
    type: 'AssumedRole',
    account: role.account,
    arn: sessionArn(role, sessionName),
    principalId: `${role.id}:${sessionName}`,
    sessionIssuer: {
      arn: `arn:aws:iam::${role.account}:role${role.path}${role.name}`,
      principalId: role.id,
      userName: role.name,
    },
  };
}

/** The role of an ARN, in any account; path and name must be as in the ARN. */
async function findRole(call: Call, arn: string): Promise<Identity | undefined> {
  const { account, resource } = parseArn(arn)!;
  const slash = resource.lastIndexOf('/');
  return tablesOf(call)
    .selectFrom('iam_identities')
    .selectAll()
    .where('account', '=', account)
    .where('kind', '=', 'role')
    .where('path', '=', resource.slice('role'.length, slash + 1))
    .where('name', '=', resource.slice(slash + 1))
    .executeTakeFirst();
}

/** A trust policy names no resource: it is about the role that it is on. */
function asResourcePolicy(role: Identity): PolicyDocument {
  const document = withPrincipals(
    JSON.parse(role.trust_policy ?? '{"Statement":[]}') as PolicyDocument,
    JSON.parse(role.trusted_ids ?? '{}') as PrincipalIds,
  );
  const statements = Array.isArray(document.Statement) ? document.Statement : [document.Statement];
  return { ...document, Statement: statements.map((statement: PolicyStatement) => ({ ...statement, Resource: '*' })) };
}

function checkDuration(principal: Principal, role: Identity, asked = 3600): number {
  if (asked > (role.session_max_s ?? 3600))
    throw validationError('The requested DurationSeconds exceeds the MaxSessionDuration set for this role.');
  if (principal.type === 'AssumedRole' && asked > chainedMaxSeconds)
    throw validationError(
      'The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.',
    );
  return asked;
}

/**
 * Who is behind the session: nobody can say that it is somebody else.
 * @throws {AwsError} ValidationError
 */
function sourceIdentityOf({ session }: Principal, asked: string | undefined): string | undefined {
  const known = session?.sourceIdentity;
  if (known !== undefined && asked !== undefined && asked !== known)
    throw validationError('The source identity is already set for this assume role session');
  return known ?? asked;
}

function incomingTags(principal: Principal): Readonly<Record<string, string>> | undefined {
  const tags = inheritedTags(principal);
  return tags.length > 0 ? Object.fromEntries(tags.map(({ Key, Value }) => [Key, Value])) : undefined;
}

/** Session policies by ARN must be the role's account's own, or AWS's. */
async function requirePolicies(call: Call, role: Identity, arns: readonly string[]): Promise<void> {
  for (const arn of arns) {
    const policy = await tablesOf(call)
      .selectFrom('iam_policies')
      .select('arn')
      .where('arn', '=', arn)
      .where('account', 'in', [role.account, 'aws'])
      .executeTakeFirst();
    if (!policy) throw malformedPolicy(`The policy ${arn} does not exist or is not attachable.`);
  }
}
