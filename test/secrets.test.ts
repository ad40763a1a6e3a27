/** Whether secrets stay where they belong, and whether the bytes on disk are what the documentation says. */
import { createDecipheriv, randomBytes } from 'node:crypto';
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DecryptCommand, KMSClient } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseCredentials } from '../src/cli/credentials-file.ts';
import { NbdClient } from '../src/cli/nbd-client.ts';
import { run } from './support/client.ts';
import { filesUnder, findIn, formsOf } from './support/files.ts';
import { findInMemory, memoryOf } from './support/memory.ts';
import { coffer, startServer, type TestServer } from './support/server.ts';
import { Volumes } from './support/volumes.ts';

interface Inspection {
  readonly ImagePath: string;
  readonly EncryptedDataKey: string;
  readonly EncryptionContext: Record<string, string>;
  readonly DataUnitBytes: number;
}

const unitBytes = 4096;
const at = 3 * 1024 * 1024;
const written = Buffer.concat([
  Buffer.from('nobody may find this sentence at rest. '.repeat(106)).subarray(0, unitBytes),
  randomBytes(7 * unitBytes),
]);

let server: TestServer;
let volumes: Volumes;
let kms: KMSClient;
let instance: string;
let volume: string;
let other: string;
let inspected: Inspection;
let dataKey: Buffer;
let ciphertext: Buffer;

const inspect = async (volumeId: string): Promise<Inspection> => {
  const env = { ...server.environment(), COFFER_ENDPOINT: server.endpoint };
  return JSON.parse((await run(coffer, ['volume', 'inspect', volumeId], { env })).stdout);
};

const decrypt = (blob: Uint8Array, context: Record<string, string> | undefined, keyId?: string) =>
  kms.send(new DecryptCommand({ CiphertextBlob: blob, EncryptionContext: context, KeyId: keyId }));

function readAt(path: string, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  const file = openSync(path, 'r');
  readSync(file, bytes, 0, length, offset);
  closeSync(file);
  return bytes;
}

beforeAll(async () => {
  server = await startServer();
  volumes = new Volumes(server);
  kms = server.sdk(KMSClient);
  instance = await volumes.runInstance();
  volume = await volumes.create();
  other = await volumes.create();
  const nbd = await NbdClient.connect(await volumes.attach(volume, instance));
  await nbd.write(at, written);
  await nbd.flush();
  await nbd.close();
  inspected = await inspect(volume);
  ciphertext = readAt(inspected.ImagePath, at, written.length);
});
afterAll(async () => {
  await server?.stop();
});

test('the AWS managed key decrypts for nobody but EC2', async () => {
  const blob = Buffer.from(inspected.EncryptedDataKey, 'base64');
  await expect(decrypt(blob, inspected.EncryptionContext)).rejects.toThrow(/not authorized to perform: kms:Decrypt/);
});

test('an auditor with KMS Decrypt and another implementation of AES-XTS reads what was written', async () => {
  const { KeyMetadata: key } = await server.awsCli('kms', 'create-key');
  const mine = await volumes.create({ KmsKeyId: key.Arn });
  const nbd = await NbdClient.connect(await volumes.attach(mine, instance, '/dev/sdg'));
  await nbd.write(at, written);
  await nbd.flush();
  await nbd.close();
  inspected = await inspect(mine);
  volume = mine;
  ciphertext = readAt(inspected.ImagePath, at, written.length);
  expect(inspected).toMatchObject({ EncryptionContext: { 'aws:ebs:id': mine }, DataUnitBytes: unitBytes });
  const answer = await decrypt(Buffer.from(inspected.EncryptedDataKey, 'base64'), inspected.EncryptionContext);
  dataKey = Buffer.from(answer.Plaintext!);
  expect(dataKey).toHaveLength(64);

  expect(ciphertext.equals(written)).toBe(false);
  expect(decryptWithNode(ciphertext, dataKey, at).equals(written)).toBe(true);
  for (const library of ['libgcrypt', 'cryptography']) {
    const { stdoutBytes } = await run('/usr/bin/python3', ['-c', decryptInPython, library, String(at / unitBytes)], {
      input: Buffer.concat([dataKey, ciphertext]),
    });
    expect(stdoutBytes.equals(written), library).toBe(true);
  }
});

function decryptWithNode(bytes: Buffer, key: Buffer, offset: number): Buffer {
  const units: Buffer[] = [];
  for (let from = 0; from < bytes.length; from += unitBytes) {
    const tweak = Buffer.alloc(16);
    tweak.writeBigUInt64LE(BigInt((offset + from) / unitBytes));
    units.push(createDecipheriv('aes-256-xts', key, tweak).update(bytes.subarray(from, from + unitBytes)));
  }
  return Buffer.concat(units);
}

