/** CreateVolume and DeleteVolume. */
import {
  CreateVolume$,
  type CreateVolumeRequest,
  DeleteVolume$,
  type DeleteVolumeRequest,
  type Volume,
} from '@aws-sdk/client-ec2';
import { formatArn } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { operation } from '../aws/service.ts';
import { allow, allowOnVolume, allowTagsOnCreate, requestTagContext, volumeContext } from './access.ts';
import { checkClientToken, earlierResult, rememberResult, tokenMismatch } from './client-tokens.ts';
import {
  checkVolumeId,
  incorrectState,
  invalidCombination,
  invalidValue,
  missingParameter,
  stopIfDryRun,
} from './errors.ts';
import { managedKeyAlias } from './keys.ts';
import { tables, type VolumeRow } from './records.ts';
import { findZone, type Zone } from './regions.ts';
import { settingsOf } from './settings.ts';
import { noTags, putTags, type Tags, tagsFromSpecifications, tagsOf } from './tag-store.ts';
import { createVolumeRecord, volumeResource } from './trail.ts';
import { type VolumeSettings, volumeSettings } from './volume-rules.ts';
import { deleteVolume as endVolume, findVolume, createVolume as makeVolume } from './volume-store.ts';
import { volumeView, volumeViews } from './volume-view.ts';

interface PlannedVolume {
  readonly settings: VolumeSettings;
  readonly zone: Zone;
  readonly key: string | undefined;
  readonly tags: Tags;
}

/** Source: EC2 API reference, CreateVolume. */
export const createVolume = operation<CreateVolumeRequest, Volume, PlannedVolume>({
  name: 'CreateVolume',
  schema: CreateVolume$,
  effect: 'writes',
  async resolve(call, input) {
    checkClientToken(input);
    const settings = volumeSettings(sourceChecked(input));
    const zone = findZone(call.region, input.AvailabilityZone, input.AvailabilityZoneId);
    if (!zone) throw missingParameter('AvailabilityZone');
    const tags = tagsFromSpecifications(input.TagSpecifications, ['volume']).get('volume') ?? noTags;
    return { settings, zone, key: await keyForNewVolume(call, input), tags };
  },
  access(call, _input, { settings, zone, key, tags }) {
    const volume = formatArn('ec2', call.region, call.account, 'volume/*');
    const context = volumeContext({ ...settings, zone: zone.name, encrypted: key === undefined ? 0 : 1 });
    return [
      allow(call, 'CreateVolume', volume, { ...context, ...requestTagContext(tags) }),
      ...allowTagsOnCreate(call, 'CreateVolume', volume, tags),
    ];
  },
  async handle(call, input, { settings, zone, key, tags }) {
    stopIfDryRun(input);
    const earlier = await earlierResult(call, 'CreateVolume', input);
    if (earlier !== undefined) return replay(call, input, earlier);
    const volume = await makeVolume(call, { settings, zone: zone.name, key });
    await putTags(call, 'volume', volume.volume_id, tags);
    await rememberResult(call, 'CreateVolume', input, volume.volume_id);
    return { ...volumeView(volume, [], tags), State: 'creating' };
  },
  record: createVolumeRecord,
});

/** Only new, empty volumes can be made: nothing exists yet that one could be made from. */
function sourceChecked(input: CreateVolumeRequest): CreateVolumeRequest {
  if (input.SnapshotId) {
    if (!/^snap-(?:[0-9a-f]{8}|[0-9a-f]{17})$/.test(input.SnapshotId))
      throw invalidValue(`Value (${input.SnapshotId}) for parameter snapshotId is invalid. Expected: 'snap-...'.`);
    throw new AwsError('InvalidSnapshot.NotFound', `The snapshot '${input.SnapshotId}' does not exist.`);
  }
  if (input.VolumeInitializationRate !== undefined)
    throw invalidCombination(
      "You can't specify VolumeInitializationRate for volumes that are not created from a snapshot.",
    );
  if (input.OutpostArn) throw invalidValue(`Value (${input.OutpostArn}) for parameter outpostArn is invalid.`);
  return input;
}

/**
 * The key for a new, empty volume, as it was named, or undefined for one that stays unencrypted: asked for or on by
 * default gives the key named or the default key, else none.
 * @throws {AwsError} InvalidParameterDependency for a key without encryption
 */
export async function keyForNewVolume(
  call: Call,
  request: { readonly Encrypted?: boolean | undefined; readonly KmsKeyId?: string | undefined },
): Promise<string | undefined> {
  const settings = await settingsOf(call);
  const isEncrypted = request.Encrypted === true || settings.encryption_by_default === 1;
  if (isEncrypted) return request.KmsKeyId || settings.default_key_arn || managedKeyAlias;
  if (request.KmsKeyId)
    throw new AwsError(
      'InvalidParameterDependency',
      'The parameter KmsKeyId requires the parameter Encrypted to be set.',
    );
  return undefined;
}

async function replay(call: Call, input: CreateVolumeRequest, volumeId: string): Promise<Volume> {
  const volume = await tables(call)
    .selectFrom('ec2_volumes')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .where('state', '!=', 'deleting')
    .executeTakeFirst();
  if (!volume) throw tokenMismatch(input.ClientToken!);
  return (await volumeViews(call, [volume]))[0]!;
}

/** Source: EC2 API reference, DeleteVolume. */
export const deleteVolume = operation<DeleteVolumeRequest, object, { volume: VolumeRow; tags: Tags }>({
  name: 'DeleteVolume',
  schema: DeleteVolume$,
  effect: 'writes',
  async resolve(call, input) {
    const volume = await findVolume(call, checkVolumeId(input.VolumeId));
    return { volume, tags: await tagsOf(call, volume.volume_id) };
  },
  access: (call, _input, { volume, tags }) => [allowOnVolume(call, 'DeleteVolume', volume, tags)],
  async handle(call, input, { volume }) {
    stopIfDryRun(input);
    const attachment = await tables(call)
      .selectFrom('ec2_attachments')
      .select('instance_id')
      .where('volume_id', '=', volume.volume_id)
      .executeTakeFirst();
    if (attachment)
      throw new AwsError(
        'VolumeInUse',
        `Volume ${volume.volume_id} is currently attached to ${attachment.instance_id}`,
      );
    if (volume.state === 'deleting') throw incorrectState(`Volume '${volume.volume_id}' is in the 'deleting' state.`);
    await endVolume(call, volume);
    return {};
  },
  record: (call, input, output) => ({
    requestParameters: { volumeId: input.VolumeId ?? null },
    responseElements: output ? { requestId: call.requestId, _return: true } : null,
    lookupResources: volumeResource(input.VolumeId),
  }),
});
