/** Throws made-up requests at every operation, one after the other, and says which of them did what none may do. */
import { defaultLimits } from '../../../src/gateway/limits.ts';
import type { WireRequest } from '../../../src/gateway/protocols/protocol.ts';
import { formsOf } from '../files.ts';
import { slowness } from '../slowness.ts';
import type { Answer, Arena, Target, Who } from './arena.ts';
import { marker } from './hostile.ts';
import { makeInput } from './inputs.ts';
import { Random } from './random.ts';
import { type Refusal, readAnswer } from './verdict.ts';
import { changedTables } from './watch.ts';
import { sign, type Unsigned, write } from './wire.ts';

/**
 * What an answer may take, ms: the best of three, because the machine may be busy with something else the first time; and
 * as many times as long on a machine that is slow.
 */
const answerMaxMs = 100;
const attempts = 3;

/**
 * Making RSA keys takes as long as it takes to find primes. It happens on another thread, so nobody else waits for it.
 * These, and those that wait for a host, are excused when they succeed.
 */
const makesRsaKeys = /^kms:(?:CreateKey|GenerateDataKeyPair(?:WithoutPlaintext)?|GetParametersForImport)$/;
/** Whoever has valid credentials may ask. */
const openToAll = ['sts:GetCallerIdentity', 'sts:GetSessionToken', 'coffer:DescribeHosts'];

export interface Fault {
  readonly operation: string;
  readonly what: string;
  /** What reproduces it: the seed and the number of the request. */
  readonly request: string;
}

export interface Tally {
  requests: number;
  refused: number;
  cancelled: number;
  readonly operations: Set<string>;
  readonly codes: Map<string, number>;
  slowestMs: number;
  slowest: string;
}

interface Made {
  readonly target: Target;
  readonly who: Who;
  readonly wire: WireRequest;
  readonly title: string;
}

export class Fuzzer {
  readonly #arena: Arena;
  readonly #seed: number;
  readonly #send: 'dispatch' | 'send';
  readonly #targets: readonly Target[];
  readonly faults: Fault[] = [];
  readonly tally: Tally = {
    requests: 0,
    refused: 0,
    cancelled: 0,
    operations: new Set(),
    codes: new Map(),
    slowestMs: 0,
    slowest: '',
  };
  readonly #messages: string[] = [];

  /**
   * @param way past the socket, or through it
   * @param isMeant which operations get requests
   */
  constructor(arena: Arena, seed: number, way: 'dispatch' | 'send', isMeant: (target: Target) => boolean = () => true) {
    this.#targets = arena.targets.filter(isMeant);
    this.#arena = arena;
    this.#seed = seed;
    this.#send = way;
  }

