/**
 * Sync: what a host has meets what it shall have (docs/host-protocol.md). The answer is complete each time, and waits
 * while nothing is new.
 */
import { createHash } from 'node:crypto';
import { isAbsolute } from 'node:path';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import {
  type DesiredAttachment,
  type HostTask,
  type InfrastructureCredentials,
  type SyncRequest,
  type SyncResponse,
  syncWaitMaxMs,
  type TaskResult,
} from '../aws/host-protocol.ts';
import { operation } from '../aws/service.ts';
import { applyReport, noteImage } from './attachment-flow.ts';
import { devicePath } from './devices.ts';
import { findHost, hostTopic, servesZone } from './host-store.ts';
import { noteSizes } from './modification-store.ts';
import { type AttachmentRow, type HostRow, type InstanceRow, tables, type VolumeRow } from './records.ts';
import { restoreSource } from './restores.ts';
import { claimTasks, noteBlockStore } from './task-store.ts';
import { applyTaskResult, listedTasks, volumeEncryption } from './tasks.ts';

const gib = 1024 ** 3;
/** Credentials are renewed this long before they end, ms. */
const credentialsRenewMs = 5 * 60_000;
/** A host's last-seen time is written at most this often, ms: a Sync with nothing new costs no write. */
const seenEveryMs = 10_000;
const listMax = 10_000;

interface SessionCredentials {
  readonly AccessKeyId: string;
  readonly SecretAccessKey: string;
  readonly SessionToken: string;
  readonly Expiration: Date;
}

/** What the answer is made of before it is put into the protocol's words. */
interface Desired {
  readonly instances: readonly InstanceRow[];
  readonly attachments: ReadonlyArray<{ readonly attachment: AttachmentRow; readonly volume: VolumeRow }>;
  readonly tasks: Awaited<ReturnType<typeof listedTasks>>;
}

export function createSync() {
  /** The last request of each host's session, so that one that comes late changes nothing. */
  const latest = new Map<string, { sessionId: string; sequence: number }>();

  return operation<SyncRequest, SyncResponse>({
    name: 'Sync',
    effect: 'waits',
    audience: 'host',
    recorded: false,
    readOnly: true,
    access: () => [],
    async handle(call, input) {
      checkRequest(call, input);
      const topic = hostTopic(input.hostId);
      const deadline = performance.now() + syncWaitMaxMs;
      let version = call.signals.version(topic);
      let answer = await call.transaction(async (inside) => {
        const host = await greet(inside, input);
        const last = latest.get(input.hostId);
        const isLate = last?.sessionId === input.sessionId && input.sequence <= last.sequence;
        if (!isLate) {
          latest.set(input.hostId, { sessionId: input.sessionId, sequence: input.sequence });
          // Wakes an older request of this host that still waits, so that it doesn't hold a connection.
          if (last) inside.raise(topic);
          await applyReports(inside, host, input);
        }
        return respond(inside, host, input);
      });
      const isLatest = () => latest.get(input.hostId)?.sequence === input.sequence;
      while (answer.version === input.sinceVersion && answer.credentials.length === 0 && isLatest()) {
        const leftMs = deadline - performance.now();
        if (leftMs <= 0 || call.cancelled.aborted) break;
        await call.signals.changed(topic, version, leftMs, call.cancelled);
        version = call.signals.version(topic);
        answer = await call.transaction(async (inside) => respond(inside, await greet(inside, input), input));
      }
      return answer;
    },
  });
}

/** @throws {AwsError} for another host's name, or a message that isn't one */
function checkRequest(call: Call, input: SyncRequest): void {
  const fail = (what: string) => new AwsError('ValidationException', `Sync: ${what}`);
  if (typeof input.hostId !== 'string') throw fail('hostId must be a string');
  if (input.hostId !== call.principal.userName)
    throw new AwsError('AccessDeniedException', `${call.principal.arn} can't sync as host '${input.hostId}'.`, {
      httpStatus: 403,
    });
  for (const name of ['sessionId', 'dataDir', 'hostVersion'] as const)
    if (typeof input[name] !== 'string' || input[name].length > 4096) throw fail(`${name} must be a string`);
  if (!isAbsolute(input.dataDir)) throw fail('dataDir must be absolute');
  if (input.blockStoreId !== undefined && (typeof input.blockStoreId !== 'string' || input.blockStoreId.length > 256))
    throw fail('blockStoreId must be a string');
  if (input.blockStore !== undefined && !isStoreNote(input.blockStore))
    throw fail('blockStore must be an object with a location, and short');
  for (const name of ['startedAt', 'sequence'] as const)
    if (!Number.isSafeInteger(input[name])) throw fail(`${name} must be an integer`);
  if (Number.isNaN(new Date(input.startedAt).getTime())) throw fail('startedAt must be a time in ms since the epoch');
  if (input.zones !== '*' && !(Array.isArray(input.zones) && input.zones.every((zone) => typeof zone === 'string')))
    throw fail('zones must be "*" or a list of names');
  for (const name of ['attachments', 'instances', 'tasks', 'credentials'] as const)
    if (!Array.isArray(input[name]) || input[name].length > listMax)
      throw fail(`${name} must be a list of at most ${listMax}`);
  for (const name of ['attachments', 'tasks', 'credentials'] as const)
    if (input[name].some((item) => typeof item !== 'object' || item === null))
      throw fail(`${name} must be a list of objects`);
}

