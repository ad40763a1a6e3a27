/** The block stores that the model can be run on, and what keeps each of them away for a while. */
import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { startCeph } from '../ceph.ts';
import { type Fault, FaultyS3 } from '../faulty-s3.ts';
import type { Random } from '../fuzz/random.ts';

export interface ModelStore {
  /** For `openStore` in this process, also while the server can't reach it. */
  readonly location: string;
  /** For `coffer serve`. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Takes it away from the server; in words. */
  goAway(random: Random): string;
  comeBack(): void;
  end(): Promise<void>;
}

/** That of a data directory. It goes away as one does that is no longer mounted. */
export function directoryStore(dataDir: string): ModelStore {
  const location = join(dataDir, 'snapshots');
  return {
    location,
    args: [],
    env: {},
    goAway() {
      renameSync(location, `${location}.away`);
      return 'is not mounted';
    },
    comeBack() {
      if (existsSync(location)) throw new Error('another block store was begun where the one was that is away');
      renameSync(`${location}.away`, location);
    },
    async end() {},
  };
}

const faults: readonly Fault[] = ['reset', 'slowDown', 'internalError', 'accessDenied', 'truncate'];
const methods = ['GET', 'HEAD', 'PUT', 'POST', 'DELETE'];

/** A bucket of a Ceph gateway. */
export async function bucketStore(): Promise<ModelStore> {
  const ceph = await startCeph();
  const { accessKeyId, secretAccessKey, endpoint } = ceph;
  const credentials = { accessKeyId, secretAccessKey };
  const admin = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials });
  await admin.send(new CreateBucketCommand({ Bucket: 'blocks' }));
  const proxy = new FaultyS3(endpoint);
  const location = 's3://blocks/coffer';
  const env = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey };
  Object.assign(process.env, env, { COFFER_S3_ENDPOINT: endpoint });
  return {
    location,
    args: ['--store', location],
    env: { ...env, COFFER_S3_ENDPOINT: await proxy.start() },
    goAway(random) {
      const fault = random.pick(faults);
      proxy.break(fault, methods, Number.POSITIVE_INFINITY);
      return `answers with ${fault}`;
    },
    comeBack: () => proxy.heal(),
    async end() {
      admin.destroy();
      await proxy.stop();
      await ceph.stop();
    },
  };
}