  /** One request to every operation, in any order; `round` makes it other requests than those of another round. */
  async round(round: number): Promise<void> {
    const order = new Random(this.#seed ^ Math.imul(round + 1, 0x9e3779b1));
    for (const target of order.shuffle(this.#targets)) {
      const random = new Random(order.below(2 ** 32));
      await this.#try(await this.#make(target, random, `seed ${this.#seed}, round ${round}`));
    }
  }

  async #make(target: Target, random: Random, title: string): Promise<Made> {
    const { service, operation, example } = target;
    const isHosts = service.name === 'coffer-host';
    const who = random.weighted<Who>([
      [6, isHosts ? 'host' : 'root'],
      [2, 'user'],
      [1, 'nobody'],
      [1, 'stranger'],
      [0.3, isHosts ? 'root' : 'host'],
    ]);
    const region = random.weighted([
      [20, 'us-east-1'],
      [1, 'eu-west-1'],
      [0.3, 'mars-1'],
    ]);
    const input = makeInput(random, this.#arena.pool, { schema: operation.schema, example });
    const written = damaged(random, write(service, operation.name, operation.schema, input));
    const bodyMaxBytes =
      service.protocol === 'restJson1' ? defaultLimits.blockBodyMaxBytes : defaultLimits.bodyMaxBytes;
    const unsigned = { ...written, body: written.body.subarray(0, bodyMaxBytes) };
    const wire = await sign(unsigned, {
      credentials: this.#arena.credentials(who),
      region,
      service: service.name,
      date: new Date(this.#arena.world.clock.now()),
    });
    return { target, who, wire, title };
  }

  async #try(made: Made): Promise<void> {
    const { target, who } = made;
    const arena = this.#arena;
    this.tally.requests++;
    this.tally.operations.add(target.name);
    let took = Number.POSITIVE_INFINITY;
    let unexplained: readonly string[] = [];
    let mayTakeLong = false;
    let last: Answer | undefined;
    for (let attempt = 1; attempt <= attempts; attempt++) {
      const before = await arena.watch.look();
      const hostBefore = arena.hostAnswers;
      const logged = arena.log.length;
      const answer = await arena[this.#send](made.wire, target.operation.effect !== 'waits');
      took = Math.min(took, answer.tookMs);
      last = answer;
      if (answer.wasCancelled) {
        this.tally.cancelled++;
        mayTakeLong = makesRsaKeys.test(target.name);
        await arena.settle();
        if (mayTakeLong || took <= answerMaxMs) break;
        continue;
      }
      let refusal: Refusal | undefined;
      try {
        refusal = await readAnswer(target, answer);
      } catch (error) {
        this.#report(made, answer, `${(error as Error).message}\n${arena.log.slice(logged).join('')}`);
        return;
      }
      if (attempt === 1) this.#count(refusal);
      unexplained = [];
      let wasHost = false;
      if (refusal) {
        this.#messages.push(refusal.message);
        unexplained = changedTables(before, await arena.watch.look());
        // A host that did something meanwhile explains it; asked again, nothing of it is left to do.
        wasHost = unexplained.length > 0 && arena.hostAnswers !== hostBefore;
      } else if (who === 'nobody' && !openToAll.includes(target.name)) {
        this.#report(made, answer, 'needs no permission');
        return;
      }
      mayTakeLong = !refusal && (makesRsaKeys.test(target.name) || target.operation.effect === 'waits');
      if (unexplained.length > 0 || (!refusal && target.operation.effect !== 'reads')) await arena.settle();
      if (!wasHost && (mayTakeLong || took <= answerMaxMs)) break;
      if (wasHost && attempt === attempts) unexplained = [];
    }
    if (took > this.tally.slowestMs && !mayTakeLong) {
      this.tally.slowestMs = took;
      this.tally.slowest = target.name;
    }
    if (unexplained.length > 0) this.#report(made, last, `was refused, and yet it changed ${unexplained.join(', ')}`);
    if (took > answerMaxMs && !mayTakeLong && took > answerMaxMs * slowness())
      this.#report(made, last, `took ${took.toFixed()} ms`);
  }

  #count(refusal: Refusal | undefined): void {
    const code = refusal?.code ?? 'OK';
    if (refusal) this.tally.refused++;
    this.tally.codes.set(code, (this.tally.codes.get(code) ?? 0) + 1);
  }

  #report({ target, who, wire, title }: Made, answer: Answer | undefined, what: string): void {
    const { method, path, query, body } = wire;
    const content = body.length > 1000 ? `${body.toString('utf8', 0, 1000)}… (${body.length} bytes)` : body.toString();
    const answered = answer ? `\n→ ${answer.status} ${answer.body.toString('utf8', 0, 1000)}` : '';
    const request = `${title}, as ${who}: ${method} ${path}${query && `?${query}`} ${content}${answered}`;
    this.faults.push({ operation: target.name, what, request });
  }

  /** Looks for secrets where anyone might read them: messages, the trail, events, the log. */
  async findSecrets(): Promise<string[]> {
    const { world, secrets, log } = this.#arena;
    const documents = await world.database.run(async (db) =>
      (
        await Promise.all(
          ['trail_events', 'bus_events'].map((table) => db.selectFrom(table).select('document').execute()),
        )
      ).flat(),
    );
    const text = Buffer.from([...this.#messages, ...log, ...documents.map(({ document }) => document)].join('\n'));
    const needles = [...secrets, ['what a request brought', Buffer.from(marker)] as const].flatMap(([name, secret]) =>
      formsOf(name, secret),
    );
    // Of what is longer, the beginning is as telling, whatever base64 makes of the end.
    return needles.flatMap(([name, needle]) => (text.includes(needle.subarray(0, 40)) ? [name] : []));
  }
}

/** The same request, now and then with its bytes damaged or its content called something else. */
function damaged(random: Random, request: Unsigned): Unsigned {
  if (!random.oneIn(15)) return request;
  const body = Buffer.from(request.body);
  return random.weighted<() => Unsigned>([
    [2, () => ({ ...request, body: body.subarray(0, random.below(body.length + 1)) })],
    [
      2,
      () => {
        for (let count = 1 + random.below(4); count > 0 && body.length > 0; count--)
          body[random.below(body.length)] = random.below(256);
        return { ...request, body };
      },
    ],
    [1, () => ({ ...request, body: Buffer.concat([body, body]) })],
    [
      1,
      () => ({
        ...request,
        body: Buffer.from(random.pick(['', '{}', 'null', '[]', '&', '&&=', '\0', '{"a":', '<a/>'])),
      }),
    ],
    [1, () => ({ ...request, body: Buffer.from(`${'['.repeat(400_000)}${']'.repeat(400_000)}`) })],
    [
      1,
      () => ({
        ...request,
        headers: {
          ...request.headers,
          'content-type': random.pick(['text/plain', '', 'application/xml', 'a/b;c=d', ';']),
        },
      }),
    ],
  ])();
}
