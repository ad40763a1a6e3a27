/** Rotation itself: the service's own doing, when it is due or was asked for. */
import { randomUUID } from 'node:crypto';
import type { Kysely } from 'kysely';
import type { Call } from '../aws/call.ts';
import { operation } from '../aws/service.ts';
import { keyNotFound } from './identifiers.ts';
import { requirePendingRotation, settleMaterials } from './imported-material.ts';
import { keyArn, keyMaterialId } from './key-ids.ts';
import { newMaterial } from './key-specs.ts';
import type { Key, KeyStore } from './key-store.ts';
import { plain } from './material-store.ts';
import type { KmsTables } from './records.ts';
import { keyResource } from './trail.ts';

/** Also what AWS managed keys have. Source: API_EnableKeyRotation. */
export const rotationDaysDefault = 365;
const msPerDay = 86_400_000;
/** How many keys one round of housekeeping rotates at most. */
const roundMax = 1000;

interface RotateKeyInput {
  readonly KeyId: string;
  readonly RotationType: 'AUTOMATIC' | 'ON_DEMAND';
}

/** The materials before and after, as the rows have them. */
interface Rotated {
  readonly previous?: string;
  readonly current?: string;
}

export const rotateKeyOperations = (store: KeyStore) => [rotateKey(store), synchronizeMultiRegionKey(store)];

const rotateKey = (store: KeyStore) =>
  operation<RotateKeyInput, Rotated, Key>({
    name: 'RotateKey',
    effect: 'writes',
    audience: 'service',
    access: () => [],
    resolve: (call, { KeyId }) => findOwn(call, store, KeyId),
    async handle(call, { RotationType }, key) {
      // What has changed since the key was found to be due decides.
      if (RotationType === 'AUTOMATIC' && !isDue(call, key)) return {};
      const current = key.origin === 'EXTERNAL' ? await takePending(call, store, key) : await addNew(call, store, key);
      const rotation = { rotated_at: call.clock.now(), rotation_type: RotationType };
      const schedule = RotationType === 'AUTOMATIC' ? { next_rotation_at: nextRotation(call, key) } : {};
      for (const region of regionsOf(key)) {
        const related = { key_id: key.key_id, region };
        await store.materials.makeCurrent(call.db, related, current, rotation);
        await store.update(call.db, related, { material_id: current, ...schedule });
        if (key.origin === 'EXTERNAL') await settleMaterials(call, store, related);
      }
      emitRotation(call, key);
      for (const region of key.multiRegion?.replicas ?? [])
        await call.asItself(key.account, region).invoke('kms', 'SynchronizeMultiRegionKey', { KeyId: key.key_id });
      return { previous: key.material_id!, current };
    },
    record: (_call, { RotationType }, output, key) => ({
      resources: key ? [keyResource(key)] : [],
      serviceEventDetails:
        key && output?.current
          ? {
              rotationType: RotationType,
              keyOrigin: key.origin,
              previousKeyMaterialId: keyMaterialId(key.key_id, output.previous!),
              currentKeyMaterialId: keyMaterialId(key.key_id, output.current),
              keyId: key.key_id,
            }
          : {},
    }),
  });

/** What the trail and the events of a replica's region show when its material has changed with its primary key's. */
const synchronizeMultiRegionKey = (store: KeyStore) =>
  operation<{ KeyId: string }, object, Key>({
    name: 'SynchronizeMultiRegionKey',
    effect: 'writes',
    audience: 'service',
    access: () => [],
    resolve: (call, { KeyId }) => findOwn(call, store, KeyId),
    handle(call, _input, key) {
      emitRotation(call, key);
      return {};
    },
    record: (_call, _input, _output, key) => ({
      resources: key
        ? [
            keyResource({
              account: key.account,
              arn: keyArn({ ...key, region: key.multiRegion?.primary ?? key.region }),
            }),
          ]
        : [],
    }),
  });

/** Rotates the keys whose time has come, each by itself, in the name of its own account and region. */
export async function rotateDueKeys(call: Call): Promise<void> {
  const due = await call.transaction((inside) => {
    const kms: Kysely<KmsTables> = inside.db;
    return kms
      .selectFrom('kms_keys')
      .select(['key_id', 'region', 'account'])
      .where('state', '=', 'Enabled')
      .where('next_rotation_at', '<=', call.clock.now())
      .where((eb) => eb.or([eb('primary_region', 'is', null), eb('primary_region', '=', eb.ref('region'))]))
      .orderBy('next_rotation_at')
      .limit(roundMax)
      .execute();
  });
  for (const { key_id, region, account } of due) {
    if (call.cancelled.aborted) return;
    const input: RotateKeyInput = { KeyId: key_id, RotationType: 'AUTOMATIC' };
    await call.transaction((inside) => inside.asItself(account, region).invoke('kms', 'RotateKey', input));
  }
}

async function findOwn(call: Call, store: KeyStore, keyId: string): Promise<Key> {
  const key = await store.byId(call, call.region, keyId);
  if (!key) throw keyNotFound(keyArn({ region: call.region, account: call.account, key_id: keyId }));
  return key;
}

function isDue(call: Call, key: Key): boolean {
  return key.state === 'Enabled' && key.next_rotation_at !== null && key.next_rotation_at <= call.clock.now();
}

/** A period after the rotation was due; after now, when that is past too (the key was disabled, the server down). */
function nextRotation(call: Call, key: Key): number {
  const period = key.rotation_period_days! * msPerDay;
  const now = call.clock.now();
  return key.next_rotation_at! + period > now ? key.next_rotation_at! + period : now + period;
}

const regionsOf = ({ region, multiRegion }: Key): readonly string[] =>
  multiRegion ? [multiRegion.primary, ...multiRegion.replicas] : [region];

/** Gives a key and its replicas one new material. @returns its id */
async function addNew(call: Call, store: KeyStore, key: Key): Promise<string> {
  const material = await newMaterial(key.key_spec);
  try {
    const material_id = randomUUID();
    const ordinal = (await store.materials.list(call.db, key)).at(-1)!.ordinal + 1;
    const row = { ...plain, material_id, ordinal, state: 'NON_CURRENT' as const, created_at: call.clock.now() };
    for (const region of regionsOf(key))
      await store.materials.add(call.db, { key_id: key.key_id, region }, { ...row, material });
    return material_id;
  } finally {
    material.secret.fill(0);
  }
}

async function takePending(call: Call, store: KeyStore, key: Key): Promise<string> {
  return (await requirePendingRotation(call, store, key)).material_id;
}

function emitRotation(call: Call, key: Key): void {
  call.emit({
    source: 'aws.kms',
    detailType: 'KMS CMK Rotation',
    resources: [key.arn],
    detail: { 'key-id': key.key_id },
  });
}
