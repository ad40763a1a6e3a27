import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { DesiredAttachment } from '../aws/host-protocol.ts';
import { NbdClient } from '../cli/nbd-client.ts';
import { HostAgent } from './agent.ts';
import { ControlPlane } from './testing-control-plane.ts';

const instanceId = 'i-0123456789abcdef0';
const volumeId = 'vol-0123456789abcdef0';
const mebibyte = 1024 * 1024;

const instance = { instanceId, account: '123456789012', region: 'us-east-1', state: 'running' } as const;
const credentials = {
  sessionName: instanceId,
  account: '123456789012',
  region: 'us-east-1',
  accessKeyId: 'ASIAEXAMPLE',
  secretAccessKey: 'secret',
  sessionToken: 'token',
  expiration: new Date(Date.now() + 3_600_000).toISOString(),
};
const plain: DesiredAttachment = {
  volumeId,
  instanceId,
  account: '123456789012',
  region: 'us-east-1',
  device: '/dev/sdf',
  devicePath: 'dev/sdf',
  desired: 'attached',
  generation: 1,
  force: false,
  sizeBytes: 16 * mebibyte,
  readOnly: false,
  hasImage: false,
};
const encrypted: DesiredAttachment = {
  ...plain,
  encryption: {
    keyArn: 'arn:aws:kms:us-east-1:123456789012:key/x',
    encryptedDataKey: 'AAAA',
    encryptionContext: { 'aws:ebs:id': volumeId },
  },
};

let dataDir: string;
let controlPlane: ControlPlane;
let agent: HostAgent;
let running: Promise<'stopped' | 'superseded'>;
let connected: number;
let socket: string;

beforeEach(async () => {
  dataDir = mkdtempSync(join(tmpdir(), 'coffer-host-'));
  socket = join(dataDir, 'instances', instanceId, 'dev/sdf');
  controlPlane = new ControlPlane();
  await controlPlane.listen();
  start();
});

afterEach(async () => {
  agent.stop();
  await running;
  await controlPlane.close();
  rmSync(dataDir, { recursive: true, force: true });
});

function start(): void {
  connected = 0;
  agent = new HostAgent({
    hostId: 'local',
    credentials: { accessKeyId: 'AKIAEXAMPLE', secretAccessKey: 'secret' },
    region: 'us-east-1',
    zones: '*',
    dataDir,
    storeLocation: join(dataDir, 'snapshots'),
    startedAt: Date.now(),
    endpoint: () => ({ url: controlPlane.url }),
    onConnected: () => connected++,
    log: pino({ level: 'silent' }),
  });
  running = agent.run();
}

const reported = () => controlPlane.requests.at(-1)?.attachments[0];
async function becomes(state: string, generation = 1): Promise<void> {
  await expect.poll(() => reported()).toMatchObject({ state, generation });
}

test('makes the directory of an instance, reports it, and removes it when the instance is gone', async () => {
  controlPlane.desire({ instances: [instance] });
  await expect.poll(() => existsSync(join(dataDir, 'instances', instanceId, 'dev'))).toBe(true);
  controlPlane.desire({ instances: [] });
  await expect.poll(() => existsSync(join(dataDir, 'instances', instanceId))).toBe(false);
});

test('serves an encrypted volume with the key that KMS gives, and keeps data across detach and attach', async () => {
  controlPlane.decryptAnswer.body = { KeyId: 'x', Plaintext: randomBytes(64).toString('base64') };
  controlPlane.desire({ instances: [instance], attachments: [encrypted], credentials: [credentials] });
  await becomes('attached');
  const written = randomBytes(65_536);
  const nbd = await NbdClient.connect(socket);
  await nbd.write(4096, written);
  await nbd.flush();
  await nbd.close();

  controlPlane.desire({ attachments: [{ ...encrypted, desired: 'detached', generation: 2 }] });
  await becomes('detached', 2);
  expect(existsSync(socket)).toBe(false);

  controlPlane.desire({ attachments: [{ ...encrypted, generation: 3 }] });
  await becomes('attached', 3);
  expect(controlPlane.decrypts).toBe(2);
  const again = await NbdClient.connect(socket);
  expect((await again.read(4096, written.length)).equals(written)).toBe(true);
  await again.close();
});

test('forgets credentials once the volume is open', async () => {
  controlPlane.decryptAnswer.body = { Plaintext: randomBytes(64).toString('base64') };
  controlPlane.desire({ instances: [instance], attachments: [encrypted], credentials: [credentials] });
  await becomes('attached');
  await expect.poll(() => controlPlane.last.credentials).toEqual([]);
});

