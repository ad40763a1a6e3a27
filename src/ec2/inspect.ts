/** What `coffer volume inspect` and `coffer status` ask: internal operations of the service `coffer`. */
import { join } from 'node:path';
import { formatArn } from '../aws/arn.ts';
import type { Call } from '../aws/call.ts';
import type { SyncRequest } from '../aws/host-protocol.ts';
import { operation } from '../aws/service.ts';
import { allowOnVolume } from './access.ts';
import { checkVolumeId } from './errors.ts';
import { findHost, isLive, servesZone } from './host-store.ts';
import { encryptionContext } from './keys.ts';
import { type HostRow, tables, type VolumeRow } from './records.ts';
import { type Tags, tagsOf } from './tag-store.ts';
import { blockStoreProblem, installedBlockStore } from './task-store.ts';
import { volumeResource } from './trail.ts';
import { findVolume } from './volume-store.ts';

export interface InspectedVolume {
  readonly VolumeId: string;
  readonly State: string;
  readonly SizeBytes: number;
  /** The host that has the image, and where; null while no host has made one. */
  readonly Host: string | null;
  readonly ImagePath: string | null;
  readonly Encrypted: boolean;
  /** dm-crypt's name; the key has 512 bits, two halves of 256. Null for a volume that is not encrypted. */
  readonly Cipher: string | null;
  readonly KeyBits: number | null;
  readonly DataUnitBytes: number | null;
  readonly KmsKeyArn: string | null;
  /** base64 */
  readonly EncryptedDataKey: string | null;
  readonly EncryptionContext: Readonly<Record<string, string>> | null;
  readonly Attachments: ReadonlyArray<{
    readonly InstanceId: string;
    readonly Device: string;
    readonly State: string;
    readonly Observed: string;
    readonly Error: string | null;
  }>;
}

/** InspectVolume: all that an auditor needs to decrypt a volume's image by other means than ours. */
export const inspectVolume = operation<{ VolumeId: string }, InspectedVolume, { volume: VolumeRow; tags: Tags }>({
  name: 'InspectVolume',
  effect: 'reads',
  async resolve(call, input) {
    const volume = await findVolume(call, checkVolumeId(input.VolumeId, 'VolumeId'));
    return { volume, tags: await tagsOf(call, volume.volume_id) };
  },
  access: (call, _input, { volume, tags }) => [
    { ...allowOnVolume(call, 'DescribeVolumes', volume, tags), action: 'coffer:InspectVolume' },
  ],
  async handle(call, _input, { volume }) {
    const host = await imageHost(call, volume);
    const attachments = await tables(call)
      .selectFrom('ec2_attachments')
      .selectAll()
      .where('volume_id', '=', volume.volume_id)
      .execute();
    const isEncrypted = volume.encrypted === 1;
    return {
      VolumeId: volume.volume_id,
      State: volume.state,
      SizeBytes: volume.size_gib * 1024 ** 3,
      Host: volume.image_host_id,
      ImagePath: host ? join(host.data_dir, 'volumes', `${volume.volume_id}.img`) : null,
      Encrypted: isEncrypted,
      Cipher: isEncrypted ? 'aes-xts-plain64' : null,
      KeyBits: isEncrypted ? 512 : null,
      DataUnitBytes: isEncrypted ? 4096 : null,
      KmsKeyArn: volume.key_arn,
      EncryptedDataKey: volume.encrypted_data_key ? Buffer.from(volume.encrypted_data_key).toString('base64') : null,
      EncryptionContext: isEncrypted ? encryptionContext(volume.volume_id) : null,
      Attachments: attachments.map((attachment) => ({
        InstanceId: attachment.instance_id,
        Device: attachment.device,
        State: attachment.status,
        Observed: attachment.observed,
        Error: attachment.error_message,
      })),
    };
  },
  record: (_call, input) => ({
    requestParameters: { volumeId: input.VolumeId ?? null },
    responseElements: null,
    lookupResources: volumeResource(input.VolumeId),
  }),
});

