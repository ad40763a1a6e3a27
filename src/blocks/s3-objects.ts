// Objects of one bucket below one prefix. Paths are relative to it.

import {
  AbortMultipartUploadCommand,
  type CompletedPart,
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadObjectCommand,
  ListObjectsV2Command,
  type ListObjectsV2CommandOutput,
  PutObjectCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import {
  discardBody,
  isNotFound,
  isPreconditionFailed,
  isRangeNotSatisfiable,
  readBody,
  type S3Requests,
} from './s3-requests.ts';

/** Keys that one DeleteObjects takes. */
const deletesMax = 1000;

export interface GetIntoOptions {
  readonly signal?: AbortSignal;
  /** The error for an object of another length. */
  readonly wrongLength: (length: number) => Error;
  /** Throws when the bytes are not what they should be; they are then read again, a few times. */
  readonly check: () => Promise<void>;
}

/** Every method may reject with a StoreError whose message begins with `what`. */
export class S3Objects {
  readonly #client: S3Client;
  readonly #requests: S3Requests;
  readonly #bucket: string;
  readonly #prefix: string;
  readonly #partBytes: number;

  /** @param prefix empty, or ends in a slash */
  constructor(client: S3Client, requests: S3Requests, bucket: string, prefix: string, partBytes: number) {
    this.#client = client;
    this.#requests = requests;
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.#partBytes = partBytes;
  }

  /** Fills `bytes` with the object. False when there is none. */
  async getInto(path: string, what: string, bytes: Buffer, options: GetIntoOptions): Promise<boolean> {
    const attempt = async (signal: AbortSignal) => {
      const answer = await this.#get(path, signal);
      if (!answer) return false;
      const { ContentLength, Body } = answer;
      if (ContentLength !== bytes.length) {
        discardBody(Body);
        throw options.wrongLength(ContentLength ?? 0);
      }
      await readBody(Body, bytes, signal);
      await options.check();
      return true;
    };
    return this.#requests.run(what, attempt, { signal: options.signal, bytes: bytes.length });
  }

  /** The object. Undefined when there is none. */
  async get(path: string, what: string, signal?: AbortSignal): Promise<Buffer | undefined> {
    // How long it may take depends on how much it is.
    const size = await this.#size(path, what, signal);
    if (size === undefined) return undefined;
    const attempt = async (attemptSignal: AbortSignal) => {
      const answer = await this.#get(path, attemptSignal);
      return answer && takeBody(answer, attemptSignal);
    };
    return this.#requests.run(what, attempt, { signal, bytes: size });
  }

  /** At most the first `length` bytes of the object. Undefined when there is none. */
  async getStart(path: string, what: string, length: number, signal?: AbortSignal): Promise<Buffer | undefined> {
    const attempt = async (attemptSignal: AbortSignal) => {
      try {
        const answer = await this.#get(path, attemptSignal, `bytes=0-${length - 1}`);
        return answer && (await takeBody(answer, attemptSignal));
      } catch (error) {
        // Nothing of an empty object is in any range.
        if (isRangeNotSatisfiable(error)) return Buffer.alloc(0);
        throw error;
      }
    };
    return this.#requests.run(what, attempt, { signal, bytes: length });
  }

  async put(path: string, bytes: Buffer, what: string, signal?: AbortSignal): Promise<void> {
    if (bytes.length > this.#partBytes) return this.#putInParts(path, bytes, what, signal);
    const attempt = (abortSignal: AbortSignal) =>
      this.#client.send(new PutObjectCommand({ ...this.#key(path), Body: bytes }), { abortSignal });
    await this.#requests.run(what, attempt, { signal, bytes: bytes.length });
  }

  /** Leaves an object alone that is there already, as far as the server knows such conditions. */
  async putIfAbsent(path: string, bytes: Buffer, what: string): Promise<void> {
    await this.#requests.run(what, async (abortSignal) => {
      const command = new PutObjectCommand({ ...this.#key(path), Body: bytes, IfNoneMatch: '*' });
      try {
        await this.#client.send(command, { abortSignal });
      } catch (error) {
        if (!isPreconditionFailed(error)) throw error;
      }
    });
  }

  /** False when there is nothing to copy. */
  async copy(from: string, to: string, what: string, signal?: AbortSignal): Promise<boolean> {
    const source = `${this.#bucket}/${this.#prefix}${from}`;
    const attempt = async (abortSignal: AbortSignal) => {
      try {
        const CopySource = source.split('/').map(encodeURIComponent).join('/');
        await this.#client.send(new CopyObjectCommand({ ...this.#key(to), CopySource }), { abortSignal });
        return true;
      } catch (error) {
        if (isNotFound(error)) return false;
        throw error;
      }
    };
    return this.#requests.run(what, attempt, { signal });
  }

  async delete(path: string, what: string, signal?: AbortSignal): Promise<void> {
    const attempt = (abortSignal: AbortSignal) =>
      this.#client.send(new DeleteObjectCommand(this.#key(path)), { abortSignal });
    await this.#requests.run(what, attempt, { signal });
  }

  async deleteAll(paths: readonly string[], what: string, signal?: AbortSignal): Promise<void> {
    for (let start = 0; start < paths.length; start += deletesMax) {
      const Objects = paths.slice(start, start + deletesMax).map((path) => ({ Key: this.#prefix + path }));
      const attempt = async (abortSignal: AbortSignal) => {
        const command = new DeleteObjectsCommand({ Bucket: this.#bucket, Delete: { Objects, Quiet: true } });
        const { Errors } = await this.#client.send(command, { abortSignal });
        const failed = Errors?.find(({ Code }) => Code !== 'NoSuchKey');
        if (failed) throw answeredError(failed.Code, failed.Message);
      };
      await this.#requests.run(what, attempt, { signal });
    }
  }

  /** The paths of all objects below `folder`, which ends in a slash. */
  async *list(folder: string, signal?: AbortSignal): AsyncGenerator<string> {
    for await (const { Contents } of this.#pages(folder, undefined, signal)) {
      for (const { Key } of Contents ?? []) if (Key) yield Key.slice(this.#prefix.length);
    }
  }

  /** The names directly below `folder` that have something below them. */
  async *listFolders(folder: string, signal?: AbortSignal): AsyncGenerator<string> {
    const skip = this.#prefix.length + folder.length;
    for await (const { CommonPrefixes } of this.#pages(folder, '/', signal)) {
      for (const { Prefix } of CommonPrefixes ?? []) if (Prefix) yield Prefix.slice(skip, -1);
    }
  }

  /** Milliseconds since the epoch by the server's clock. Undefined when there is no such object. */
  async storedAt(path: string, what: string, signal?: AbortSignal): Promise<number | undefined> {
    return (await this.#head(path, what, signal))?.LastModified?.getTime();
  }

  close(): void {
    this.#client.destroy();
  }

  async #size(path: string, what: string, signal?: AbortSignal): Promise<number | undefined> {
    return (await this.#head(path, what, signal))?.ContentLength;
  }

  #head(path: string, what: string, signal?: AbortSignal) {
    const attempt = async (abortSignal: AbortSignal) => {
      try {
        return await this.#client.send(new HeadObjectCommand(this.#key(path)), { abortSignal });
      } catch (error) {
        if (isNotFound(error)) return undefined;
        throw error;
      }
    };
    return this.#requests.run(what, attempt, { signal });
  }

  async #get(path: string, abortSignal: AbortSignal, Range?: string) {
    try {
      return await this.#client.send(new GetObjectCommand({ ...this.#key(path), Range }), { abortSignal });
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  /** Parts one after another; the object appears when the last request is answered. */
  async #putInParts(path: string, bytes: Buffer, what: string, signal?: AbortSignal): Promise<void> {
    const key = this.#key(path);
    signal?.throwIfAborted();
    // Not ended early: the bucket may have begun an upload by then, whose id nobody would know.
    const { UploadId } = await this.#requests.run(what, (abortSignal) =>
      this.#client.send(new CreateMultipartUploadCommand(key), { abortSignal }),
    );
    try {
      const Parts: CompletedPart[] = [];
      for (let start = 0; start < bytes.length; start += this.#partBytes) {
        const Body = bytes.subarray(start, start + this.#partBytes);
        const PartNumber = Parts.length + 1;
        const attempt = (abortSignal: AbortSignal) =>
          this.#client.send(new UploadPartCommand({ ...key, UploadId, PartNumber, Body }), { abortSignal });
        const { ETag } = await this.#requests.run(what, attempt, { signal, bytes: Body.length });
        Parts.push({ ETag, PartNumber });
      }
      const complete = new CompleteMultipartUploadCommand({ ...key, UploadId, MultipartUpload: { Parts } });
      const attempt = (abortSignal: AbortSignal) => this.#client.send(complete, { abortSignal });
      await this.#requests.run(what, attempt, { signal, bytes: bytes.length });
    } catch (error) {
      const abort = new AbortMultipartUploadCommand({ ...key, UploadId });
      await this.#requests.run(what, (abortSignal) => this.#client.send(abort, { abortSignal })).catch(() => {});
      throw error;
    }
  }

  async *#pages(
    folder: string,
    Delimiter: string | undefined,
    signal?: AbortSignal,
  ): AsyncGenerator<ListObjectsV2CommandOutput> {
    let ContinuationToken: string | undefined;
    do {
      const command = new ListObjectsV2Command({
        Bucket: this.#bucket,
        Prefix: this.#prefix + folder,
        Delimiter,
        ContinuationToken,
      });
      const page: ListObjectsV2CommandOutput = await this.#requests.run(
        `${folder} can't be listed`,
        (abortSignal) => this.#client.send(command, { abortSignal }),
        { signal },
      );
      yield page;
      ContinuationToken = page.IsTruncated ? page.NextContinuationToken : undefined;
    } while (ContinuationToken !== undefined);
  }

  #key(path: string): { readonly Bucket: string; readonly Key: string } {
    return { Bucket: this.#bucket, Key: this.#prefix + path };
  }
}

async function takeBody({ ContentLength = 0, Body }: GetObjectCommandOutput, signal: AbortSignal): Promise<Buffer> {
  const bytes = Buffer.from(new ArrayBuffer(ContentLength));
  await readBody(Body, bytes, signal);
  return bytes;
}

/** An error that the server reports for one object inside an answer that is good otherwise. */
function answeredError(code = 'InternalError', message = 'no reason given'): Error {
  const status = code === 'AccessDenied' ? 403 : 500;
  return Object.assign(new Error(message), { name: code, $metadata: { httpStatusCode: status } });
}
