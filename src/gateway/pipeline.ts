import type { AnyDatabase, Call, EventDraft, Principal } from '../aws/call.ts';
import type { Clock } from '../aws/clock.ts';
import { AwsError } from '../aws/errors.ts';
import { Later, type Operation, type Service } from '../aws/service.ts';
import type { Signals } from '../aws/signals.ts';
import { type TrailRecord, trailRecords } from '../cloudtrail/record.ts';
import { putRecords } from '../cloudtrail/record-store.ts';
import type { Database } from '../database/database.ts';
import { type BusEvent, busEvent } from '../events/bus-event.ts';
import { putEvents } from '../events/event-store.ts';
import { authorize } from '../iam/authorize.ts';
import { infrastructureRole } from '../iam/principals.ts';
import { asService, type Caller, internalAgent, onBehalf } from './caller.ts';
import { WaitingCalls } from './waiting-calls.ts';

/** An authenticated request, its body decoded. */
export interface PipelineRequest {
  readonly service: Service;
  readonly operation: Operation;
  readonly input: object;
  readonly principal: Principal;
  readonly audience: 'account' | 'host';
  readonly region: string;
  readonly sourceIp: string;
  /** Whether it came over TLS. */
  readonly isSecure: boolean;
  readonly userAgent: string;
  readonly requestId: string;
  readonly cancelled: AbortSignal;
}

/** What calls leave behind beside their changes: trail records, events and signals, written with the transaction. */
interface Outbox {
  records: TrailRecord[];
  events: BusEvent[];
  topics: string[];
}

/** How far a call has come. */
interface Progress {
  subject: unknown;
  isAuthorized: boolean;
}

/**
 * The one choke point: authorize → operation → record. Every call passes here, those that services make of each other
 * included. An answer leaves only after its trail record, and with it everything the call changed, is on disk.
 */
export class Pipeline {
  readonly #database: Database;
  readonly #services: ReadonlyMap<string, Service>;
  readonly #clock: Clock;
  readonly #signals: Signals;

  readonly #waiting = new WaitingCalls();

  /** Of the group of work that is running: written together just before it is committed. */
  readonly #records: TrailRecord[] = [];
  readonly #events: BusEvent[] = [];

