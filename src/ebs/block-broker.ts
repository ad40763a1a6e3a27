/**
 * Hands requests for blocks to the hosts that ask for work, and their answers back to those who wait. In memory only: a
 * request is some client's, which repeats it when a restart loses it, and doing one twice is harmless.
 */
import { randomUUID } from 'node:crypto';
import type {
  BlockAnswers,
  BlockRequest,
  BlockRequestError,
  TakeBlockRequestsRequest,
  TakenBlockRequest,
} from '../aws/block-protocol.ts';
import { sealFor } from '../crypto/sealed-box.ts';
import { FairLine, type InLine } from './fair-line.ts';

/** Requests of one host that wait to be taken. When they are so many, who has the most of them is told to come back. */
const waitingMax = 256;
/** How long a request waits for a host to take it, and then for the answer, ms. */
const takeTimeoutMs = 10_000;
const answerTimeoutMs = 30_000;
/** Blocks to be written that go to a host in one answer: each takes 0.7 MiB. */
const takenBlocksMax = 8;

export type BrokerFailureCode = BlockRequestError['code'] | 'HostAway' | 'TooMany' | 'Cancelled';

/** Why a request for blocks came to nothing. */
export class BlockRequestFailed extends Error {
  readonly code: BrokerFailureCode;
  constructor(code: BrokerFailureCode, message: string) {
    super(message);
    this.name = 'BlockRequestFailed';
    this.code = code;
  }
}

interface Waiting extends TakenBlockRequest, InLine {
  readonly settle: (result: BlockAnswers[BlockRequest['kind']] | BlockRequestFailed) => void;
  readonly onTaken: () => void;
  /** The session that alone can open the keys in it; undefined without any. */
  readonly sealedFor: string | undefined;
}

interface HostLine {
  session: { readonly id: string; readonly publicKey: Buffer } | undefined;
  readonly waiting: FairLine<Waiting>;
  readonly taken: Map<string, Waiting>;
  /** Wakes a host that waits for requests, and requests that wait for a host. */
  news: PromiseWithResolvers<void>;
}

export class BlockBroker {
  readonly #lines = new Map<string, HostLine>();

  /**
   * Has a host carry out `request`. A key that goes with it is sealed for the host's session; the caller wipes it.
   * @throws {BlockRequestFailed}
   */
  async request<Kind extends BlockRequest['kind']>(
    hostId: string,
    request: Extract<BlockRequest, { kind: Kind }>,
    options: {
      readonly account: string;
      readonly dataKey?: Uint8Array;
      readonly digestKey?: Uint8Array;
      readonly cancelled: AbortSignal;
    },
  ): Promise<BlockAnswers[Kind]> {
    const line = this.#line(hostId);
    makeRoom(line, options.account);
    const { dataKey, digestKey } = options;
    if (!dataKey && !digestKey) return this.#send(hostId, line, request, undefined, options) as never;
    if (!line.session) await either(line.news.promise, takeTimeoutMs, options.cancelled);
    if (!line.session) throw away(hostId);
    const { id, publicKey } = line.session;
    const context = 'snapshotId' in request ? request.snapshotId : '';
    const seal = (key: Uint8Array) => sealFor(publicKey, key, context).toString('base64');
    const sealed = {
      ...request,
      ...(dataKey ? { dataKey: seal(dataKey) } : {}),
      ...(digestKey ? { digestKey: seal(digestKey) } : {}),
    };
    return this.#send(hostId, line, sealed, id, options) as never;
  }

  /** Requests for a host; waits up to `waitMs` while there are none. */
  async take(input: TakeBlockRequestsRequest, waitMs: number, cancelled: AbortSignal): Promise<TakenBlockRequest[]> {
    const line = this.#line(input.hostId);
    if (line.session?.id !== input.sessionId) this.#begin(line, input);
    this.#takeBack(line, input.underWay);
    if (line.waiting.length === 0) await either(line.news.promise, waitMs, cancelled);
    // A later process of the host has come meanwhile: what waits is for its key.
    if (line.session?.id !== input.sessionId || cancelled.aborted) return [];
    const requests = takeSome(line.waiting, input.max);
    if (line.waiting.length === 0) line.news = Promise.withResolvers();
    return requests.map((request) => {
      line.taken.set(request.requestId, request);
      request.onTaken();
      return { requestId: request.requestId, request: request.request };
    });
  }

