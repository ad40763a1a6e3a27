/** docs/formats.md: what it says of the formats is true, and its example opens what the server has sealed. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { CreateKeyCommand, EncryptCommand, KMSClient, RotateKeyOnDemandCommand } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { InspectedVolume } from '../src/ec2/inspect.ts';
import { CommandFailed, cleanEnvironment, run } from './support/client.ts';
import { coffer, startServer } from './support/server.ts';
import { Volumes } from './support/volumes.ts';

const page = readFileSync(join(import.meta.dirname, '../docs/formats.md'), 'utf8');
const example = page
  .slice(0, page.indexOf('\n## '))
  .replaceAll(/^(?! {4}).*\n/gm, '')
  .replaceAll(/^ {4}/gm, '');

let home: string;
let dataDir: string;
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), 'coffer-formats-'));
  dataDir = join(home, 'data');
});
afterAll(() => rmSync(home, { recursive: true, force: true }));

/** Types the example as it stands there, for another ciphertext and context. */
async function open(blob: string, context: object): Promise<Buffer> {
  const script = example.replace(/'\{"aws:ebs:id".*\}'/, '"$CONTEXT"');
  const { stdoutBytes } = await run('bash', ['-ec', script], {
    cwd: home,
    env: {
      ...cleanEnvironment(),
      PATH: `${dirname(process.execPath)}:/usr/bin:/bin`,
      DATA: dataDir,
      BLOB: blob,
      CONTEXT: JSON.stringify(context),
    },
  });
  return stdoutBytes;
}

test('the example opens ciphertexts and data keys with the root key and the database alone', async () => {
  const server = await startServer({ dataDir });
  const kms = server.sdk(KMSClient);
  const newKey = async (input = {}) => (await kms.send(new CreateKeyCommand(input))).KeyMetadata!.Arn!;
  const encrypt = async (KeyId: string, text: string, EncryptionContext: Record<string, string>) => {
    const Plaintext = Buffer.from(text);
    const { CiphertextBlob } = await kms.send(new EncryptCommand({ KeyId, Plaintext, EncryptionContext }));
    return Buffer.from(CiphertextBlob!).toString('base64');
  };
  const context = {
    über: 'ß',
    purpose: 'test',
    Zone: '',
    '\u{1F511}': 'key',
    '\uFF5E': 'before the key in UTF-8 only',
  };
  const rotated = await newKey();
  const before = await encrypt(rotated, 'before the rotation', context);
  await kms.send(new RotateKeyOnDemandCommand({ KeyId: rotated }));
  const after = await encrypt(rotated, 'after it', {});
  const multiRegion = await encrypt(await newKey({ MultiRegion: true }), 'of many regions', { purpose: 'test' });
  const volume = await new Volumes(server).create({ KmsKeyId: rotated });
  const inspect = await run(coffer, ['volume', 'inspect', volume, '--data', dataDir]);
  const { EncryptedDataKey, EncryptionContext } = JSON.parse(inspect.stdout) as InspectedVolume;
  kms.destroy();
  await server.stop();

  expect((await open(before, context)).toString()).toBe('before the rotation');
  expect((await open(after, {})).toString()).toBe('after it');
  expect((await open(multiRegion, { purpose: 'test' })).toString()).toBe('of many regions');
  expect(await open(EncryptedDataKey!, EncryptionContext!)).toHaveLength(64);
  await expect(open(after, { purpose: 'test' })).rejects.toThrow(CommandFailed);
});

test('the page names every table of the database, and every purpose of the root key', () => {
  const database = new DatabaseSync(join(dataDir, 'coffer.db'));
  const tables = database.prepare("select name from sqlite_master where type = 'table'").all() as { name: string }[];
  database.close();
  expect(tables.length).toBeGreaterThan(20);
  for (const { name } of tables.filter((table) => !table.name.startsWith('sqlite_')))
    expect(
      [`\`${name}\``, `\`${name.split('_')[0]}_…\``].some((text) => page.includes(text)),
      name,
    ).toBe(true);
  const root = join(import.meta.dirname, '../src');
  const sources = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts'));
  const purposes = sources.flatMap((path) => [
    ...readFileSync(join(root, path), 'utf8').matchAll(/(?:const \w*[pP]urpose = |fingerprint\()'([^']+)'/g),
  ]);
  expect(purposes.length).toBeGreaterThan(5);
  for (const [, purpose] of purposes) expect(page, purpose).toContain(`\`${purpose}\``);
});