  constructor(parts: { database: Database; services: readonly Service[]; clock: Clock; signals: Signals }) {
    this.#database = parts.database;
    this.#services = new Map(parts.services.map((service) => [service.name, service]));
    this.#clock = parts.clock;
    this.#signals = parts.signals;
    this.#database.onCommitting(async (db) => {
      if (this.#records.length > 0) await putRecords(db, this.#records.splice(0));
      if (this.#events.length > 0) await putEvents(db, this.#events.splice(0));
    });
    // What a group that was undone has left behind never happened.
    this.#database.onUndone(() => {
      this.#records.length = 0;
      this.#events.length = 0;
    });
  }

  /**
   * Runs one request and resolves with its output once everything about it is durable.
   * @throws {AwsError} the operation's own error, or a refusal in its service's form
   * @throws {DatabaseUnavailable} nothing was changed or recorded
   */
  async execute(request: PipelineRequest): Promise<unknown> {
    const { service, operation } = request;
    const outbox: Outbox = { records: [], events: [], topics: [] };
    const isHost = request.principal.sessionIssuer?.userName === infrastructureRole;
    const who: Caller = {
      ...request,
      account: request.principal.account,
      // As AWS shows it: where the host of an instance runs is no business of the account.
      ...(isHost ? { sourceIp: internalAgent, userAgent: internalAgent } : {}),
    };
    const audience = operation.audience ?? 'account';
    const isAllowedAudience =
      audience === 'operator'
        ? request.audience === 'account'
        : audience !== 'service' && audience === request.audience;
    if (!isAllowedAudience) {
      const sentence = `${service.name}:${operation.name} is not for this kind of credentials.`;
      return this.#refuse(who, request, new AwsError('AccessDeniedException', sentence, { httpStatus: 403 }));
    }
    if (operation.effect !== 'waits') return this.#executeAtOnce(who, service, operation, request.input, outbox);
    // Hosts are few, and nothing goes on without them.
    if (request.audience === 'host') return this.#executeWaiting(who, service, operation, request.input, outbox);
    const refusal = this.#waiting.refusal(service, who.account);
    if (refusal) return this.#refuse(who, request, refusal);
    return this.#waiting.during(who.account, () =>
      this.#executeWaiting(who, service, operation, request.input, outbox),
    );
  }

  /** Records a call that is refused before its operation is even asked, and throws why. */
  async #refuse(who: Caller, { service, operation, input }: PipelineRequest, error: AwsError): Promise<never> {
    const outbox: Outbox = { records: [], events: [], topics: [] };
    await this.#database.run(async (db) => {
      this.#record(this.#call(who, service, operation, outbox, db), service, operation, input, { error }, outbox);
      this.#flush(outbox);
    });
    await this.#database.durable();
    throw error;
  }

  /** Runs a service's housekeeping as that service. */
  async housekeeping(service: Service, region: string, cancelled: AbortSignal): Promise<void> {
    if (!service.housekeeping) return;
    const outbox: Outbox = { records: [], events: [], topics: [] };
    const request = asService(service, 'aws', region, cancelled);
    await service.housekeeping(this.#call(request, service, undefined, outbox, undefined));
  }

  async #executeAtOnce(
    who: Caller,
    service: Service,
    operation: Operation,
    input: object,
    outbox: Outbox,
  ): Promise<unknown> {
    const outcome = await this.#database.run(
      async (db) => {
        const call = this.#call(who, service, operation, outbox, db);
        const outcome = await this.#attempt(call, service, operation, input, outbox);
        this.#flush(outbox);
        return outcome;
      },
      { atomic: false },
    );
    if ('later' in outcome) return this.#finish(who, service, operation, input, outcome, outbox);
    await this.#database.durable();
    this.#raise(outbox);
    if ('error' in outcome) throw outcome.error;
    return outcome.output;
  }

  /** Does what an operation has left for later, and records the call. */
  async #finish(
    who: Caller,
    service: Service,
    operation: Operation,
    input: object,
    { later, progress }: { later: Later<unknown>; progress: Progress },
    outbox: Outbox,
  ): Promise<unknown> {
    let output: unknown;
    let error: unknown = this.#waiting.refusal(service, who.account);
    if (error) later.drop();
    else {
      try {
        output = await this.#waiting.during(who.account, () => later.finish());
      } catch (caught) {
        error = caught;
      }
    }
    return this.#end(who, service, operation, input, { ...progress, output, error }, outbox);
  }

  async #executeWaiting(
    who: Caller,
    service: Service,
    operation: Operation,
    input: object,
    outbox: Outbox,
  ): Promise<unknown> {
    const call = this.#call(who, service, operation, outbox, undefined);
    const progress: Progress = { subject: undefined, isAuthorized: false };
    let output: unknown;
    let error: unknown;
    try {
      await call.transaction((inside) => this.#prepare(inside, service, operation, input, progress));
      const answer = await operation.handle(call, input, progress.subject);
      output = answer instanceof Later ? await answer.finish() : answer;
    } catch (caught) {
      error = caught;
    }
    return this.#end(who, service, operation, input, { ...progress, output, error }, outbox);
  }

  /** Records a call that went on outside of a transaction, and gives what came of it. */
  async #end(
    who: Caller,
    service: Service,
    operation: Operation,
    input: object,
    outcome: Progress & { output: unknown; error: unknown },
    outbox: Outbox,
  ): Promise<unknown> {
    await this.#database.run(async (db) => {
      this.#record(this.#call(who, service, operation, outbox, db), service, operation, input, outcome, outbox);
      this.#flush(outbox);
    });
    await this.#database.durable();
    this.#raise(outbox);
    if (outcome.error !== undefined) throw outcome.error;
    return outcome.output;
  }

  /**
   * One operation inside the running transaction; whatever happens is an outcome, and leaves a record, unless the operation
   * leaves something for later. A nested call has no later: it does everything at once.
   */
  async #attempt(
    call: Call,
    service: Service,
    operation: Operation,
    input: object,
    outbox: Outbox,
    isNested = false,
  ): Promise<{ output: unknown } | { error: unknown } | { later: Later<unknown>; progress: Progress }> {
    const progress: Progress = { subject: undefined, isAuthorized: false };
    const topicsBefore = outbox.topics.length;
    const steps = async () => {
      await this.#prepare(call, service, operation, input, progress);
      const answer = await operation.handle(call, input, progress.subject);
      if (answer instanceof Later && operation.effect === 'reads' && !isNested) return answer;
      const output = answer instanceof Later ? await answer.finish() : answer;
      // Inside of what can be undone: what can't be recorded must not have happened.
      this.#record(call, service, operation, input, { ...progress, output }, outbox);
      return output;
    };
    try {
      const output = operation.effect === 'reads' ? await steps() : await this.#database.nested(call.db, steps);
      return output instanceof Later ? { later: output, progress } : { output };
    } catch (error) {
      outbox.topics.length = topicsBefore;
      this.#record(call, service, operation, input, { ...progress, error }, outbox);
      return { error };
    }
  }

  /** What comes before the operation itself: finds what the call is about, and whether it is allowed. */
  async #prepare(call: Call, service: Service, operation: Operation, input: object, progress: Progress): Promise<void> {
    const subject = await operation.resolve?.(call, input);
    progress.subject = subject;
    for (const request of operation.access(call, input, subject)) {
      const denial = await authorize(call, request);
      if (!denial) continue;
      // The caller's trail says no more of another account's resources than the refusal does.
      if (denial.isHidden) progress.subject = undefined;
      throw service.accessDenied(call, denial);
    }
    progress.isAuthorized = true;
  }

  #record(
    call: Call,
    service: Service,
    operation: Operation,
    input: object,
    outcome: Partial<Progress> & { output?: unknown; error?: unknown },
    outbox: Outbox,
  ): void {
    if (operation.recorded === false) return;
    outbox.records.push(...trailRecords(call, service, operation, input, outcome));
  }

  /** Hands what a call leaves behind to the group of work it is in; called inside `run`. */
  #flush(outbox: Outbox): void {
    if (outbox.records.length > 0) this.#records.push(...outbox.records.splice(0));
    if (outbox.events.length > 0) {
      this.#events.push(...outbox.events.splice(0));
      outbox.topics.push('events');
    }
  }

  #raise(outbox: Outbox): void {
    for (const topic of new Set(outbox.topics.splice(0))) this.#signals.raise(topic);
  }

  #call(
    who: Caller,
    service: Service,
    operation: Operation | undefined,
    outbox: Outbox,
    db: AnyDatabase | undefined,
  ): Call {
    const pipeline = this;
    const call: Call = {
      requestId: who.requestId,
      principal: who.principal,
      account: who.account,
      region: who.region,
      clock: this.#clock,
      sourceIp: who.sourceIp,
      isSecure: who.isSecure,
      userAgent: who.userAgent,
      via: who.via,
      cancelled: who.cancelled,
      signals: this.#signals,
      get db(): AnyDatabase {
        if (!db) throw new Error(`${service.name}:${operation?.name} uses the database outside a transaction`);
        return db;
      },
      async transaction(work) {
        if (db) throw new Error(`${service.name}:${operation?.name} opens a transaction inside a transaction`);
        let failure: { error: unknown } | undefined;
        const result = await pipeline.#database.run(
          async (inside) => {
            const topicsBefore = outbox.topics.length;
            try {
              // A new call, so that the one outside never gets a database that outlives its transaction.
              const nested = pipeline.#call(who, service, operation, outbox, inside);
              return await pipeline.#database.nested(inside, () => work(nested));
            } catch (error) {
              outbox.topics.length = topicsBefore;
              failure = { error };
              return undefined;
            } finally {
              pipeline.#flush(outbox);
            }
          },
          { atomic: false },
        );
        await pipeline.#database.durable();
        pipeline.#raise(outbox);
        if (failure) throw failure.error;
        return result as Awaited<ReturnType<typeof work>>;
      },
      asItself: (account, region) =>
        pipeline.#call(asService(service, account, region, who.cancelled), service, operation, outbox, db),
      inRegion: (region) => pipeline.#call({ ...who, region }, service, operation, outbox, db),
      invoke: (name, operationName, input) => pipeline.#invoke(who, service, db, name, operationName, input, outbox),
      raise: (topic) => void outbox.topics.push(topic),
      emit: (event: EventDraft) => void outbox.events.push(busEvent(call, event)),
    };
    return call;
  }

  /** One service's call of another: inside the transaction that is open, or, when none is, as a call of its own. */
  async #invoke<Output>(
    who: Caller,
    from: Service,
    db: AnyDatabase | undefined,
    serviceName: string,
    operationName: string,
    input: object,
    outbox: Outbox,
  ): Promise<Output> {
    const service = this.#services.get(serviceName);
    const operation = service?.operations[operationName];
    if (!service || !operation)
      throw new Error(`${from.name} invokes ${serviceName}:${operationName}, which does not exist`);
    const nested = onBehalf(who, from);
    if (!db) {
      const own: Outbox = { records: [], events: [], topics: [] };
      const output =
        operation.effect === 'waits'
          ? await this.#executeWaiting(nested, service, operation, input, own)
          : await this.#executeAtOnce(nested, service, operation, input, own);
      return output as Output;
    }
    if (operation.effect === 'waits')
      throw new Error(`${serviceName}:${operationName} waits and can't be invoked inside a transaction`);
    const call = this.#call(nested, service, operation, outbox, db);
    const outcome = await this.#attempt(call, service, operation, input, outbox, true);
    if ('error' in outcome) throw outcome.error;
    return ('output' in outcome ? outcome.output : undefined) as Output;
  }
}