test("passes KMS's refusal on, word for word, and opens nothing", async () => {
  const message = 'arn:aws:kms:us-east-1:123456789012:key/x is disabled.';
  controlPlane.decryptAnswer = { status: 400, body: { __type: 'DisabledException', message } };
  controlPlane.desire({ instances: [instance], attachments: [encrypted], credentials: [credentials] });
  await becomes('failed');
  expect(reported()!.error).toEqual({ code: 'DisabledException', message });
  expect(existsSync(socket)).toBe(false);
});

test('tries a failed attachment of the same generation again', async () => {
  controlPlane.decryptAnswer = { status: 400, body: { __type: 'DisabledException', message: 'disabled' } };
  controlPlane.desire({ instances: [instance], attachments: [encrypted], credentials: [credentials] });
  await becomes('failed');
  controlPlane.decryptAnswer = { status: 200, body: { Plaintext: randomBytes(64).toString('base64') } };
  await becomes('attached');
});

test('an image that was there before and is not is a failure, never an empty volume', async () => {
  controlPlane.desire({ instances: [instance], attachments: [{ ...plain, hasImage: true }] });
  await becomes('failed');
  expect(reported()!.error!.message).toMatch(/image .* (missing|is not there|does not exist)/);
  expect(existsSync(join(dataDir, 'volumes', `${volumeId}.img`))).toBe(false);
});

test('refuses a data key of the wrong length', async () => {
  controlPlane.decryptAnswer.body = { Plaintext: randomBytes(32).toString('base64') };
  controlPlane.desire({ instances: [instance], attachments: [encrypted], credentials: [credentials] });
  await becomes('failed');
  expect(reported()!.error!.message).toContain('32 bytes');
});

test('a device path that leads outside of the instance fails', async () => {
  controlPlane.desire({ instances: [instance], attachments: [{ ...plain, devicePath: '../../escape' }] });
  await becomes('failed');
  expect(reported()!.error!.message).toContain('not inside');
});

test('a higher generation of an open attachment asks KMS again', async () => {
  controlPlane.decryptAnswer.body = { Plaintext: randomBytes(64).toString('base64') };
  controlPlane.desire({ instances: [instance], attachments: [encrypted], credentials: [credentials] });
  await becomes('attached');
  controlPlane.desire({ attachments: [{ ...encrypted, generation: 2 }] });
  await becomes('attached', 2);
  expect(controlPlane.decrypts).toBe(2);
});

test('I/O goes on while the control plane is away, and the host finds it again', async () => {
  controlPlane.desire({ instances: [instance], attachments: [plain] });
  await becomes('attached');
  const nbd = await NbdClient.connect(socket);
  await controlPlane.close();
  await nbd.write(0, Buffer.from('still here'));
  await nbd.flush();
  expect((await nbd.read(0, 10)).toString()).toBe('still here');
  await nbd.close();

  const next = new ControlPlane();
  next.desired = controlPlane.desired;
  controlPlane = next;
  await next.listen();
  agent.tryNow();
  await becomes('attached');
  expect(connected).toBe(2);
});

test('closes everything when another process has taken its place', async () => {
  controlPlane.desire({ instances: [instance], attachments: [plain] });
  await becomes('attached');
  controlPlane.syncError = { status: 400, body: { __type: 'HostSuperseded', message: 'another process' } };
  controlPlane.desire({});
  await expect(running).resolves.toBe('superseded');
  expect(existsSync(socket)).toBe(false);
});

test('erases the image of a deleted volume, and says so until the task is gone', async () => {
  controlPlane.desire({ instances: [instance], attachments: [plain] });
  await becomes('attached');
  controlPlane.desire({ attachments: [] });
  await expect.poll(() => existsSync(socket)).toBe(false);
  controlPlane.desire({ tasks: [{ taskId: 't1', kind: 'eraseVolume', volumeId }] });
  await expect.poll(() => controlPlane.last.tasks).toEqual([{ taskId: 't1', state: 'done' }]);
  expect(existsSync(join(dataDir, 'volumes', `${volumeId}.img`))).toBe(false);
  controlPlane.desire({ tasks: [] });
  await expect.poll(() => controlPlane.last.tasks).toEqual([]);
});

test('an image that is attached is not erased', async () => {
  controlPlane.desire({
    instances: [instance],
    attachments: [plain],
    tasks: [{ taskId: 't1', kind: 'eraseVolume', volumeId: 'vol-0000000000000000a' }],
  });
  await becomes('attached');
  controlPlane.desire({ tasks: [{ taskId: 't2', kind: 'eraseVolume', volumeId }] });
  await expect.poll(() => controlPlane.last.tasks[0]?.state).toBe('failed');
  expect(existsSync(join(dataDir, 'volumes', `${volumeId}.img`))).toBe(true);
});