function isStoreNote(note: unknown): boolean {
  if (typeof note !== 'object' || note === null || JSON.stringify(note).length > 8192) return false;
  const { location, error } = note as { location?: unknown; error?: unknown };
  return typeof location === 'string' && (error === undefined || typeof error === 'string');
}

/** Notes that the host is there, and gives it the instances of its zones that no host has yet. */
async function greet(call: Call, input: SyncRequest): Promise<HostRow> {
  const now = call.clock.now();
  const known = await findHost(call, input.hostId);
  if (known && known.session_id !== input.sessionId && known.started_at > input.startedAt)
    throw new AwsError(
      'HostSuperseded',
      `A later process of host '${input.hostId}' has taken over, which started at ${new Date(known.started_at).toISOString()}.`,
    );
  const host: HostRow = {
    host_id: input.hostId,
    zones: JSON.stringify(input.zones),
    data_dir: input.dataDir,
    version: input.hostVersion,
    session_id: input.sessionId,
    started_at: input.startedAt,
    first_seen_at: known?.first_seen_at ?? now,
    last_seen_at: now,
    // One that can't be read for a moment is still the host's.
    block_store_id: input.blockStoreId ?? known?.block_store_id ?? null,
    block_store: input.blockStore === undefined ? null : JSON.stringify(input.blockStore),
  };
  if (input.blockStoreId !== undefined && input.blockStoreId !== known?.block_store_id)
    await noteBlockStore(call, input.blockStoreId);
  const isSame =
    known &&
    known.zones === host.zones &&
    known.data_dir === host.data_dir &&
    known.version === host.version &&
    known.session_id === host.session_id &&
    known.block_store_id === host.block_store_id &&
    known.block_store === host.block_store;
  if (!isSame || now - known.last_seen_at >= seenEveryMs) {
    const { host_id, ...changes } = host;
    await tables(call)
      .insertInto('ec2_hosts')
      .values(host)
      .onConflict((conflict) => conflict.column('host_id').doUpdateSet(changes))
      .execute();
  }
  await takeUnplaced(call, host);
  await claimTasks(call, host);
  return host;
}

async function takeUnplaced(call: Call, host: HostRow): Promise<void> {
  const unplaced = await tables(call)
    .selectFrom('ec2_instances')
    .selectAll()
    .where('host_id', 'is', null)
    .where('state', '!=', 'terminated')
    .execute();
  for (const instance of unplaced) {
    if (!servesZone(host, instance.zone)) continue;
    await tables(call)
      .updateTable('ec2_instances')
      .set({ host_id: host.host_id })
      .where('instance_id', '=', instance.instance_id)
      .execute();
    for (const { attachment, volume } of await attachmentsOn(call, [instance.instance_id]))
      if (attachment.desired === 'attached') await noteImage(call, volume, host.host_id);
  }
}

async function applyReports(call: Call, host: HostRow, input: SyncRequest): Promise<void> {
  const desired = await desiredState(call, host);
  const reports = new Map(input.attachments.map((report) => [`${report.volumeId} ${report.instanceId}`, report]));
  for (const { attachment } of desired.attachments) {
    const report = reports.get(`${attachment.volume_id} ${attachment.instance_id}`);
    if (report) {
      const { attachment: current, instance } = await readAgain(call, attachment);
      if (current && instance)
        await applyReport(call.asItself(current.account, current.region), current, instance, report);
    } else if (attachment.desired === 'attached' && attachment.observed === 'attached') {
      await tables(call)
        .updateTable('ec2_attachments')
        .set({ observed: 'none' })
        .where('volume_id', '=', attachment.volume_id)
        .where('instance_id', '=', attachment.instance_id)
        .execute();
    }
  }
  // Of volumes that are not this host's it has nothing to say.
  await noteSizes(
    call,
    desired.attachments.flatMap(
      ({ attachment }) => reports.get(`${attachment.volume_id} ${attachment.instance_id}`) ?? [],
    ),
  );
  const results = new Map(input.tasks.map((result) => [result.taskId, result]));
  for (const { row } of desired.tasks) {
    const result = results.get(row.task_id);
    if (result) await applyTaskResult(call.asItself(row.account, row.region), row, result);
  }
}

/** As it is now: an earlier report of the same request may have changed it. */
async function readAgain(call: Call, attachment: AttachmentRow) {
  return {
    attachment: await tables(call)
      .selectFrom('ec2_attachments')
      .selectAll()
      .where('volume_id', '=', attachment.volume_id)
      .where('instance_id', '=', attachment.instance_id)
      .executeTakeFirst(),
    instance: await tables(call)
      .selectFrom('ec2_instances')
      .selectAll()
      .where('instance_id', '=', attachment.instance_id)
      .executeTakeFirst(),
  };
}

