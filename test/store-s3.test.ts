/** The block store in a bucket, against a real S3 server, and against one that misbehaves. */
import { CreateBucketCommand, ListMultipartUploadsCommand, S3Client } from '@aws-sdk/client-s3';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { freeSnapshot } from '../src/blocks/free.ts';
import { openStore } from '../src/blocks/open-store.ts';
import { readManifest, readManifestHeader } from '../src/blocks/read-manifest.ts';
import { openS3Store } from '../src/blocks/s3-store.ts';
import { type BlockStore, blockBytes } from '../src/blocks/store.ts';
import { blockOf, blocksIn, collect, itIsABlockStore, sha256Of, storeSnapshot } from '../src/blocks/testing-store.ts';
import { type S3Server, startCeph } from './support/ceph.ts';
import { type Fault, FaultyS3 } from './support/faulty-s3.ts';

let ceph: S3Server;
let admin: S3Client;
beforeAll(async () => {
  ceph = await startCeph();
  const { accessKeyId, secretAccessKey, endpoint } = ceph;
  // As a host gets them, and nothing else of whoever runs the tests.
  for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name];
  Object.assign(process.env, {
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
    AWS_CONFIG_FILE: '/dev/null',
    AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
    COFFER_S3_ENDPOINT: endpoint,
  });
  const credentials = { accessKeyId, secretAccessKey };
  admin = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials });
  await admin.send(new CreateBucketCommand({ Bucket: 'blocks' }));
});
afterAll(async () => {
  admin?.destroy();
  await ceph?.stop();
});

describe('a bucket', () => {
  itIsABlockStore(() => openStore('s3://blocks/some/prefix'), 4);

  it('holds several stores, and is none by itself', async () => {
    const [one, other] = [await openStore('s3://blocks/one'), await openStore('s3://blocks/other/')];
    expect(one.id).not.toBe(other.id);
    await one.putMark('snap-1');
    expect(await collect(other.listMarks())).toEqual([]);
    await expect(openStore('s3://blocks/third', { create: false })).rejects.toMatchObject({ code: 'Unavailable' });
    await expect(openStore('s3://missing/one')).rejects.toMatchObject({
      code: 'Unavailable',
      detail: expect.stringContaining('s3://missing/one'),
    });
    for (const bad of ['s3://', 's3://Blocks', 's3://key:secret@blocks/x', 's3://blocks/../x', 's3://blocks//x']) {
      await expect(openStore(bad)).rejects.toThrow(RangeError);
    }
    one.close();
    other.close();
  });

  it('takes long manifests in parts, whole or not at all', async () => {
    const limits = { partBytes: 5 * 1024 * 1024 };
    const store = await openS3Store('s3://blocks/parts', { create: true, limits });
    const bytes = Buffer.alloc(12 * 1024 * 1024, sha256Of(Buffer.from('manifest')));
    await store.putManifest('snap-1', bytes);
    expect((await store.getManifest('snap-1'))!.equals(bytes)).toBe(true);
    expect((await store.getManifestStart('snap-1', 100))!.equals(bytes.subarray(0, 100))).toBe(true);
    store.close();
  });

  it('frees what nobody needs', async () => {
    const store = await openStore('s3://blocks/freeing');
    const first = await storeSnapshot(store, 'snap-0a', [0, 1, 2]);
    await storeSnapshot(store, 'snap-0b', [1], { manifest: first, inherited: [0] });
    expect(await freeSnapshot(store, 'snap-0a')).toEqual({ blocks: 2 });
    expect(await blocksIn(store)).toEqual(['snap-0a:0', 'snap-0b:1']);
    await freeSnapshot(store, 'snap-0b');
    expect(await blocksIn(store)).toEqual([]);
    store.close();
  });
});

