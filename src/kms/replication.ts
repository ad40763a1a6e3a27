/**
 * Multi-Region keys: keys of several regions with one id and one material, each with a policy, tags, aliases, grants and a
 * state of its own. Source: KMS developer guide, "Multi-Region keys"; API_ReplicateKey, API_UpdatePrimaryRegion.
 */
import type {
  KeyMetadata,
  ReplicateKeyRequest,
  ReplicateKeyResponse,
  Tag,
  UpdatePrimaryRegionRequest,
} from '@aws-sdk/client-kms';
import { partitionOf } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { regions } from '../aws/regions.ts';
import { operation } from '../aws/service.ts';
import { boolean, required, structure, text } from '../aws/validate.ts';
import { accountAccess, keyAccess, newKeyArn } from './access.ts';
import { descriptionText, keyIdText, policyText } from './constraints.ts';
import { checkKeyCount } from './create-key.ts';
import { keyNotFound } from './identifiers.ts';
import { isPermanent } from './imported-material.ts';
import { keyArn } from './key-ids.ts';
import { keyMetadata, metadataRecord } from './key-metadata.ts';
import { keyOperation } from './key-operation.ts';
import { requireEnabled, requireMultiRegionPrimary } from './key-states.ts';
import type { Key, KeyStore } from './key-store.ts';
import { checkPolicy, defaultPolicy } from './policy-document.ts';
import { policyPrincipals } from './principals.ts';
import { checkTags, insertTags, tagConditions, tagList } from './tag-rules.ts';
import { keyResource, lowerCamelMembers, parameters } from './trail.ts';

const regionText = text({ min: 1, max: 32, pattern: /^([a-z]+-){2,3}\d+$/ });

export const replicationOperations = (store: KeyStore) => [
  replicateKey(store),
  createReplicaKey(store),
  updatePrimaryRegion(store),
  promoteReplicaKey(store),
];

const replicateKey = (store: KeyStore) =>
  keyOperation<ReplicateKeyRequest, ReplicateKeyResponse>(store, {
    name: 'ReplicateKey',
    effect: 'writes',
    changesKey: true,
    input: structure({
      KeyId: required(keyIdText),
      ReplicaRegion: required(regionText),
      Policy: policyText,
      BypassPolicyLockoutSafetyCheck: boolean(),
      Description: descriptionText,
      Tags: tagList,
    }),
    check: (input) => checkTags(input.Tags),
    conditions: (_call, input) => ({
      'kms:ReplicaRegion': input.ReplicaRegion!,
      'kms:BypassPolicyLockoutSafetyCheck': String(input.BypassPolicyLockoutSafetyCheck ?? false),
    }),
    parameters: (input) => ({
      bypassPolicyLockoutSafetyCheck: false,
      description: '',
      ...parameters(input, ['KeyId', 'ReplicaRegion', 'Policy', 'BypassPolicyLockoutSafetyCheck', 'Description']),
      ...(input.Tags ? { tags: lowerCamelMembers(input.Tags) } : {}),
    }),
    response: ({ ReplicaKeyMetadata, ReplicaPolicy, ReplicaTags }) => ({
      replicaKeyMetadata: metadataRecord(ReplicaKeyMetadata!),
      replicaPolicy: ReplicaPolicy,
      replicaTags: lowerCamelMembers(ReplicaTags ?? []),
    }),
    async handle(call, input, key) {
      requireMultiRegionPrimary(key);
      requireEnabled(key);
      requireRegion(key, input.ReplicaRegion!);
      const { ReplicaRegion, KeyId: _, ...about } = input;
      const step: ReplicaInput = { ...about, KeyId: key.key_id, PrimaryRegion: key.region };
      return call.inRegion(ReplicaRegion!).invoke<ReplicateKeyResponse>('kms', 'CreateReplicaKey', step);
    },
  });

interface ReplicaInput extends Omit<ReplicateKeyRequest, 'ReplicaRegion' | 'KeyId'> {
  readonly KeyId: string;
  readonly PrimaryRegion: string;
}

/** In the replica's region: to its permissions and its trail it is a CreateKey like others. */
const createReplicaKey = (store: KeyStore) =>
  operation<ReplicaInput, ReplicateKeyResponse, Key>({
    name: 'CreateReplicaKey',
    eventName: 'CreateKey',
    effect: 'writes',
    audience: 'service',
    async resolve(call, { KeyId, PrimaryRegion }) {
      const primary = await store.byId(call, PrimaryRegion, KeyId);
      if (!primary) throw keyNotFound(keyArn({ region: PrimaryRegion, account: call.account, key_id: KeyId }));
      return primary;
    },
    access: (call, input, primary) => [
      accountAccess(call, 'CreateKey', '*', {
        'kms:KeySpec': primary.key_spec,
        'kms:KeyUsage': primary.key_usage,
        'kms:KeyOrigin': primary.origin,
        'kms:MultiRegion': 'true',
        'kms:MultiRegionKeyType': 'REPLICA',
        'kms:PrimaryRegion': primary.region,
        'kms:BypassPolicyLockoutSafetyCheck': String(input.BypassPolicyLockoutSafetyCheck ?? false),
        ...tagConditions(input.Tags),
      }),
      ...(input.Tags?.length ? [accountAccess(call, 'TagResource', newKeyArn(call), tagConditions(input.Tags))] : []),
    ],
    async handle(call, input, primary) {
      const { region } = call;
      const arn = keyArn({ ...primary, region });
      if (await store.byId(call, region, primary.key_id))
        throw new AwsError('AlreadyExistsException', `${arn} exists already.`);
      if (input.Policy) checkPolicy(call, input.Policy, arn, input.BypassPolicyLockoutSafetyCheck ?? false);
      await checkKeyCount(call);
      const created = await insertReplica(call, store, primary, input);
      const ReplicaTags: Tag[] = Object.entries(created.tags).map(([TagKey, TagValue]) => ({ TagKey, TagValue }));
      return {
        ReplicaKeyMetadata: keyMetadata(created),
        ReplicaPolicy: created.policy,
        ...(ReplicaTags.length > 0 ? { ReplicaTags } : {}),
      };
    },
    record: (call, input, output, primary) => ({
      requestParameters: {
        bypassPolicyLockoutSafetyCheck: false,
        ...parameters(input, ['Policy', 'Description', 'BypassPolicyLockoutSafetyCheck']),
        ...(input.Tags ? { tags: lowerCamelMembers(input.Tags) } : {}),
        ...(primary ? { keySpec: primary.key_spec, keyUsage: primary.key_usage, origin: primary.origin } : {}),
        multiRegion: true,
      },
      responseElements: output ? { keyMetadata: metadataRecord(output.ReplicaKeyMetadata as KeyMetadata) } : null,
      resources: output ? [keyResource({ account: call.account, arn: output.ReplicaKeyMetadata!.Arn! })] : [],
    }),
  });

