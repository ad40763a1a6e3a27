/** Carries out requests for blocks: reads and writes the block store, encrypts and decrypts. */
import { hash } from 'node:crypto';
import type {
  BlockAnswers,
  BlockRequest,
  CompleteUploadRequest,
  GetBlockRequest,
  ListBlocksRequest,
  ListChangedBlocksRequest,
  PutBlockRequest,
} from '../../aws/block-protocol.ts';
import type { SnapshotOutcome } from '../../aws/host-protocol.ts';
import { Manifest } from '../../blocks/manifest.ts';
import { type BlockStore, blockBytes } from '../../blocks/store.ts';
import { createSlab, type Slab } from '../../crypto/native.ts';
import type { SealedBoxKey } from '../../crypto/sealed-box.ts';
import { createXts, dataUnitBytes, type Xts } from '../../crypto/xts.ts';
import { RequestRefused } from './request-refused.ts';
import type { Uploads } from './uploads.ts';

/** Manifests kept between requests: a snapshot that is read is read block by block. They never change. */
const manifestsMax = 8;
const manifestsMaxBytes = 256 * 1024 * 1024;
const unitsPerBlock = blockBytes / dataUnitBytes;
const zeroUnit = Buffer.alloc(dataUnitBytes);

export class BlockRequests {
  readonly #store: BlockStore;
  readonly #uploads: Uploads;
  readonly #key: SealedBoxKey;
  readonly #manifests = new Map<string, Manifest>();
  readonly #slabs: Slab[] = [];

  constructor(store: BlockStore, uploads: Uploads, key: SealedBoxKey) {
    this.#store = store;
    this.#uploads = uploads;
    this.#key = key;
  }

  /** @throws {RequestRefused | StoreError} */
  async perform(request: BlockRequest): Promise<BlockAnswers[BlockRequest['kind']]> {
    switch (request.kind) {
      case 'listBlocks':
        return this.#listBlocks(request);
      case 'listChangedBlocks':
        return this.#listChangedBlocks(request);
      case 'getBlock':
        return this.#getBlock(request);
      case 'putBlock':
        await this.#putBlock(request);
        return {};
      case 'startUpload':
        await this.#uploads.start(request);
        return {};
      case 'completeUpload':
        return this.#complete(request);
      default:
        throw new RequestRefused('Internal', `this host is too old for a request of kind ${JSON.stringify(request)}`);
    }
  }

