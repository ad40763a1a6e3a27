// Measures snapshots through the API, with a server and its host: a full one, an incremental one, a copy under another key, and
// how soon a volume made from a large snapshot can be read. QEMU's tools do the like beside it.
//
//     bin/coffer-node bench/snapshots.ts [--size-gib 4] [--json]

import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import {
  CopySnapshotCommand,
  CreateSnapshotCommand,
  CreateVolumeCommand,
  DescribeSnapshotsCommand,
  DescribeVolumeStatusCommand,
  type Snapshot,
} from '@aws-sdk/client-ec2';
import { CreateKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { NbdClient } from '../src/cli/nbd-client.ts';
import { run } from '../test/support/client.ts';
import { startServer, until } from '../test/support/server.ts';
import { Volumes, zone } from '../test/support/volumes.ts';

export interface SnapshotFigure {
  readonly name: string;
  readonly value: number;
  readonly unit: 'MB/s' | 's' | 'ms' | '×';
  /** The least, or where `isMost` the most, that the project promises; undefined for peers. */
  readonly wanted?: number;
  readonly isMost?: boolean;
}

export interface SnapshotsOptions {
  readonly sizeGib?: number;
  readonly directory?: string;
  readonly log?: (line: string) => void;
}

const gib = 2 ** 30;
const mib = 2 ** 20;
const blockBytes = 512 * 1024;
const waitMs = 300_000;

export async function runSnapshotsBench(options: SnapshotsOptions = {}): Promise<SnapshotFigure[]> {
  const { sizeGib = 4, directory: parent = '/var/tmp', log = () => {} } = options;
  const directory = mkdtempSync(join(parent, 'coffer-bench-'));
  const figures: SnapshotFigure[] = [];
  const add = (figure: SnapshotFigure) => {
    figures.push(figure);
    log(`${figure.name.padEnd(66)} ${figure.value.toFixed(figure.unit === '×' ? 2 : 0)} ${figure.unit}`);
  };
  const server = await startServer({ dataDir: join(directory, 'data') });
  try {
    const bench = new Bench(server);
    await bench.prepare();
    const { full, fullMbs } = await bench.fullSnapshot(sizeGib);
    add({ name: `full snapshot of ${sizeGib} GiB, encrypted`, value: fullMbs, unit: 'MB/s', wanted: 400 });
    add({
      name: `CopySnapshot of ${sizeGib} GiB under another key`,
      value: await bench.copy(full, sizeGib),
      unit: 'MB/s',
      wanted: 300,
    });
    add({
      name: `background restore of ${sizeGib} GiB to a volume with a key of its own`,
      value: await bench.restore(full, sizeGib),
      unit: 'MB/s',
      wanted: 300,
    });
    const incremental = await bench.incremental();
    add({
      name: 'incremental snapshot: 1 % of the blocks of 100 GiB changed',
      value: incremental.seconds,
      unit: 's',
      wanted: 5,
      isMost: true,
    });
    add({
      name: 'bytes that it stored, to the bytes changed',
      value: incremental.storedRatio,
      unit: '×',
      wanted: 1.2,
      isMost: true,
    });
    add({
      name: 'CreateVolume of a 1 TiB snapshot, attach, first 4 KiB read',
      value: await bench.firstRead(),
      unit: 'ms',
      wanted: 200,
      isMost: true,
    });
  } finally {
    await server.stop();
  }
  try {
    for (const figure of await peers(directory, sizeGib)) add(figure);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  return figures;
}

class Bench {
  readonly #volumes: Volumes;
  readonly #kms: KMSClient;
  #instance = '';
  #otherKey = '';

  constructor(server: Awaited<ReturnType<typeof startServer>>) {
    this.#volumes = new Volumes(server);
    this.#kms = server.sdk(KMSClient);
  }

  async prepare(): Promise<void> {
    this.#instance = await this.#volumes.runInstance();
    this.#otherKey = (await this.#kms.send(new CreateKeyCommand({}))).KeyMetadata!.Arn!;
  }

  async fullSnapshot(sizeGib: number): Promise<{ full: string; fullMbs: number }> {
    const { socket } = await this.#volume(sizeGib, '/dev/sdf');
    const nbd = await NbdClient.connect(socket);
    await fill(nbd, sizeGib * gib);
    await nbd.close();
    spawnSync('sync');
    const began = performance.now();
    const full = await this.#snapshot('/dev/sdf');
    return { full, fullMbs: mbs(sizeGib * gib, began) };
  }

  async copy(snapshotId: string, sizeGib: number): Promise<number> {
    spawnSync('sync');
    const began = performance.now();
    const { SnapshotId } = await this.#volumes.ec2.send(
      new CopySnapshotCommand({
        SourceRegion: 'us-east-1',
        SourceSnapshotId: snapshotId,
        Encrypted: true,
        KmsKeyId: this.#otherKey,
      }),
    );
    await this.#completed(SnapshotId!);
    return mbs(sizeGib * gib, began);
  }

  async restore(snapshotId: string, sizeGib: number): Promise<number> {
    spawnSync('sync');
    const began = performance.now();
    const volumeId = await this.#restored(snapshotId);
    await until(() => this.#isInitialized(volumeId), 'the volume to be initialized', waitMs);
    return mbs(sizeGib * gib, began);
  }

  /** 2048 of 204,800 blocks: written, kept, written anew, kept. */
  async incremental(): Promise<{ seconds: number; storedRatio: number }> {
    const blocks = Array.from({ length: 2048 }, (_, index) => index * 100);
    const { socket } = await this.#volume(100, '/dev/sdg');
    const nbd = await NbdClient.connect(socket);
    const write = async () => {
      for (let at = 0; at < blocks.length; at += 8)
        await Promise.all(
          blocks.slice(at, at + 8).map((block) => nbd.write(block * blockBytes, randomBytes(blockBytes))),
        );
      await nbd.flush();
    };
    await write();
    await this.#snapshot('/dev/sdg');
    await write();
    await nbd.close();
    spawnSync('sync');
    const before = await this.#storedBytes();
    const began = performance.now();
    await this.#snapshot('/dev/sdg');
    const seconds = (performance.now() - began) / 1000;
    return { seconds, storedRatio: ((await this.#storedBytes()) - before) / (blocks.length * blockBytes) };
  }

  async firstRead(): Promise<number> {
    const { socket } = await this.#volume(1024, '/dev/sdh');
    const nbd = await NbdClient.connect(socket);
    const marker = randomBytes(4096);
    for (let at = 0; at < 64; at++) await nbd.write(at * 16 * gib, marker);
    await nbd.flush();
    await nbd.close();
    const snapshotId = await this.#snapshot('/dev/sdh');
    const began = performance.now();
    const volumeId = await this.#restored(snapshotId);
    const restored = await NbdClient.connect(await this.#volumes.attach(volumeId, this.#instance, '/dev/sdi'));
    const read = await restored.read(63 * 16 * gib, 4096);
    const elapsed = performance.now() - began;
    await restored.close();
    if (!read.equals(marker)) throw new Error('the restored volume reads something else');
    return elapsed;
  }

  async #volume(sizeGib: number, device: string): Promise<{ volumeId: string; socket: string }> {
    const { VolumeId } = await this.#volumes.ec2.send(
      new CreateVolumeCommand({ Size: sizeGib, AvailabilityZone: zone, Encrypted: true }),
    );
    return { volumeId: VolumeId!, socket: await this.#volumes.attach(VolumeId!, this.#instance, device) };
  }

  async #restored(snapshotId: string): Promise<string> {
    const { VolumeId } = await this.#volumes.ec2.send(
      new CreateVolumeCommand({ SnapshotId: snapshotId, AvailabilityZone: zone }),
    );
    return VolumeId!;
  }

  /** Takes a snapshot of the volume at `device`, and waits until it is completed. */
  async #snapshot(device: string): Promise<string> {
    const volumes = await this.#volumes.all();
    const volume = volumes.find((one) => one.Attachments?.some((attachment) => attachment.Device === device))!;
    const { SnapshotId } = await this.#volumes.ec2.send(new CreateSnapshotCommand({ VolumeId: volume.VolumeId! }));
    await this.#completed(SnapshotId!);
    return SnapshotId!;
  }

  async #completed(snapshotId: string): Promise<void> {
    const find = async (): Promise<Snapshot> =>
      (await this.#volumes.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [snapshotId] }))).Snapshots![0]!;
    await until(
      async () => {
        const { State, StateMessage } = await find();
        if (State === 'error') throw new Error(`${snapshotId}: ${StateMessage}`);
        return State === 'completed';
      },
      `${snapshotId} to be completed`,
      waitMs,
    );
  }

  async #isInitialized(volumeId: string): Promise<boolean> {
    const { VolumeStatuses } = await this.#volumes.ec2.send(new DescribeVolumeStatusCommand({ VolumeIds: [volumeId] }));
    const details = VolumeStatuses![0]!.InitializationStatusDetails;
    return details === undefined || details.Progress === 100;
  }

  async #storedBytes(): Promise<number> {
    const { stdout } = await run('du', ['-s', '-B1', join(this.#volumes.server.dataDir, 'snapshots', 'blocks')]);
    return Number.parseInt(stdout, 10);
  }
}

async function fill(nbd: NbdClient, sizeBytes: number): Promise<void> {
  const data = randomBytes(16 * mib);
  for (let at = 0; at < sizeBytes; at += 8 * mib)
    await Promise.all(
      Array.from({ length: 8 }, (_, index) => {
        // Other bytes each time: nothing may be found to be the same.
        data.writeBigUInt64LE(BigInt(at + index), index * mib);
        return nbd.write(at + index * mib, Buffer.from(data.subarray(index * mib, (index + 1) * mib)));
      }),
    );
  await nbd.flush();
}

function mbs(bytes: number, began: number): number {
  return bytes / 1000 / (performance.now() - began);
}

/** The same data in an encrypted qcow2: copied out whole by qemu-img and by nbdcopy. */
async function peers(directory: string, sizeGib: number): Promise<SnapshotFigure[]> {
  const raw = join(directory, 'peer.raw');
  const pass = join(directory, 'pass');
  writeFileSync(pass, 'benchmark', { mode: 0o600 });
  const secret = ['--object', `secret,id=pass,file=${pass}`];
  const encrypted = (name: string) =>
    `driver=qcow2,encrypt.key-secret=pass,file.driver=file,file.filename=${join(directory, name)}`;
  const create = async (name: string) => {
    const how = ['create', '-q', '-f', 'qcow2', ...secret];
    how.push('-o', 'encrypt.format=luks,encrypt.key-secret=pass,encrypt.iter-time=100');
    // It times its key derivation first, and gives up when the machine is too busy for that.
    for (let attempt = 1; ; attempt++) {
      const { status, stderr } = spawnSync('qemu-img', [...how, join(directory, name), `${sizeGib}G`]);
      if (status === 0) return;
      if (attempt === 20) throw new Error(`qemu-img create failed: ${stderr}`);
    }
  };
  await run('sh', ['-c', `head -c ${sizeGib * gib} /dev/urandom > "${raw}"`], { timeoutMs: waitMs });
  await create('source.qcow2');
  await create('target.qcow2');
  const convert = (from: readonly string[], to: string) =>
    run('qemu-img', ['convert', ...secret, '--target-image-opts', '-n', ...from, to], { timeoutMs: waitMs });
  await convert(['-f', 'raw', raw], encrypted('source.qcow2'));
  rmSync(raw);
  spawnSync('sync');
  const began = performance.now();
  await convert(['--image-opts', encrypted('source.qcow2')], encrypted('target.qcow2'));
  spawnSync('sync');
  const figures: SnapshotFigure[] = [
    {
      name: `qemu-img convert of ${sizeGib} GiB, encrypted qcow2 to encrypted qcow2`,
      value: mbs(sizeGib * gib, began),
      unit: 'MB/s',
    },
  ];
  const internalBegan = performance.now();
  await run('qemu-img', ['snapshot', ...secret, '--image-opts', '-c', 'first', encrypted('source.qcow2')], {
    timeoutMs: waitMs,
  });
  figures.push({
    name: 'qemu-img snapshot inside the same qcow2 (shares its blocks)',
    value: performance.now() - internalBegan,
    unit: 'ms',
  });
  return figures;
}

if (process.argv[1] === import.meta.filename) {
  const { values } = parseArgs({
    options: { 'size-gib': { type: 'string', default: '4' }, json: { type: 'boolean', default: false } },
  });
  const figures = await runSnapshotsBench({
    sizeGib: Number(values['size-gib']),
    log: (line) => console.error(line),
  });
  if (values.json) console.log(JSON.stringify(figures, undefined, 2));
}