async function insertReplica(call: Call, store: KeyStore, primary: Key, input: ReplicaInput): Promise<Key> {
  const { region } = call;
  const isImported = primary.origin === 'EXTERNAL';
  const materials = await store.materials.list(call.db, primary);
  await store.materials.copy(call.db, primary, region, { withSecrets: !isImported });
  const replica = await store.insert(
    call,
    {
      key_id: primary.key_id,
      region,
      account: primary.account,
      created_at: call.clock.now(),
      description: input.Description ?? '',
      key_usage: primary.key_usage,
      key_spec: primary.key_spec,
      origin: primary.origin,
      key_manager: 'CUSTOMER',
      managed_alias: null,
      state: isImported ? 'PendingImport' : 'Enabled',
      deletion_at: null,
      policy: input.Policy ?? defaultPolicy(call),
      principals: input.Policy ? await policyPrincipals(call, input.Policy) : null,
      primary_region: primary.region,
      material_id: primary.material_id,
      materials_missing: isImported ? materials.filter(isPermanent).length : 0,
      rotation_period_days: primary.rotation_period_days,
      next_rotation_at: primary.next_rotation_at,
    },
    undefined,
  );
  if (!input.Tags?.length) return replica;
  await insertTags(call, replica, input.Tags);
  await store.update(call.db, replica);
  return (await store.byId(call, region, primary.key_id))!;
}

const updatePrimaryRegion = (store: KeyStore) =>
  keyOperation<UpdatePrimaryRegionRequest, object>(store, {
    name: 'UpdatePrimaryRegion',
    effect: 'writes',
    changesKey: true,
    input: structure({ KeyId: required(keyIdText), PrimaryRegion: required(regionText) }),
    conditions: (_call, input) => ({ 'kms:PrimaryRegion': input.PrimaryRegion! }),
    parameters: ['KeyId', 'PrimaryRegion'],
    async handle(call, input, key) {
      requireMultiRegionPrimary(key);
      requireEnabled(key);
      const region = input.PrimaryRegion!;
      if (region === key.region)
        throw new AwsError('UnsupportedOperationException', `${key.arn} is the primary key already.`);
      const KeyId = keyArn({ ...key, region });
      if (!key.multiRegion!.replicas.includes(region)) throw keyNotFound(KeyId);
      await call.inRegion(region).invoke('kms', 'PromoteReplicaKey', { KeyId, PrimaryRegion: region });
      return {};
    },
  });

/** In the region of the key that becomes the primary one. */
const promoteReplicaKey = (store: KeyStore) =>
  operation<{ KeyId: string; PrimaryRegion: string }, object, Key>({
    name: 'PromoteReplicaKey',
    eventName: 'UpdatePrimaryRegion',
    effect: 'writes',
    audience: 'service',
    async resolve(call, { KeyId }) {
      const key = await store.byId(call, call.region, KeyId.slice(KeyId.lastIndexOf('/') + 1));
      if (!key) throw keyNotFound(KeyId);
      return key;
    },
    access: (call, { PrimaryRegion }, key) => [
      keyAccess(call, { key }, 'UpdatePrimaryRegion', { 'kms:PrimaryRegion': PrimaryRegion }),
    ],
    async handle(call, _input, key) {
      requireEnabled(key);
      await store.updateRelated(call.db, key.key_id, { primary_region: key.region });
      return {};
    },
    record: (_call, input, _output, key) => ({
      requestParameters: parameters(input, ['KeyId', 'PrimaryRegion']),
      resources: key ? [keyResource(key)] : [],
    }),
  });

/**
 * A replica belongs into another region of the same partition. Names that AWS doesn't have are for those whose own region has
 * such a name; to others a slip of the pen must not make a key that nobody finds.
 * @throws {AwsError} ValidationException
 */
function requireRegion({ region: own }: Key, region: string): void {
  const isKnown = region in regions || !(own in regions);
  if (region === own) throw invalidRegion(region, 'it is the region of the primary key');
  if (!isKnown) throw invalidRegion(region, 'there is no such region');
  if (partitionOf(region) !== partitionOf(own)) throw invalidRegion(region, 'it is in another partition');
}

const invalidRegion = (region: string, why: string) =>
  new AwsError('ValidationException', `ReplicaRegion ${region} is not valid: ${why}.`);