  async #listBlocks({ snapshotId, from, count }: ListBlocksRequest): Promise<BlockAnswers['listBlocks']> {
    const manifest = await this.#manifest(snapshotId);
    const first = manifest.lowerBound(from);
    const end = Math.min(first + count, manifest.blocks);
    const indexes: number[] = [];
    for (let position = first; position < end; position++) indexes.push(manifest.indexAt(position));
    return { indexes, ...(end < manifest.blocks ? { next: manifest.indexAt(end) } : {}) };
  }

  async #listChangedBlocks(request: ListChangedBlocksRequest): Promise<BlockAnswers['listChangedBlocks']> {
    const second = await this.#manifest(request.secondSnapshotId);
    const first = request.firstSnapshotId ? await this.#manifest(request.firstSnapshotId) : undefined;
    const blocks: { index: number; inFirst: boolean; inSecond: boolean }[] = [];
    let one = first?.lowerBound(request.from) ?? 0;
    let two = second.lowerBound(request.from);
    for (;;) {
      const indexOne = first && one < first.blocks ? first.indexAt(one) : Number.POSITIVE_INFINITY;
      const indexTwo = two < second.blocks ? second.indexAt(two) : Number.POSITIVE_INFINITY;
      const index = Math.min(indexOne, indexTwo);
      if (index === Number.POSITIVE_INFINITY) return { blocks };
      const inFirst = indexOne === index;
      const inSecond = indexTwo === index;
      const isSame = inFirst && inSecond && first!.sha256At(one).equals(second.sha256At(two));
      if (!isSame) {
        if (blocks.length === request.count) return { blocks, next: index };
        blocks.push({ index, inFirst, inSecond });
      }
      if (inFirst) one++;
      if (inSecond) two++;
    }
  }

  async #getBlock({ snapshotId, index, dataKey }: GetBlockRequest): Promise<BlockAnswers['getBlock']> {
    const manifest = await this.#manifest(snapshotId);
    const position = manifest.find(index);
    if (position < 0) throw new RequestRefused('NoSuchBlock', `${snapshotId} has no data at block ${index}`);
    return this.#withSlab(async (slab) => {
      await this.#store.getBlock({ owner: manifest.ownerAt(position), index }, manifest.sha256At(position), slab.bytes);
      this.#withKey(dataKey, snapshotId, (xts) => decryptBlock(xts, slab, index));
      return { data: slab.bytes.toString('base64'), sha256: hash('sha256', slab.bytes, 'base64') };
    });
  }

  async #putBlock(request: PutBlockRequest): Promise<void> {
    const { snapshotId, index, data, sha256, sealedSha256, dataKey } = request;
    await this.#withSlab(async (slab) => {
      if (Buffer.byteLength(data, 'base64') !== blockBytes)
        throw new RequestRefused('Internal', `a block has ${blockBytes} bytes`);
      slab.bytes.write(data, 'base64');
      const plainSha = Buffer.from(sha256, 'base64');
      this.#withKey(dataKey, snapshotId, (xts) => xts.encrypt(slab, 0, index * unitsPerBlock, unitsPerBlock));
      const storedSha = hash('sha256', slab.bytes, 'buffer');
      const sealedSha = sealedSha256 === undefined ? undefined : Buffer.from(sealedSha256, 'base64');
      await this.#uploads.put(snapshotId, index, slab.bytes, { storedSha, plainSha, sealedSha });
    });
  }

  async #complete(request: CompleteUploadRequest): Promise<SnapshotOutcome> {
    const { snapshotId, digestKey } = request;
    const key = digestKey === undefined ? undefined : this.#openKey(digestKey, snapshotId);
    try {
      return await this.#uploads.complete(request, key);
    } finally {
      key?.fill(0);
    }
  }

  async #manifest(snapshotId: string): Promise<Manifest> {
    const known = this.#manifests.get(snapshotId);
    if (known) {
      this.#manifests.delete(snapshotId);
      this.#manifests.set(snapshotId, known);
      return known;
    }
    const bytes = await this.#store.getManifest(snapshotId);
    if (!bytes) throw new RequestRefused('NoSuchSnapshot', `the block store has no snapshot ${snapshotId}`);
    const manifest = Manifest.parse(bytes, { snapshotId, location: this.#store.location });
    this.#manifests.set(snapshotId, manifest);
    let total = [...this.#manifests.values()].reduce((sum, one) => sum + one.blocks * 40, 0);
    for (const [oldest, one] of this.#manifests) {
      if (oldest === snapshotId || (this.#manifests.size <= manifestsMax && total <= manifestsMaxBytes)) break;
      this.#manifests.delete(oldest);
      total -= one.blocks * 40;
    }
    return manifest;
  }

  /** Gives `use` the cipher of a sealed data key, for the time of that call; does nothing without one. */
  #withKey(sealed: string | undefined, snapshotId: string, use: (xts: Xts) => void): void {
    if (sealed === undefined) return;
    const key = this.#openKey(sealed, snapshotId);
    try {
      const xts = createXts(key);
      try {
        use(xts);
      } finally {
        xts.close();
      }
    } finally {
      key.fill(0);
    }
  }

  /** The caller wipes it. @throws {RequestRefused} */
  #openKey(sealed: string, snapshotId: string): Buffer {
    try {
      return this.#key.open(Buffer.from(sealed, 'base64'), snapshotId);
    } catch {
      throw new RequestRefused('OtherSession', 'the key was not sealed for this session of the host');
    }
  }

  /** Lends memory for one block, and wipes it: it has held plaintext. */
  async #withSlab<T>(use: (slab: Slab) => Promise<T>): Promise<T> {
    const slab = this.#slabs.pop() ?? createSlab(blockBytes);
    try {
      return await use(slab);
    } finally {
      slab.bytes.fill(0);
      this.#slabs.push(slab);
    }
  }
}

/** Units of zeros were never written, and are not decrypted (docs/volume-image.md). */
function decryptBlock(xts: Xts, slab: Slab, index: number): void {
  for (let unit = 0; unit < unitsPerBlock; unit++) {
    const at = unit * dataUnitBytes;
    if (slab.bytes[at] === 0 && slab.bytes.compare(zeroUnit, 0, dataUnitBytes, at, at + dataUnitBytes) === 0) continue;
    xts.decrypt(slab, at, index * unitsPerBlock + unit, 1);
  }
}
