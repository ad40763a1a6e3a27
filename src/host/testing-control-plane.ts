/** A control plane for tests: answers Sync with what the test desires, and Decrypt with what it decided. */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import type { SyncRequest, SyncResponse, TaskResult } from '../aws/host-protocol.ts';

export class ControlPlane {
  desired: Omit<SyncResponse, 'version'> = { instances: [], attachments: [], credentials: [], tasks: [] };
  requests: SyncRequest[] = [];
  decrypts = 0;
  /** What Decrypt was asked with. */
  decryptRequests: { CiphertextBlob: string; EncryptionContext: Record<string, string>; authorization: string }[] = [];
  /** Plaintext data keys by encrypted data key (base64); any other gets `decryptAnswer`. */
  readonly dataKeys = new Map<string, Buffer>();
  decryptAnswer: { status: number; body: object } = { status: 200, body: {} };
  syncError: { status: number; body: object } | undefined;
  #version = 1;
  #waiting: (() => void)[] = [];
  readonly #server = http.createServer((request, response) => void this.#answer(request, response));

  async listen(port = 0): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(port, '127.0.0.1', resolve));
  }
  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }
  get last(): SyncRequest {
    return this.requests.at(-1)!;
  }

  /** What the host says of a task now. */
  task(taskId: string): TaskResult | undefined {
    return this.requests.at(-1)?.tasks.find((result) => result.taskId === taskId);
  }

  desire(change: Partial<Omit<SyncResponse, 'version'>>): void {
    this.desired = { ...this.desired, ...change };
    this.#version++;
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async close(): Promise<void> {
    for (const wake of this.#waiting.splice(0)) wake();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = JSON.parse(Buffer.concat(chunks).toString());
    // Nobody asks for blocks here: the question stays open until the host goes.
    if (request.headers['x-amz-target'] === 'CofferHost.TakeBlockRequests') return;
    if (request.headers['x-amz-target'] === 'TrentService.Decrypt') {
      this.decrypts++;
      this.decryptRequests.push({ ...body, authorization: request.headers.authorization });
      const plaintext = this.dataKeys.get(body.CiphertextBlob);
      if (plaintext) {
        response.end(JSON.stringify({ Plaintext: plaintext.toString('base64') }));
        return;
      }
      response.writeHead(this.decryptAnswer.status).end(JSON.stringify(this.decryptAnswer.body));
      return;
    }
    this.requests.push(body as SyncRequest);
    if (this.syncError) {
      response.writeHead(this.syncError.status).end(JSON.stringify(this.syncError.body));
      return;
    }
    if (body.sinceVersion === String(this.#version)) await new Promise<void>((wake) => this.#waiting.push(wake));
    const credentials = this.desired.credentials.filter(
      ({ sessionName }) => !body.credentials.some((held: { sessionName: string }) => held.sessionName === sessionName),
    );
    response.end(JSON.stringify({ ...this.desired, credentials, version: String(this.#version) }));
  }
}
