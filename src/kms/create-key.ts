import {
  type CreateKeyRequest,
  type CreateKeyResponse,
  CustomerMasterKeySpec,
  KeySpec,
  KeyUsageType,
  OriginType,
} from '@aws-sdk/client-kms';
import type { Kysely } from 'kysely';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import { boolean, oneOf, structure, text, validate } from '../aws/validate.ts';
import { accountAccess, type Conditions, newKeyArn } from './access.ts';
import { descriptionText, policyText } from './constraints.ts';
import { noCustomKeyStores } from './custom-key-stores.ts';
import { newKeyId, newMultiRegionKeyId } from './key-ids.ts';
import { keyMetadata, metadataRecord } from './key-metadata.ts';
import { newMaterial, requireImportable, usageOf } from './key-specs.ts';
import { type Key, type KeyStore, keyArn, type NewKey } from './key-store.ts';
import { checkPolicy, defaultPolicy } from './policy-document.ts';
import { policyPrincipals } from './principals.ts';
import type { KmsTables } from './records.ts';
import { checkTags, insertTags, tagConditions, tagList } from './tag-rules.ts';
import { keyResource, lowerCamelMembers, parameters } from './trail.ts';

/** Customer managed keys of one account in one region. Source: KMS developer guide, "Resource quotas". */
const keysMax = 100_000;

const input = structure({
  Policy: policyText,
  Description: descriptionText,
  KeyUsage: oneOf(Object.values(KeyUsageType)),
  CustomerMasterKeySpec: oneOf(Object.values(CustomerMasterKeySpec)),
  KeySpec: oneOf(Object.values(KeySpec)),
  Origin: oneOf(Object.values(OriginType)),
  CustomKeyStoreId: text({ min: 1, max: 64 }),
  BypassPolicyLockoutSafetyCheck: boolean(),
  Tags: tagList,
  MultiRegion: boolean(),
  XksKeyId: text({ min: 1, max: 128, pattern: /^[a-zA-Z0-9-_.]+$/ }),
});

interface Plan {
  readonly spec: string;
  readonly usage: KeyUsageType;
  readonly origin: 'AWS_KMS' | 'EXTERNAL';
}

export function createKey(store: KeyStore) {
  return operation<CreateKeyRequest, CreateKeyResponse, Plan>({
    name: 'CreateKey',
    // Making an RSA key takes long, and nothing else may wait for it.
    effect: 'waits',
    resolve(_call, request) {
      validate(request, input);
      checkTags(request.Tags);
      return planOf(request);
    },
    access: (call, request, plan) => [
      accountAccess(call, 'CreateKey', '*', conditions(request, plan)),
      ...(request.Tags?.length
        ? [accountAccess(call, 'TagResource', newKeyArn(call), tagConditions(request.Tags))]
        : []),
    ],
    async handle(call, request, plan) {
      const row = newRow(call, request, plan);
      const principals = request.Policy ? await policyPrincipals(call, request.Policy) : null;
      const material = plan.origin === 'AWS_KMS' ? await newMaterial(plan.spec) : undefined;
      try {
        const key = await call.transaction(async (inside) => {
          await checkKeyCount(inside);
          const created = await store.insert(inside, { ...row, principals }, material);
          if (!request.Tags?.length) return created;
          await insertTags(inside, created, request.Tags);
          await store.update(inside.db, created);
          return (await store.byId(inside, row.region, row.key_id)) as Key;
        });
        return { KeyMetadata: keyMetadata(key) };
      } finally {
        material?.secret.fill(0);
      }
    },
    record: (call, request, output) => ({
      requestParameters: {
        bypassPolicyLockoutSafetyCheck: false,
        ...parameters(request, recordedMembers),
        ...(request.Tags ? { tags: lowerCamelMembers(request.Tags) } : {}),
      },
      responseElements: output ? { keyMetadata: metadataRecord(output.KeyMetadata!) } : null,
      resources: output ? [keyResource({ account: call.account, arn: output.KeyMetadata!.Arn! })] : [],
    }),
  });
}

const recordedMembers = [
  'Policy',
  'Description',
  'KeyUsage',
  'CustomerMasterKeySpec',
  'KeySpec',
  'Origin',
  'CustomKeyStoreId',
  'BypassPolicyLockoutSafetyCheck',
  'MultiRegion',
  'XksKeyId',
];

/** What to make. @throws {AwsError} when the members do not go together, or ask for what is not here */
function planOf(request: CreateKeyRequest): Plan {
  if (request.KeySpec && request.CustomerMasterKeySpec)
    throw new AwsError(
      'ValidationException',
      'You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.',
    );
  const spec = request.KeySpec ?? request.CustomerMasterKeySpec ?? 'SYMMETRIC_DEFAULT';
  const usage = usageOf(spec, request.KeyUsage ?? undefined);
  const origin = request.Origin ?? 'AWS_KMS';
  if (request.CustomKeyStoreId || origin === 'AWS_CLOUDHSM' || origin === 'EXTERNAL_KEY_STORE')
    throw noCustomKeyStores();
  if (request.XksKeyId)
    throw new AwsError('ValidationException', 'XksKeyId is valid only with an Origin of EXTERNAL_KEY_STORE.');
  if (origin === 'EXTERNAL') requireImportable(spec);
  return { spec, usage, origin };
}

function newRow(call: Call, request: CreateKeyRequest, plan: Plan): NewKey {
  const keyId = request.MultiRegion ? newMultiRegionKeyId() : newKeyId();
  const bypass = request.BypassPolicyLockoutSafetyCheck ?? false;
  if (request.Policy)
    checkPolicy(call, request.Policy, keyArn({ region: call.region, account: call.account, key_id: keyId }), bypass);
  return {
    key_id: keyId,
    region: call.region,
    account: call.account,
    created_at: call.clock.now(),
    description: request.Description ?? '',
    key_usage: plan.usage,
    key_spec: plan.spec,
    origin: plan.origin,
    key_manager: 'CUSTOMER',
    managed_alias: null,
    state: plan.origin === 'EXTERNAL' ? 'PendingImport' : 'Enabled',
    deletion_at: null,
    ...(request.MultiRegion ? { primary_region: call.region } : {}),
    policy: request.Policy ?? defaultPolicy(call),
  };
}

export async function checkKeyCount(call: Call): Promise<void> {
  const kms: Kysely<KmsTables> = call.db;
  const { count } = await kms
    .selectFrom('kms_keys')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('account', '=', call.account)
    .where('region', '=', call.region)
    .executeTakeFirstOrThrow();
  if (count >= keysMax)
    throw new AwsError('LimitExceededException', `You have reached the limit of ${keysMax} keys in this Region.`);
}

function conditions(request: CreateKeyRequest, plan: Plan): Conditions {
  return {
    'kms:KeySpec': plan.spec,
    'kms:CustomerMasterKeySpec': plan.spec,
    'kms:KeyUsage': plan.usage,
    'kms:CustomerMasterKeyUsage': plan.usage,
    'kms:KeyOrigin': plan.origin,
    'kms:MultiRegion': String(request.MultiRegion ?? false),
    ...(request.MultiRegion ? { 'kms:MultiRegionKeyType': 'PRIMARY' } : {}),
    'kms:BypassPolicyLockoutSafetyCheck': String(request.BypassPolicyLockoutSafetyCheck ?? false),
    ...tagConditions(request.Tags),
  };
}
