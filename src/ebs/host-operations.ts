/** What hosts call to get requests for blocks and to answer them (docs/host-protocol.md). */
import type {
  AnswerBlockRequestRequest,
  TakeBlockRequestsRequest,
  TakeBlockRequestsResponse,
} from '../aws/block-protocol.ts';
import type { Call } from '../aws/call.ts';
import { AwsError } from '../aws/errors.ts';
import { syncWaitMaxMs } from '../aws/host-protocol.ts';
import { type Operation, operation } from '../aws/service.ts';
import type { BlockBroker } from './block-broker.ts';

const takenMax = 64;
const underWayMax = 1024;

export function blockHostOperations(broker: BlockBroker): Readonly<Record<string, Operation>> {
  return {
    TakeBlockRequests: operation<TakeBlockRequestsRequest, TakeBlockRequestsResponse>({
      name: 'TakeBlockRequests',
      effect: 'waits',
      audience: 'host',
      recorded: false,
      readOnly: true,
      access: () => [],
      async handle(call, input) {
        checkHost(call, input);
        if (typeof input.publicKey !== 'string' || Buffer.from(input.publicKey, 'base64').length !== 32)
          throw malformed('publicKey must be 32 bytes in base64');
        if (!Number.isSafeInteger(input.max) || input.max < 1 || input.max > takenMax)
          throw malformed(`max must be from 1 to ${takenMax}`);
        if (!Array.isArray(input.underWay) || input.underWay.length > underWayMax)
          throw malformed(`underWay must be a list of at most ${underWayMax}`);
        return { requests: await broker.take(input, syncWaitMaxMs, call.cancelled) };
      },
    }),
    AnswerBlockRequest: operation<AnswerBlockRequestRequest, object>({
      name: 'AnswerBlockRequest',
      effect: 'waits',
      audience: 'host',
      recorded: false,
      readOnly: true,
      access: () => [],
      handle(call, input) {
        checkHost(call, input);
        if (typeof input.requestId !== 'string') throw malformed('requestId must be a string');
        broker.answer(input.hostId, input.requestId, input.answer, input.error);
        return {};
      },
    }),
  };
}

/** @throws {AwsError} for another host's name */
function checkHost(call: Call, input: { readonly hostId: unknown; readonly sessionId: unknown }): void {
  if (typeof input.hostId !== 'string' || typeof input.sessionId !== 'string')
    throw malformed('hostId and sessionId must be strings');
  if (input.hostId !== call.principal.userName)
    throw new AwsError('AccessDeniedException', `${call.principal.arn} can't act as host '${input.hostId}'.`, {
      httpStatus: 403,
    });
}

const malformed = (what: string) => new AwsError('ValidationException', what);
