import type { BlockRequestError } from '../../aws/block-protocol.ts';

/** A request for blocks that can't be done, as the control plane is told. */
export class RequestRefused extends Error {
  readonly code: BlockRequestError['code'];
  constructor(code: BlockRequestError['code'], message: string) {
    super(message);
    this.name = 'RequestRefused';
    this.code = code;
  }
}