/** The host that made the image; before that, the one that would. */
async function imageHost(call: Call, volume: VolumeRow): Promise<HostRow | undefined> {
  if (volume.image_host_id) return findHost(call, volume.image_host_id);
  const hosts = await tables(call).selectFrom('ec2_hosts').selectAll().orderBy('first_seen_at').execute();
  return hosts.find((host) => servesZone(host, volume.zone));
}

export interface HostStatus {
  readonly HostId: string;
  /** Whether it has synced within the last minute. */
  readonly Connected: boolean;
  readonly LastSeen: string;
  readonly StartedAt: string;
  readonly Zones: readonly string[] | '*';
  readonly Version: string;
  readonly DataDirectory: string;
  readonly Instances: number;
  readonly Attachments: { readonly Open: number; readonly Pending: number; readonly Failed: number };
  readonly Tasks: { readonly Waiting: number; readonly Failed: number };
  /** Where its block store is; null while it hasn't said. */
  readonly BlockStore: string | null;
  /** The block store that it reaches; null while it hasn't said. */
  readonly BlockStoreId: string | null;
  /** Why it gets no work on snapshots; null when it does. */
  readonly BlockStoreProblem: string | null;
}

export interface SystemStatus {
  readonly Hosts: readonly HostStatus[];
  /** Instances that no host serves yet. */
  readonly UnplacedInstances: number;
  readonly Volumes: number;
}

function storeInWords(host: HostRow): Partial<NonNullable<SyncRequest['blockStore']>> {
  return host.block_store === null ? {} : JSON.parse(host.block_store);
}

/** DescribeHosts (internal): the state of all hosts, for the operator. */
export const describeHosts = operation<object, SystemStatus>({
  name: 'DescribeHosts',
  effect: 'reads',
  audience: 'operator',
  access: (call) => [
    {
      action: 'coffer:DescribeHosts',
      resource: formatArn('coffer', call.region, call.account, 'host/*'),
      resourceAccount: call.account,
    },
  ],
  async handle(call) {
    const db = tables(call);
    const hosts = await db.selectFrom('ec2_hosts').selectAll().orderBy('host_id').execute();
    const instances = await db
      .selectFrom('ec2_instances')
      .select(['instance_id', 'host_id'])
      .where('state', '!=', 'terminated')
      .execute();
    const attachments = await db
      .selectFrom('ec2_attachments')
      .innerJoin('ec2_instances', 'ec2_instances.instance_id', 'ec2_attachments.instance_id')
      .select(['ec2_instances.host_id', 'ec2_attachments.desired', 'ec2_attachments.observed'])
      .execute();
    const tasks = await db.selectFrom('ec2_tasks').select(['host_id', 'error']).execute();
    const store = await installedBlockStore(call);
    const { volumes } = await db
      .selectFrom('ec2_volumes')
      .select((select) => select.fn.countAll<number>().as('volumes'))
      .executeTakeFirstOrThrow();
    return {
      Hosts: hosts.map((host): HostStatus => {
        const wished = attachments.filter((each) => each.host_id === host.host_id && each.desired === 'attached');
        const given = tasks.filter((task) => task.host_id === host.host_id);
        const observed = (state: string) => wished.filter((each) => each.observed === state).length;
        return {
          HostId: host.host_id,
          Connected: isLive(call, host),
          LastSeen: new Date(host.last_seen_at).toISOString(),
          StartedAt: new Date(host.started_at).toISOString(),
          Zones: JSON.parse(host.zones),
          Version: host.version,
          DataDirectory: host.data_dir,
          Instances: instances.filter((instance) => instance.host_id === host.host_id).length,
          Attachments: { Open: observed('attached'), Pending: observed('none'), Failed: observed('failed') },
          Tasks: { Waiting: given.length, Failed: given.filter((task) => task.error !== null).length },
          BlockStore: storeInWords(host).location ?? null,
          BlockStoreId: host.block_store_id,
          BlockStoreProblem: storeInWords(host).error ?? blockStoreProblem(host, store) ?? null,
        };
      }),
      UnplacedInstances: instances.filter((instance) => instance.host_id === null).length,
      Volumes: Number(volumes),
    };
  },
});