describe('when the server misbehaves', () => {
  const limits = {
    // A server on a busy machine may itself be silent for so long.
    attempts: 50,
    attemptTimeoutMs: 800,
    slowestBytesPerMs: 10_000,
    connectTimeoutMs: 400,
    pauseMs: 5,
    pauseMaxMs: 40,
  };
  const name = { owner: 'snap-0a', index: 3 };
  const sha256 = sha256Of(blockOf(name));
  const bytes = Buffer.alloc(blockBytes);
  const readFaults: readonly Fault[] = [
    'silence',
    'stall',
    'truncate',
    'flip',
    'reset',
    'slowDown',
    'internalError',
    'notXml',
  ];
  const writeFaults: readonly Fault[] = ['silence', 'flipRequest', 'reset', 'slowDown', 'internalError', 'notXml'];
  let proxy: FaultyS3;
  let store: BlockStore;
  /** The same store, for what is to fail. */
  let impatient: BlockStore;
  beforeAll(async () => {
    proxy = new FaultyS3(ceph.endpoint);
    process.env.COFFER_S3_ENDPOINT = await proxy.start();
    store = await openS3Store('s3://blocks/faulty', { create: true, limits });
    await store.putBlock(name, blockOf(name));
    impatient = await openS3Store('s3://blocks/faulty', { create: false, limits: { ...limits, attempts: 4 } });
  });
  afterEach(() => proxy.heal());
  afterAll(async () => {
    process.env.COFFER_S3_ENDPOINT = ceph.endpoint;
    store?.close();
    impatient?.close();
    await proxy?.stop();
  });

  it.each(readFaults)('reads a block in spite of passing faults: %s', async (fault) => {
    proxy.break(fault, ['GET'], 2);
    bytes.fill(0);
    await store.getBlock(name, sha256, bytes);
    expect(bytes.equals(blockOf(name))).toBe(true);
  });

  it.each(readFaults)('says in the end that a block can’t be read, and why: %s', async (fault) => {
    proxy.break(fault, ['GET'], 100);
    // What is damaged is believed to be after a few tries that were answered; what is silent, after all.
    const asking = fault === 'flip' ? store : impatient;
    await expect(asking.getBlock(name, sha256, bytes)).rejects.toMatchObject({
      name: 'StoreError',
      code: fault === 'flip' ? 'Corrupt' : 'Unavailable',
      message: expect.stringMatching(/^block 3 of snap-0a (?!.*s3:)/),
      detail: expect.stringContaining('s3://blocks/faulty'),
    });
  });

  it('reads manifests and store.json in spite of answers that were changed, and believes none of those', async () => {
    const manifest = await storeSnapshot(store, 'snap-0f', [0, 1]);
    proxy.break('flip', ['GET'], 2);
    expect((await readManifest(store, 'snap-0f'))!.blocks).toBe(manifest.blocks);
    proxy.break('flip', ['GET'], 2);
    expect((await readManifestHeader(store, 'snap-0f'))!.snapshotId).toBe('snap-0f');
    proxy.break('flip', ['GET'], 2);
    const again = await openS3Store('s3://blocks/faulty', { create: true, limits });
    expect(again.id).toBe(store.id);
    again.close();

    proxy.break('flip', ['GET'], 100);
    await expect(readManifest(store, 'snap-0f')).rejects.toMatchObject({ code: 'Corrupt' });
    await expect(openS3Store('s3://blocks/faulty', { create: true, limits })).rejects.toMatchObject({
      code: 'Corrupt',
      message: expect.stringContaining('store.json of the block store is damaged'),
      detail: 's3://blocks/faulty',
    });
    proxy.heal();
    await freeSnapshot(store, 'snap-0f');
  });

  it('says in one sentence that something else than S3 answers', async () => {
    proxy.break('notXml', ['GET'], 100);
    await expect(impatient.getBlock(name, sha256, bytes)).rejects.toMatchObject({
      detail: expect.stringMatching(/: an answer that is not one of S3 \(HTTP 502\) \(tried 4 times\)$/),
    });
  });

  it.each(writeFaults)('writes in spite of passing faults: %s', async (fault) => {
    const written = { owner: 'snap-0b', index: 4 };
    proxy.break(fault, ['PUT'], 2);
    await store.putBlock(written, blockOf(written));
    await store.getBlock(written, sha256Of(blockOf(written)), bytes);
    proxy.break(fault, ['PUT'], 2);
    await store.putManifest('snap-0b', Buffer.from('manifest'));
    expect(String(await store.getManifest('snap-0b'))).toBe('manifest');
    proxy.break(fault, ['PUT'], 2);
    await store.copyBlock(written, { ...written, index: 5 });
    proxy.break(fault, ['POST', 'DELETE'], 2);
    await store.deleteBlocks([written, { ...written, index: 5 }]);
    proxy.break(fault, ['DELETE'], 2);
    await store.deleteManifest('snap-0b');
    expect(await blocksIn(store, 'snap-0b')).toEqual([]);
    expect(await collect(store.listManifests())).toEqual([]);
  });

  it.each(writeFaults)('says in the end that a block can’t be written: %s', async (fault) => {
    proxy.break(fault, ['PUT', 'POST'], 100);
    const written = { owner: 'snap-0c', index: 4 };
    const unavailable = { code: 'Unavailable', detail: expect.stringContaining('(tried 4 times)') };
    await expect(impatient.putBlock(written, blockOf(written))).rejects.toMatchObject(unavailable);
    await expect(impatient.deleteBlocks([written])).rejects.toMatchObject(unavailable);
    proxy.heal();
    await store.getBlock(name, sha256, bytes);
  });

  it.each<[Fault, string]>([
    ['accessDenied', 'Denied'],
    ['quotaExceeded', 'Full'],
  ])('does not ask again when it is told no: %s', async (fault, code) => {
    proxy.break(fault, ['PUT', 'GET'], 100);
    const before = proxy.requests;
    await expect(store.putBlock(name, blockOf(name))).rejects.toMatchObject({ code });
    await expect(store.getBlock(name, sha256, bytes)).rejects.toMatchObject({ code });
    expect(proxy.requests - before).toBe(2);
  });

  it('lists in spite of faults, whole', async () => {
    for (const fault of ['truncate', 'silence', 'slowDown', 'reset'] as const) {
      proxy.break(fault, ['GET'], 1);
      expect(await blocksIn(store, 'snap-0a')).toEqual(['snap-0a:3']);
    }
  });

  it('goes on when it is throttled, and sends no more at a time than agreed', async () => {
    proxy.inFlightMax = 4;
    const patient = await openS3Store('s3://blocks/faulty', {
      create: false,
      limits: { attempts: 50, pauseMs: 10, pauseMaxMs: 200 },
    });
    const many = Array.from({ length: 40 }, (_, index) => ({ owner: 'snap-0d', index }));
    try {
      await Promise.all(many.map((each) => patient.putBlock(each, blockOf(each))));
      expect(await blocksIn(patient, 'snap-0d')).toHaveLength(40);
      await patient.deleteBlocks(many);
    } finally {
      proxy.inFlightMax = Number.POSITIVE_INFINITY;
      patient.close();
    }
  });

  it('ends at once when asked to, in the middle of a request', async () => {
    const endless = { ...limits, attemptTimeoutMs: 3600_000 };
    const patient = await openS3Store('s3://blocks/faulty', { create: false, limits: endless });
    proxy.break('silence', ['GET', 'PUT'], 100);
    for (const work of [
      (signal: AbortSignal) => patient.getBlock(name, sha256, bytes, signal),
      (signal: AbortSignal) => patient.putBlock(name, blockOf(name), signal),
    ]) {
      await expect(work(AbortSignal.timeout(50))).rejects.toMatchObject({ name: 'TimeoutError' });
    }
    patient.close();
  });

  it('leaves no part of a manifest whose storing was ended', async () => {
    const patient = await openS3Store('s3://blocks/faulty', { create: false, limits: { partBytes: 5 * 1024 * 1024 } });
    const uploads = async () =>
      (await admin.send(new ListMultipartUploadsCommand({ Bucket: 'blocks' }))).Uploads?.length ?? 0;
    const controller = new AbortController();
    proxy.break('silence', ['PUT'], Number.POSITIVE_INFINITY);
    const putting = patient.putManifest('snap-2', Buffer.alloc(12 * 1024 * 1024, 7), controller.signal);
    const ended = expect(putting).rejects.toMatchObject({ name: 'AbortError' });
    await expect.poll(uploads).toBe(1);
    controller.abort();
    await ended;
    expect(await uploads()).toBe(0);
    expect(await patient.getManifest('snap-2')).toBeUndefined();
    patient.close();
  });

  it('tells bad credentials and a server that is not there apart', async () => {
    const { AWS_SECRET_ACCESS_KEY, COFFER_S3_ENDPOINT } = process.env;
    const open = (attempts: number) =>
      openS3Store('s3://blocks/faulty', { create: false, limits: { ...limits, attempts } });
    try {
      process.env.AWS_SECRET_ACCESS_KEY = 'not the right one';
      await expect(open(limits.attempts)).rejects.toMatchObject({ code: 'Denied' });
      process.env.COFFER_S3_ENDPOINT = 'http://127.0.0.1:9';
      await expect(open(4)).rejects.toMatchObject({
        code: 'Unavailable',
        message: expect.not.stringContaining('127.0.0.1'),
        detail: expect.stringContaining('ECONNREFUSED'),
      });
    } finally {
      Object.assign(process.env, { AWS_SECRET_ACCESS_KEY, COFFER_S3_ENDPOINT });
    }
  });
});
