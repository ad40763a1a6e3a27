/** CopyVolumes: a new volume with the content of another of the same zone, as it is at this moment. */
import { CopyVolumes$, type CopyVolumesRequest, type CopyVolumesResult, type Volume } from '@aws-sdk/client-ec2';
import { formatArn } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import { operation } from '../aws/service.ts';
import { allow, allowOnVolume, allowTagsOnCreate, requestTagContext, volumeContext } from './access.ts';
import { checkClientToken, rememberResult } from './client-tokens.ts';
import { outcomeKey } from './encryption-outcomes.ts';
import { checkVolumeId, invalidValue, stopIfDryRun } from './errors.ts';
import type { VolumeRow } from './records.ts';
import { allowAgain, madeEarlier, viewAgain } from './repeated-volumes.ts';
import type { SnapshotRow } from './snapshot-records.ts';
import { beginSnapshot, newSnapshotId } from './snapshot-store.ts';
import { fixed, snapshotHost } from './snapshots.ts';
import { noTags, putTags, type Tags, tagsFromSpecifications, tagsOf } from './tag-store.ts';
import { compact, tagSpecificationSet, volumeResource } from './trail.ts';
import { type VolumeSettings, volumeSettings } from './volume-rules.ts';
import { createVolume, findVolume } from './volume-store.ts';
import { volumeView } from './volume-view.ts';

interface PlannedCopy {
  readonly source: VolumeRow;
  readonly sourceTags: Tags;
  readonly settings: VolumeSettings;
  readonly key: string | undefined;
  readonly tags: Tags;
}

/** What an earlier request with the same token made. */
interface RepeatedCopy {
  readonly earlier: VolumeRow;
  readonly tags: Tags;
}

/**
 * The point in time is fixed when the answer comes; the copy is `creating` until that is stored, then `available` and
 * filled like a volume from a snapshot. Source: EC2 API reference, CopyVolumes.
 */
export const copyVolumes = operation<CopyVolumesRequest, CopyVolumesResult, PlannedCopy | RepeatedCopy>({
  name: 'CopyVolumes',
  schema: CopyVolumes$,
  effect: 'waits',
  resolve: planCopy,
  access(call, input, plan) {
    if ('earlier' in plan) return allowAgain(call, 'CopyVolumes', input, plan.earlier, plan.tags);
    const { source, sourceTags, settings, key, tags } = plan;
    const volume = formatArn('ec2', call.region, call.account, 'volume/*');
    return [
      allow(call, 'CopyVolumes', volume, {
        ...volumeContext({ ...settings, zone: source.zone, encrypted: key === undefined ? 0 : 1 }),
        ...requestTagContext(tags),
      }),
      allowOnVolume(call, 'CopyVolumes', source, sourceTags),
      ...allowTagsOnCreate(call, 'CopyVolumes', volume, tags),
    ];
  },
  async handle(call, input) {
    stopIfDryRun(input);
    const made = await call.transaction((inside) => beginCopy(inside, input));
    if ('earlier' in made) return { Volumes: [made.earlier] };
    await fixed(call, [made.snapshot]);
    return { Volumes: [volumeView(made.volume, [], made.tags)] };
  },
  record: (call, input, output) => {
    const [volume] = output?.Volumes ?? [];
    return {
      requestParameters: {
        CopyVolumesRequest: compact({
          SourceVolumeId: input.SourceVolumeId,
          Size: input.Size,
          VolumeType: input.VolumeType,
          Iops: input.Iops,
          Throughput: input.Throughput,
          MultiAttachEnabled: input.MultiAttachEnabled,
          Encrypted: input.Encrypted,
          KmsKeyId: input.KmsKeyId,
          ClientToken: input.ClientToken,
          TagSpecification: tagSpecificationSet(input.TagSpecifications),
        }),
      },
      responseElements: volume
        ? { CopyVolumesResponse: { requestId: call.requestId, volumeId: volume.VolumeId, status: volume.State } }
        : null,
      lookupResources: [...volumeResource(input.SourceVolumeId), ...volumeResource(volume?.VolumeId)],
    };
  },
});

async function planCopy(call: Call, input: CopyVolumesRequest): Promise<PlannedCopy | RepeatedCopy> {
  checkClientToken(input);
  const tags = tagsFromSpecifications(input.TagSpecifications, ['volume']).get('volume') ?? noTags;
  const earlier = await madeEarlier(call, 'CopyVolumes', input);
  if (earlier) return { earlier, tags };
  const source = await findVolume(call, checkVolumeId(input.SourceVolumeId, 'sourceVolumeId'));
  if (input.Size !== undefined && input.Size < source.size_gib)
    throw invalidValue(
      `Volume of ${input.Size}GiB is smaller than the source volume '${source.volume_id}', expect size >= ${source.size_gib}GiB`,
    );
  return {
    source,
    sourceTags: await tagsOf(call, source.volume_id),
    settings: volumeSettings({ ...input, Size: input.Size ?? source.size_gib }),
    key: await outcomeKey(call, input, source),
    tags,
  };
}

type Begun =
  | { readonly earlier: Volume }
  | { readonly volume: VolumeRow; readonly snapshot: SnapshotRow; readonly tags: Tags };

async function beginCopy(call: Call, input: CopyVolumesRequest): Promise<Begun> {
  // Looked up again: the world may have changed since the transaction of the checks.
  const plan = await planCopy(call, input);
  if ('earlier' in plan) return { earlier: await viewAgain(call, plan.earlier) };
  const { source, settings, key, tags } = plan;
  const host = await snapshotHost(call, source);
  const snapshot = await beginSnapshot(call, source, host, {
    origin: 'internal',
    snapshotId: newSnapshotId(),
    description: `Point in time of ${source.volume_id} for a copy`,
  });
  const restore = { snapshot, sourceVolumeId: source.volume_id };
  const volume = await createVolume(call, { settings, zone: source.zone, key, restore });
  await putTags(call, 'volume', volume.volume_id, tags);
  await rememberResult(call, 'CopyVolumes', input, volume.volume_id);
  return { volume, snapshot, tags };
}