/** Reads key and ciphertext from stdin; libgcrypt shares no code with OpenSSL, which Node.js and we use. */
const decryptInPython = `
import ctypes, sys
data = sys.stdin.buffer.read()
key, ciphertext, first = data[:64], data[64:], int(sys.argv[2])
def with_libgcrypt(unit, tweak):
    library = ctypes.CDLL('libgcrypt.so.20')
    library.gcry_check_version(None)
    handle, out = ctypes.c_void_p(), ctypes.create_string_buffer(len(unit))
    aes256, xts = 9, 13
    assert library.gcry_cipher_open(ctypes.byref(handle), aes256, xts, 0) == 0
    assert library.gcry_cipher_setkey(handle, key, 64) == 0
    assert library.gcry_cipher_setiv(handle, tweak, 16) == 0
    assert library.gcry_cipher_decrypt(handle, out, len(unit), unit, len(unit)) == 0
    return out.raw
def with_cryptography(unit, tweak):
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    return Cipher(algorithms.AES(key), modes.XTS(tweak)).decryptor().update(unit)
decrypt = with_libgcrypt if sys.argv[1] == 'libgcrypt' else with_cryptography
for i in range(0, len(ciphertext), 4096):
    tweak = (first + i // 4096).to_bytes(16, 'little')
    sys.stdout.buffer.write(decrypt(ciphertext[i:i + 4096], tweak))
`;

test('an encrypted data key opens with its own context only, whole and unchanged', async () => {
  const blob = Buffer.from(inspected.EncryptedDataKey, 'base64');
  const context = inspected.EncryptionContext;
  const refused = (promise: Promise<unknown>) =>
    expect(promise).rejects.toMatchObject({ name: 'InvalidCiphertextException' });
  await refused(decrypt(blob, undefined));
  await refused(decrypt(blob, { 'aws:ebs:id': other }));
  await refused(decrypt(blob, { ...context, more: 'x' }));
  await refused(decrypt(blob, { 'AWS:ebs:id': volume }));
  for (const length of [0, 1, 16, blob.length - 16, blob.length - 1]) {
    await expect(decrypt(blob.subarray(0, length), context)).rejects.toMatchObject({
      name: /InvalidCiphertext|Validation/,
    });
  }
  await refused(decrypt(Buffer.concat([blob, Buffer.of(0)]), context));
  for (let bit = 0; bit < blob.length * 8; bit += 37) {
    const flipped = Buffer.from(blob);
    const at = bit >> 3;
    flipped[at]! ^= 1 << (bit & 7);
    // Bytes 1 to 16 name the key: another one is none that the caller may use.
    const namesKey = at >= 1 && at <= 16;
    const name = namesKey ? 'AccessDeniedException' : 'InvalidCiphertextException';
    await expect(decrypt(flipped, context)).rejects.toMatchObject({ name });
  }
});

test("another volume's encrypted data key is refused with this volume's context", async () => {
  const { EncryptedDataKey } = await inspect(other);
  await expect(decrypt(Buffer.from(EncryptedDataKey, 'base64'), inspected.EncryptionContext)).rejects.toThrow();
});

test('every volume has a data key of its own', async () => {
  const { KeyMetadata: key } = await server.awsCli('kms', 'create-key');
  const keys = new Set<string>();
  for (let i = 0; i < 5; i++) {
    const { EncryptedDataKey, EncryptionContext } = await inspect(await volumes.create({ KmsKeyId: key.Arn }));
    const answer = await decrypt(Buffer.from(EncryptedDataKey, 'base64'), EncryptionContext);
    keys.add(Buffer.from(answer.Plaintext!).toString('hex'));
  }
  expect(keys.size).toBe(5);
});

/** Everything that must not be found, in every form in which it could be written. */
function secrets(): Map<string, Buffer> {
  const file = (name: string) => readFileSync(join(server.dataDir, name));
  const host = parseCredentials(file('host.credentials').toString());
  return new Map([
    ...formsOf('the data key', dataKey),
    ...formsOf('half of the data key', dataKey.subarray(0, 32)),
    ...formsOf('the root key', file('root.key')),
    ...formsOf("the administrator's secret", Buffer.from(server.credentials.secretAccessKey)),
    ...formsOf("the host's secret", Buffer.from(host.secretAccessKey)),
    ['the plaintext', written.subarray(0, 39)],
  ]);
}

/** The files whose purpose is to hold a secret, and which one. */
const holders: Record<string, string> = {
  'root.key': 'the root key, raw',
  'admin.credentials': "the administrator's secret, raw",
  'host.credentials': "the host's secret, raw",
};