  /** Passes a host's answer on; one that nobody waits for any more is forgotten. */
  answer(
    hostId: string,
    requestId: string,
    answer: BlockAnswers[BlockRequest['kind']] | undefined,
    error: BlockRequestError | undefined,
  ): void {
    const taken = this.#lines.get(hostId)?.taken.get(requestId);
    taken?.settle(
      answer ?? new BlockRequestFailed(error?.code ?? 'Internal', error?.message ?? 'the host gave no answer'),
    );
  }

  #line(hostId: string): HostLine {
    let line = this.#lines.get(hostId);
    if (!line) {
      line = { session: undefined, waiting: new FairLine(), taken: new Map(), news: Promise.withResolvers() };
      this.#lines.set(hostId, line);
    }
    return line;
  }

  /** A host's new process: nothing that an earlier one took, or that was sealed for it, can be answered any more. */
  #begin(line: HostLine, input: TakeBlockRequestsRequest): void {
    const lost = [...line.taken.values(), ...[...line.waiting].filter(({ sealedFor }) => sealedFor !== undefined)];
    line.session = { id: input.sessionId, publicKey: Buffer.from(input.publicKey, 'base64') };
    line.news.resolve();
    line.news = Promise.withResolvers();
    for (const request of lost)
      request.settle(new BlockRequestFailed('OtherSession', `Host '${input.hostId}' has been started anew.`));
    if (line.waiting.length > 0) line.news.resolve();
  }

  /** What a host took and never got, or could not bring the answer of, is to be taken again. */
  #takeBack(line: HostLine, underWay: readonly string[]): void {
    const known = new Set(underWay);
    for (const [requestId, request] of line.taken) {
      if (known.has(requestId)) continue;
      line.taken.delete(requestId);
      line.waiting.push(request);
    }
  }

  #send(
    hostId: string,
    line: HostLine,
    request: BlockRequest,
    sealedFor: string | undefined,
    { account, cancelled }: { readonly account: string; readonly cancelled: AbortSignal },
  ) {
    // An abort that has been tells nobody any more.
    if (cancelled.aborted) return Promise.reject(clientGone());
    return new Promise<BlockAnswers[BlockRequest['kind']]>((resolve, reject) => {
      const requestId = randomUUID();
      let timer = setTimeout(() => settle(away(hostId)), takeTimeoutMs);
      const stop = () => settle(clientGone());
      const settle: Waiting['settle'] = (result) => {
        clearTimeout(timer);
        cancelled.removeEventListener('abort', stop);
        line.taken.delete(requestId);
        line.waiting.remove(waiting);
        if (result instanceof BlockRequestFailed) reject(result);
        else resolve(result);
      };
      const onTaken = () => {
        clearTimeout(timer);
        const late = new BlockRequestFailed('Unavailable', `Host '${hostId}' did not answer in time.`);
        timer = setTimeout(() => settle(late), answerTimeoutMs);
      };
      cancelled.addEventListener('abort', stop, { once: true });
      const waiting: Waiting = { requestId, account, request, settle, onTaken, sealedFor };
      line.waiting.push(waiting);
      line.news.resolve();
    });
  }
}

/** @throws {BlockRequestFailed} when the line is full, and nobody in it has more than `account` */
function makeRoom({ waiting }: HostLine, account: string): void {
  if (waiting.length < waitingMax) return;
  const tooMany = new BlockRequestFailed('TooMany', `As many requests wait for the host as may, ${waitingMax}.`);
  const last = waiting.toMakeRoomFor(account);
  if (!last) throw tooMany;
  last.settle(tooMany);
}

function takeSome(waiting: FairLine<Waiting>, max: number): Waiting[] {
  const taken: Waiting[] = [];
  let blocks = 0;
  for (let next = waiting.first(); next && taken.length < max; next = waiting.first()) {
    if (next.request.kind === 'putBlock' && ++blocks > takenBlocksMax) break;
    taken.push(waiting.shift()!);
  }
  return taken;
}

function clientGone(): BlockRequestFailed {
  return new BlockRequestFailed('Cancelled', 'The client has gone.');
}

function away(hostId: string): BlockRequestFailed {
  return new BlockRequestFailed('HostAway', `Host '${hostId}', which reaches the block store, is not connected.`);
}

/** Resolves when `news` does, after `ms`, or when `cancelled` aborts. */
async function either(news: Promise<void>, ms: number, cancelled: AbortSignal): Promise<void> {
  if (cancelled.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  const wake = () => resolve();
  const timer = setTimeout(wake, ms);
  cancelled.addEventListener('abort', wake, { once: true });
  try {
    await Promise.race([news, promise]);
  } finally {
    clearTimeout(timer);
    cancelled.removeEventListener('abort', wake);
  }
}
