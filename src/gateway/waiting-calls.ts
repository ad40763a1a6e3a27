/** Calls that wait for something outside the database: a host, a computation on another thread. */
import { AwsError } from '../aws/errors.ts';
import type { Service } from '../aws/service.ts';

/**
 * Calls of one account, and of all, that may wait at a time: together they leave room among the requests that a server has
 * in flight (limits.ts), so that nobody can keep everyone else out.
 */
export const waitingPerAccountMax = 256;
const waitingMax = 768;

export class WaitingCalls {
  readonly #byAccount = new Map<string, number>();
  #inAll = 0;

  /** Why one more call of `account` can't wait, in the form of the service that it is for; undefined when it can. */
  refusal(service: Service, account: string): AwsError | undefined {
    const waiting = this.#byAccount.get(account) ?? 0;
    if (waiting < waitingPerAccountMax && this.#inAll < waitingMax) return undefined;
    const whose = waiting >= waitingPerAccountMax ? `the account has ${waiting}` : `the server has ${waitingMax}`;
    const message = `Request limit exceeded: ${whose} calls that wait, as many as can be. Try again.`;
    return service.protocol === 'ec2Query'
      ? new AwsError('RequestLimitExceeded', message, { httpStatus: 503 })
      : new AwsError('ThrottlingException', message, { httpStatus: 400 });
  }

  /** Counts a call of `account` as waiting while `work` goes on. */
  async during<T>(account: string, work: () => Promise<T>): Promise<T> {
    this.#count(account, 1);
    try {
      return await work();
    } finally {
      this.#count(account, -1);
    }
  }

  #count(account: string, more: number): void {
    this.#inAll += more;
    const waiting = (this.#byAccount.get(account) ?? 0) + more;
    if (waiting > 0) this.#byAccount.set(account, waiting);
    else this.#byAccount.delete(account);
  }
}