test('no secret is in the database, its log, the host log or any other file', () => {
  const needles = secrets();
  const files = filesUnder(server.dataDir);
  expect(files.map((file) => file.slice(server.dataDir.length + 1))).toEqual(
    expect.arrayContaining(['coffer.db', 'coffer.db-wal', 'host.log', 'root.key', `volumes/${volume}.img`]),
  );
  for (const file of files) {
    const holds = holders[file.slice(server.dataDir.length + 1)];
    const sought = new Map([...needles].filter(([name]) => name !== holds));
    expect(findIn(file, sought), file).toBeUndefined();
    if (holds) expect(findIn(file, needles), 'the search finds what is there').toBe(holds);
  }
  const known = new Map([['the ciphertext', ciphertext.subarray(0, 64)]]);
  expect(findIn(inspected.ImagePath, known), 'the search finds what is there').toBe('the ciphertext');
});

test('files that hold secrets, volumes and sockets are for their owner only', () => {
  for (const name of ['.', 'volumes', 'instances', `instances/${instance}/dev`])
    expect(statSync(join(server.dataDir, name)).mode & 0o077, name).toBe(0);
  for (const file of filesUnder(server.dataDir)) expect(statSync(file).mode & 0o077, file).toBe(0);
});

test('no secret was printed, or shows in the trail', async () => {
  const needles = secrets();
  const { Events } = await server.awsCli('cloudtrail', 'lookup-events', '--max-items', '1000');
  const texts = { output: server.output, trail: JSON.stringify(Events) };
  expect(Events.length).toBeGreaterThan(20);
  for (const [where, text] of Object.entries(texts)) {
    for (const [name, needle] of needles)
      expect(text.includes(needle.toString('latin1')), `${name} in the ${where}`).toBe(false);
    expect(text).not.toContain(inspected.EncryptedDataKey);
  }
});

test("no secret is in any process's environment or command line", () => {
  const needles = secrets();
  let looked = 0;
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    // Client tools of other tests hold credentials of their own in their environment; ours are told apart by the value.
    for (const name of ['environ', 'cmdline']) {
      let bytes: Buffer;
      try {
        bytes = readFileSync(`/proc/${pid}/${name}`);
      } catch {
        continue;
      }
      looked++;
      for (const [secret, needle] of needles)
        expect(bytes.includes(needle), `${secret} in /proc/${pid}/${name}`).toBe(false);
    }
  }
  expect(looked).toBeGreaterThan(4);
  for (const pid of [server.controlPlanePid, server.hostPid!]) {
    expect(readFileSync(`/proc/${pid}/limits`, 'utf8')).toMatch(/^Max core file size +0 +0/m);
  }
});

test("making a volume leaves nothing of its data key in the control plane's memory", async () => {
  const { KeyMetadata: key } = await server.awsCli('kms', 'create-key');
  const made = await volumes.create({ KmsKeyId: key.Arn });
  const memory = [...memoryOf(server.controlPlanePid)];
  expect(
    memory.some((piece) => piece.includes(made)),
    'the search finds what is there',
  ).toBe(true);
  const { EncryptedDataKey, EncryptionContext } = await inspect(made);
  const { Plaintext } = await decrypt(Buffer.from(EncryptedDataKey, 'base64'), EncryptionContext);
  for (const [name, needle] of formsOf('the data key', Plaintext!)) {
    expect(
      memory.some((piece) => piece.includes(needle)),
      name,
    ).toBe(false);
  }
});

test("detaching leaves nothing of the data key in the host's memory", async () => {
  const needles = new Map([
    ...formsOf('the data key', dataKey),
    ['its first half', dataKey.subarray(0, 32)],
    ['its second half', dataKey.subarray(32)],
  ]);
  expect(findInMemory(server.hostPid!, needles), 'the search finds what is there').toContain('its first half');
  for (let round = 0; round < 2; round++) {
    await volumes.detach(volume);
    // What was in registers or on a stack of the thread that served it goes with the thread.
    expect(findInMemory(server.hostPid!, needles)).toEqual([]);
    await volumes.attach(volume, instance, '/dev/sdg');
  }
});

test("an administrator's key from the environment doesn't stay there", async () => {
  const chosen = { accessKeyId: 'AKIACHOSENBYOPERATOR', secretAccessKey: 'chosen/by+the/operator=0123456789abcdefg' };
  await using given = await startServer({
    env: { COFFER_ADMIN_ACCESS_KEY_ID: chosen.accessKeyId, COFFER_ADMIN_SECRET_ACCESS_KEY: chosen.secretAccessKey },
    administrator: chosen,
  });
  expect(await given.awsCli('sts', 'get-caller-identity')).toMatchObject({ Account: '123456789012' });
  for (const pid of [given.controlPlanePid, given.hostPid!]) {
    for (const name of ['environ', 'cmdline']) {
      const text = readFileSync(`/proc/${pid}/${name}`, 'latin1');
      expect(text).not.toContain(chosen.secretAccessKey);
      expect(text).not.toContain('COFFER_ADMIN_SECRET');
    }
  }
  const needles = new Map(formsOf('the secret', Buffer.from(chosen.secretAccessKey)));
  for (const file of filesUnder(given.dataDir)) expect(findIn(file, needles), file).toBeUndefined();
});
