/** A host that answers requests for blocks at once: every snapshot has two blocks of zeros. It stores nothing. */
import { createHash } from 'node:crypto';
import type { BlockAnswers, BlockRequest, TakeBlockRequestsResponse } from '../../../src/aws/block-protocol.ts';
import { hostPrincipal } from '../../../src/iam/principals.ts';
import { account, type World } from '../world.ts';

const block = Buffer.alloc(524_288);
const answers: BlockAnswers = {
  listBlocks: { indexes: [0, 1] },
  listChangedBlocks: { blocks: [{ index: 0, inFirst: true, inSecond: true }] },
  getBlock: { data: block.toString('base64'), sha256: createHash('sha256').update(block).digest('base64') },
  startUpload: {},
  putBlock: {},
  completeUpload: { blocks: 2, fullBytes: 1_048_576, storedBytes: 1_048_576 },
};
const answerTo = (request: BlockRequest) => answers[request.kind];

/** Serves until the signal is aborted. */
export async function serveBlocks(world: World, hostId: string, stop: AbortSignal): Promise<void> {
  const caller = { principal: hostPrincipal(account, hostId, 'AKIAHOST'), audience: 'host', cancelled: stop } as const;
  const session = { hostId, sessionId: 'blocks', publicKey: Buffer.alloc(32, 9).toString('base64') };
  while (!stop.aborted) {
    const { requests }: TakeBlockRequestsResponse = await world.call(
      'coffer-host',
      'TakeBlockRequests',
      { ...session, max: 8, underWay: [] },
      caller,
    );
    for (const { requestId, request } of requests)
      await world.call(
        'coffer-host',
        'AnswerBlockRequest',
        { ...session, requestId, answer: answerTo(request) },
        caller,
      );
  }
}
