/** The tables of EC2: volumes, attachments, instances, tags, account settings, hosts and their tasks. How they are made: migrations.ts. */
import {
  type Compilable,
  type CompiledQuery,
  type Generated,
  type Insertable,
  type Kysely,
  type QueryResult,
  type Selectable,
  sql,
} from 'kysely';
import type { AnyDatabase, Call } from '../aws/call.ts';
import type { HostTask } from '../aws/host-protocol.ts';
import type { SnapshotTables } from './snapshot-records.ts';

/** Truth as it is stored: 0 or 1. */
export type Flag = 0 | 1;

/** Times are ms since the epoch. */
export interface Ec2Tables extends SnapshotTables {
  ec2_volumes: {
    /** Order of creation; what pages continue by. */
    seq: Generated<number>;
    volume_id: string;
    account: string;
    region: string;
    zone: string;
    size_gib: number;
    volume_type: string;
    iops: number | null;
    /** MiB/s; only gp3 has it. */
    throughput: number | null;
    multi_attach: Flag;
    encrypted: Flag;
    key_arn: string | null;
    /** Null for an unencrypted volume, and from the moment that deletion begins. */
    encrypted_data_key: Uint8Array | null;
    /** `creating`: a copy of a volume, until the point in time that it is made from is stored. */
    state: 'creating' | 'available' | 'in-use' | 'deleting' | 'error';
    created_at: number;
    auto_enable_io: Flag;
    /** The host that may have made the image; null as long as none can have. */
    image_host_id: string | null;
    /** 1 once it has been open: from then on a missing image is a lost one. */
    has_image: Flag;
    /** What it was made from, as the API shows it. */
    snapshot_id: string | null;
    source_volume_id: string | null;
    /** How it gets or got its content; null for a volume that began empty. */
    initialization_type: 'default' | 'provisioned-rate' | 'volume-copy' | null;
    /** MiB/s */
    initialization_rate: number | null;
    initialization_progress: number | null;
    initialization_started_at: number | null;
    initialization_error: string | null;
    /** The snapshot whose blocks are not all in the image yet; null once they are. */
    restore_snapshot_id: string | null;
    restore_size_gib: number | null;
    /** The data key of the snapshot's blocks, encrypted under the volume's key and context. */
    restore_encrypted_data_key: Uint8Array | null;
  };
  ec2_attachments: {
    volume_id: string;
    instance_id: string;
    account: string;
    region: string;
    /** As the user wrote it. */
    device: string;
    /** What the API shows. */
    status: 'attaching' | 'attached' | 'detaching';
    attached_at: number;
    delete_on_termination: Flag;
    /** The grant under which the host may decrypt the data key now, and its key; null while none is needed. */
    grant_id: string | null;
    /** What the host shall do, and the number of that wish: unique, growing. */
    desired: 'attached' | 'detached';
    generation: number;
    force: Flag;
    /** What the host last reported about this generation. */
    observed: 'none' | 'attached' | 'failed' | 'detached';
    error_message: string | null;
    /** The API call to which an event about this attachment belongs. */
    request_id: string;
  };
  /** Why an attach or a start was undone, for the call that waits for it. */
  ec2_failures: {
    generation: number;
    code: string;
    message: string;
    created_at: number;
  };
  ec2_instances: {
    seq: Generated<number>;
    instance_id: string;
    account: string;
    region: string;
    zone: string;
    reservation_id: string;
    launch_index: number;
    instance_type: string;
    image_id: string;
    state: 'pending' | 'running' | 'stopping' | 'stopped' | 'shutting-down' | 'terminated';
    /** `Client.UserInitiatedShutdown`, with its message; empty while running. */
    reason_code: string;
    reason_message: string;
    transition_reason: string;
    launched_at: number;
    ended_at: number | null;
    client_token: string;
    private_ip: string;
    /** JSON of what the API only echoes. */
    echoed: string;
    disable_api_termination: Flag;
    /** Null until a host of its zone takes it. */
    host_id: string | null;
  };
  ec2_tags: {
    resource_id: string;
    account: string;
    region: string;
    resource_type: string;
    key: string;
    value: string;
  };
  ec2_client_tokens: {
    account: string;
    region: string;
    operation: string;
    token: string;
    parameters_digest: string;
    /** The id of what was made: a volume, a reservation. */
    resource_id: string;
    created_at: number;
  };
  ec2_settings: {
    account: string;
    region: string;
    encryption_by_default: Flag;
    /** Null: `alias/aws/ebs`. */
    default_key_arn: string | null;
  };
  /** How many volumes and snapshots an account has in a region, kept up to date because counting 100,000 rows takes too long. */
  ec2_usage: {
    account: string;
    region: string;
    volumes: number;
    snapshots: Generated<number>;
  };
  ec2_counters: {
    name: string;
    value: number;
  };
  ec2_hosts: {
    host_id: string;
    /** JSON: a list of zones, or "*". */
    zones: string;
    data_dir: string;
    version: string;
    session_id: string;
    started_at: number;
    first_seen_at: number;
    last_seen_at: number;
    /** The block store that it reaches, as it last said. */
    block_store_id: string | null;
    /** JSON: where that store is and why it can't be used, in words for the operator. */
    block_store: string | null;
  };
  ec2_tasks: {
    task_id: string;
    kind: HostTask['kind'];
    /** Empty for a task that is about a snapshot only. */
    volume_id: string;
    account: string;
    region: string;
    /** Empty for work that any host can do. */
    zone: string;
    /** The host that should do it, or empty while there is none; another of the zone takes it over when that one is gone. */
    host_id: string;
    request_id: string;
    created_at: number;
    error: string | null;
    snapshot_id: string | null;
    /** deleteSnapshot: the family that the snapshot belonged to. */
    family: string | null;
    /** JSON of what else the task says. */
    payload: string | null;
  };
}

