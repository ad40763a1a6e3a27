/** One NBD connection to a volume: requests, and what became of them. */
import { command, commandFlag } from '../../../src/host/nbd/protocol.ts';
import { type Reply, TestClient } from '../../../src/host/nbd/testing-client.ts';
import { type Change, fillFromWrite } from './contents.ts';

/** The connection is gone: what was asked for may have been done or not. */
export class Disconnected extends Error {}

/** An answer that says that the volume can't do it. */
export class IoError extends Error {}

/** What a server may answer that is about to close the export. */
const shutdownErrno = 108;
const answerTimeoutMs = 60_000;

export class Connection {
  readonly sizeBytes: number;
  readonly #client: TestClient;
  readonly #gone: Promise<never>;
  isOpen = true;

  private constructor(client: TestClient) {
    this.#client = client;
    this.sizeBytes = client.sizeBytes;
    this.#gone = client.raw.closed.then(() => {
      this.isOpen = false;
      throw new Disconnected('the connection is gone');
    });
    this.#gone.catch(() => {});
  }

  static async open(socketPath: string): Promise<Connection> {
    return new Connection(await TestClient.connect(socketPath));
  }

  async read(offset: number, length: number): Promise<Buffer> {
    return (await this.#ask(() => this.#client.read(offset, length), `read of ${length} at ${offset}`)).data;
  }

  /** Carries out a change; `durably`: with FUA. */
  async change({ kind, offset, length, write }: Change, durably: boolean): Promise<void> {
    const flags = durably ? commandFlag.fua : 0;
    await this.#ask(() => {
      if (kind === 'trim') return this.#client.request(command.trim, offset, length, flags);
      if (kind === 'zero') return this.#client.request(command.writeZeroes, offset, length, flags);
      if (kind === 'allocate')
        return this.#client.request(command.writeZeroes, offset, length, flags | commandFlag.noHole);
      const data = Buffer.allocUnsafe(length);
      fillFromWrite(data, write, offset);
      return this.#client.write(offset, data, flags);
    }, `${kind} of ${length} at ${offset}`);
  }

  async flush(): Promise<void> {
    await this.#ask(() => this.#client.request(command.flush, 0, 0), 'flush');
  }

  close(): void {
    this.isOpen = false;
    this.#client.raw.close();
  }

  async #ask(request: () => Promise<Reply>, what: string): Promise<Reply> {
    if (!this.isOpen) throw new Disconnected('the connection is gone');
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${what}: no answer in a minute`)), answerTimeoutMs);
    });
    try {
      const answer = await Promise.race([request(), this.#gone, late]);
      if (answer.error === shutdownErrno) throw new Disconnected('the export is being closed');
      if (answer.error !== 0) throw new IoError(`${what}: error ${answer.error} ${answer.message}`);
      return answer;
    } catch (error) {
      // TestClient's own error when the socket ends in the middle of an answer.
      if ((error as Error).message === 'the server closed the connection')
        throw new Disconnected('the connection is gone');
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }
}