/** Only what is this host's: its instances, their attachments, and its tasks. */
async function desiredState(call: Call, host: HostRow): Promise<Desired> {
  const instances = await tables(call)
    .selectFrom('ec2_instances')
    .selectAll()
    .where('host_id', '=', host.host_id)
    .where('state', '!=', 'terminated')
    .orderBy('seq')
    .execute();
  const attachments = await attachmentsOn(
    call,
    instances.map((instance) => instance.instance_id),
  );
  return { instances, attachments, tasks: await listedTasks(call, host) };
}

async function attachmentsOn(call: Call, instanceIds: readonly string[]): Promise<Desired['attachments']> {
  if (instanceIds.length === 0) return [];
  const attachments = await tables(call)
    .selectFrom('ec2_attachments')
    .selectAll()
    .where('instance_id', 'in', instanceIds as string[])
    .orderBy('generation')
    .execute();
  if (attachments.length === 0) return [];
  const volumes = await tables(call)
    .selectFrom('ec2_volumes')
    .selectAll()
    .where(
      'volume_id',
      'in',
      attachments.map((attachment) => attachment.volume_id),
    )
    .execute();
  const byId = new Map(volumes.map((volume) => [volume.volume_id, volume]));
  return attachments.map((attachment) => ({ attachment, volume: byId.get(attachment.volume_id)! }));
}

async function respond(call: Call, host: HostRow, input: SyncRequest): Promise<SyncResponse> {
  const desired = await desiredState(call, host);
  const body = {
    instances: desired.instances.map((instance) => ({
      instanceId: instance.instance_id,
      account: instance.account,
      region: instance.region,
      state: instance.state as Exclude<InstanceRow['state'], 'terminated'>,
    })),
    attachments: desired.attachments.map(({ attachment, volume }) => desiredAttachment(attachment, volume)),
    tasks: desired.tasks.map(({ task }) => task),
  };
  const version = createHash('sha256').update(JSON.stringify(body)).digest('base64url');
  return { version, ...body, credentials: await credentialsFor(call, desired, input) };
}

function desiredAttachment(attachment: AttachmentRow, volume: VolumeRow): DesiredAttachment {
  const encryption = volumeEncryption(volume);
  const source = restoreSource(volume);
  return {
    volumeId: attachment.volume_id,
    instanceId: attachment.instance_id,
    account: attachment.account,
    region: attachment.region,
    device: attachment.device,
    devicePath: devicePath(attachment.device),
    desired: attachment.desired,
    generation: attachment.generation,
    force: attachment.force === 1,
    sizeBytes: volume.size_gib * gib,
    readOnly: false,
    hasImage: volume.has_image === 1,
    ...(encryption ? { encryption } : {}),
    ...(source ? { source } : {}),
  };
}

/**
 * For each instance with an encrypted volume to open and each task that needs a key, unless the host holds credentials that
 * last.
 */
async function credentialsFor(call: Call, desired: Desired, input: SyncRequest): Promise<InfrastructureCredentials[]> {
  const held = new Map(
    input.credentials.map((each) => [each.sessionName ?? each.instanceId, Date.parse(each.expiration)] as const),
  );
  const needed = new Map<string, { account: string; region: string }>();
  for (const { attachment, volume } of desired.attachments)
    if (volume.encrypted === 1 && attachment.desired === 'attached' && attachment.observed !== 'attached')
      needed.set(attachment.instance_id, attachment);
  const over = new Set(input.tasks.filter(isOver).map(({ taskId }) => taskId));
  for (const { row, task } of desired.tasks) {
    const sessionName = sessionOf(task);
    if (sessionName !== undefined && !over.has(task.taskId)) needed.set(sessionName, row);
  }
  const credentials: InfrastructureCredentials[] = [];
  for (const [sessionName, { account, region }] of needed) {
    const heldUntil = held.get(sessionName) ?? 0;
    if (heldUntil - call.clock.now() > credentialsRenewMs) continue;
    const session = await call.asItself(account, region).invoke<SessionCredentials>('sts', 'AssumeInfrastructureRole', {
      InstanceId: sessionName,
      Account: account,
      Region: region,
    });
    credentials.push({
      sessionName,
      instanceId: sessionName,
      account,
      region,
      accessKeyId: session.AccessKeyId,
      secretAccessKey: session.SecretAccessKey,
      sessionToken: session.SessionToken,
      expiration: new Date(session.Expiration).toISOString(),
    });
  }
  return credentials;
}

/** Nothing remains to be done of it, so that it needs no key any more. */
const isOver = ({ state, final }: TaskResult) => state === 'done' || (state === 'failed' && final === true);

/** Whose credentials a task needs, if any. */
function sessionOf(task: HostTask): string | undefined {
  if (task.kind === 'initializeVolume') return (task.encryption ?? task.source.encryption) && task.volumeId;
  if (task.kind === 'copySnapshot') return (task.encryption ?? task.sourceEncryption) && task.snapshotId;
  return undefined;
}