export type VolumeRow = Selectable<Ec2Tables['ec2_volumes']>;
export type NewVolumeRow = Insertable<Ec2Tables['ec2_volumes']>;
export type AttachmentRow = Selectable<Ec2Tables['ec2_attachments']>;
export type InstanceRow = Selectable<Ec2Tables['ec2_instances']>;
export type HostRow = Selectable<Ec2Tables['ec2_hosts']>;
export type TaskRow = Selectable<Ec2Tables['ec2_tasks']>;

export type Ec2Database = Kysely<Ec2Tables>;

/** The call's database, with EC2's tables. */
export function tables(call: Call): Ec2Database {
  return call.db as unknown as Ec2Database;
}

/**
 * A query whose text is built once, for paths where building it each time would cost more than running it.
 * @param build makes the query with stand-in parameters; `run` takes the real ones, in the order they stand in the text
 */
export function preparedQuery<Row>(build: (db: Ec2Database) => Compilable<Row>) {
  const compiled = new WeakMap<AnyDatabase, CompiledQuery<Row>>();
  return (call: Call, parameters: readonly unknown[]): Promise<QueryResult<Row>> => {
    let query = compiled.get(call.db);
    if (!query) compiled.set(call.db, (query = build(tables(call)).compile()));
    return call.db.executeQuery({ ...query, parameters });
  };
}

const bumpCounter = preparedQuery<{ value: number }>((db) =>
  db.updateTable('ec2_counters').set({ value: sql<number>`value + 1` }).where('name', '=', '').returning('value'),
);

/** A number that no attachment has had before. */
export async function nextGeneration(call: Call): Promise<number> {
  const { rows } = await bumpCounter(call, ['generation']);
  return rows[0]!.value;
}

/** What a request may say of an instance that only comes back in answers. */
export interface Echoed {
  readonly keyName?: string;
  readonly profileArn?: string;
  /** Instances of old have none: any profile was taken as it was named. */
  readonly profileId?: string;
  readonly monitoring?: boolean;
  readonly ebsOptimized?: boolean;
}
