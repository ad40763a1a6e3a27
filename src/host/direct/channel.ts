/** The host's side of EBS direct: asks the control plane for requests for blocks, carries them out, brings the answers. */
import type { Logger } from 'pino';
import type {
  AnswerBlockRequestRequest,
  BlockRequestError,
  TakeBlockRequestsRequest,
  TakeBlockRequestsResponse,
  TakenBlockRequest,
} from '../../aws/block-protocol.ts';
import { syncWaitMaxMs } from '../../aws/host-protocol.ts';
import type { ClientCredentials, SignedClient } from '../../aws/signed-client.ts';
import { type BlockStore, inFull, StoreError } from '../../blocks/store.ts';
import { SealedBoxKey } from '../../crypto/sealed-box.ts';
import { pause } from '../pause.ts';
import { wordsOf } from '../words.ts';
import { RequestRefused } from './request-refused.ts';
import { BlockRequests } from './requests.ts';
import type { Uploads } from './uploads.ts';

/** Requests carried out at a time; each needs about 2 MiB. */
const underWayMax = 32;
const takeTimeoutMs = syncWaitMaxMs + 10_000;
const answerTimeoutMs = 20_000;
const retryFirstMs = 200;
const retryMaxMs = 5_000;

export interface BlockChannelOptions {
  readonly hostId: string;
  readonly sessionId: string;
  readonly credentials: ClientCredentials;
  readonly region: string;
  readonly uploads: Uploads;
  /** The block store; asked for again after it could not be opened. */
  readonly store: () => Promise<BlockStore>;
  /** The connection as it is now: the control plane may have come back elsewhere. */
  readonly client: () => SignedClient;
  readonly log: Logger;
}

/** Serves until `stopping` aborts. */
export async function runBlockChannel(options: BlockChannelOptions, stopping: AbortSignal): Promise<void> {
  const key = new SealedBoxKey();
  const underWay = new Map<string, Promise<void>>();
  let requests: Promise<BlockRequests> | undefined;
  /** Opened with the first request, and again after it could not be. */
  const opened = () => {
    requests ??= open(options, key).catch((error) => {
      requests = undefined;
      throw error;
    });
    return requests;
  };
  let failures = 0;
  while (!stopping.aborted) {
    if (underWay.size >= underWayMax) {
      await Promise.race(underWay.values());
      continue;
    }
    let taken: readonly TakenBlockRequest[];
    try {
      ({ requests: taken } = await take(options, key, [...underWay.keys()], stopping));
      failures = 0;
    } catch {
      if (stopping.aborted) break;
      // The agent says in the log when the control plane is away.
      await pause(Math.min(retryFirstMs * 2 ** failures++, retryMaxMs), stopping).catch(() => {});
      continue;
    }
    for (const one of taken) {
      const work = serve(options, opened, one, stopping).finally(() => underWay.delete(one.requestId));
      underWay.set(one.requestId, work);
    }
  }
  await Promise.all(underWay.values());
}

async function open({ store, uploads }: BlockChannelOptions, key: SealedBoxKey): Promise<BlockRequests> {
  const opened = await store();
  await uploads.prune();
  return new BlockRequests(opened, uploads, key);
}

function take(
  { hostId, sessionId, client, region, credentials }: BlockChannelOptions,
  key: SealedBoxKey,
  underWay: readonly string[],
  signal: AbortSignal,
): Promise<TakeBlockRequestsResponse> {
  const body: TakeBlockRequestsRequest = {
    hostId,
    sessionId,
    publicKey: key.publicKey.toString('base64'),
    max: underWayMax - underWay.length,
    underWay,
  };
  return client().send<TakeBlockRequestsResponse>({
    service: 'coffer-host',
    target: 'CofferHost.TakeBlockRequests',
    region,
    credentials,
    body,
    timeoutMs: takeTimeoutMs,
    signal,
  });
}

/** Carries one request out and answers it. An answer that can't be brought is dropped: its client asks again. */
async function serve(
  options: BlockChannelOptions,
  opened: () => Promise<BlockRequests>,
  { requestId, request }: TakenBlockRequest,
  signal: AbortSignal,
): Promise<void> {
  const { hostId, sessionId, region, credentials, log } = options;
  let body: AnswerBlockRequestRequest;
  try {
    const answer = await (await opened()).perform(request);
    body = { hostId, sessionId, requestId, answer };
  } catch (error) {
    const told = errorOf(error);
    if (!(error instanceof RequestRefused))
      log.error({ kind: request.kind, error: inFull(error) }, 'a request for blocks failed');
    body = { hostId, sessionId, requestId, error: told };
  }
  try {
    await options.client().send({
      service: 'coffer-host',
      target: 'CofferHost.AnswerBlockRequest',
      region,
      credentials,
      body,
      timeoutMs: answerTimeoutMs,
      signal,
    });
  } catch (error) {
    log.warn({ kind: request.kind, error: (error as Error).message }, 'an answer about blocks could not be brought');
  }
}

function errorOf(error: unknown): BlockRequestError {
  if (error instanceof RequestRefused || error instanceof StoreError)
    return { code: error.code, message: error.message };
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return { code: 'Full', message: `the host's disk is full: ${wordsOf(error)}` };
  return { code: 'Internal', message: "the host's log has the details" };
}
