/** What the key service's unit tests share: its operations on a database in memory, with a clock that they set. */
import { randomBytes, randomUUID } from 'node:crypto';
import type { AnyDatabase, Call, EventDraft, Principal } from '../aws/call.ts';
import { ManualClock } from '../aws/clock.ts';
import { AwsError } from '../aws/errors.ts';
import { type AccessRequest, type GrantStatement, Later, type Operation, type RecordDetails } from '../aws/service.ts';
import { Signals } from '../aws/signals.ts';
import { RootKey } from '../crypto/root-key.ts';
import { migrate } from '../database/migrations.ts';
import { SqliteDatabase } from '../database/sqlite.ts';
import { createKms } from './index.ts';

export const account = '123456789012';
export const otherAccount = '210987654321';

export const root = (ofAccount = account): Principal => ({
  type: 'Root',
  account: ofAccount,
  arn: `arn:aws:iam::${ofAccount}:root`,
  principalId: ofAccount,
});

export const user = (name: string, ofAccount = account): Principal => ({
  type: 'IAMUser',
  account: ofAccount,
  arn: `arn:aws:iam::${ofAccount}:user/${name}`,
  principalId: `AIDA${name}`,
  userName: name,
});

/** A rule for `TestKms.authorize`: each account has its own keys to itself. */
export const ownKeysOnly = (call: Call, request: AccessRequest): string | undefined =>
  request.resourceAccount === call.account ? undefined : 'it is of another account';

/** Another: nobody but the account's root may do anything, except by a grant, as the pipeline would find it for the caller. */
export async function onlyGrants(call: Call, request: AccessRequest): Promise<string | undefined> {
  const { arn, sessionIssuer, type, account } = call.principal;
  if (type === 'Root' && account === request.resourceAccount) return undefined;
  const grants: readonly GrantStatement[] = (await request.grants?.()) ?? [];
  const name = request.action.slice('kms:'.length);
  const gives = ({ granteePrincipal, operations }: GrantStatement) =>
    (granteePrincipal === arn || granteePrincipal === sessionIssuer?.arn) && operations.includes(name);
  return grants.some(gives) ? undefined : 'no grant allows it';
}

export interface Caller {
  readonly principal?: Principal;
  readonly region?: string;
  readonly via?: string;
}

/** What an operation left behind beside its answer. */
export interface Trace {
  access: AccessRequest[];
  record: RecordDetails | undefined;
  error: unknown;
}

// biome-ignore lint/suspicious/noExplicitAny: answers of any operation.
type Answer = any;

export class TestKms {
  readonly clock = new ManualClock(Date.UTC(2026, 0, 2, 3, 4, 5));
  readonly database = new SqliteDatabase(':memory:');
  readonly rootKey = new RootKey(randomBytes(32));
  readonly kms = createKms({ rootKey: this.rootKey });
  readonly events: Array<EventDraft & { account: string; region: string }> = [];
  /** Decides what callers may do; everything, unless a test says otherwise. */
  authorize: (call: Call, request: AccessRequest) => Promise<string | undefined> | string | undefined = () => undefined;
  last: Trace = { access: [], record: undefined, error: undefined };

  static async create(): Promise<TestKms> {
    const test = new TestKms();
    await test.database.run((db) => migrate(db, test.kms.migrations));
    return test;
  }

  /** Makes a call as the pipeline would. */
  run(name: string, input: object = {}, caller: Caller = {}): Promise<Answer> {
    return this.#run(name, input, caller);
  }

  /** The error code and message of a call that must fail. */
  async fails(name: string, input: object, caller: Caller = {}): Promise<{ code: string; message: string }> {
    try {
      await this.#run(name, input, caller);
    } catch (error) {
      if (!(error instanceof AwsError)) throw error;
      return { code: error.code, message: error.message };
    }
    throw new Error(`${name} succeeded`);
  }

  async code(name: string, input: object, caller: Caller = {}): Promise<string> {
    return (await this.fails(name, input, caller)).code;
  }

  /** A new key's metadata. */
  async key(input: object = {}, caller: Caller = {}): Promise<{ KeyId: string; Arn: string } & Answer> {
    return (await this.run('CreateKey', input, caller)).KeyMetadata;
  }

  /** Makes material from elsewhere the material of a key. `publicKey`: SubjectPublicKeyInfo, DER. */
  async replaceMaterial(keyId: string, secret: Buffer, publicKey?: Buffer): Promise<void> {
    await this.database.run(async (db) => {
      const row = await db.selectFrom('kms_material').selectAll().where('key_id', '=', keyId).executeTakeFirstOrThrow();
      const sealed = this.rootKey.seal('kms-material', secret, `${keyId}/${row.material_id}`);
      const columns = { sealed, public_key: publicKey ?? null };
      await db.updateTable('kms_material').set(columns).where('key_id', '=', keyId).execute();
    });
  }

  async housekeeping(): Promise<void> {
    await this.kms.housekeeping!(this.#call({ principal: service }));
  }

  async #run(name: string, input: object, caller: Caller): Promise<Answer> {
    const operation = this.kms.operations[name]!;
    const trace: Trace = { access: [], record: undefined, error: undefined };
    this.last = trace;
    let subject: unknown;
    let output: unknown;
    const outside = this.#call(caller);
    const before = async (call: Call) => {
      subject = await operation.resolve?.(call, input);
      trace.access.push(...operation.access(call, input, subject));
      for (const request of trace.access) {
        const reason = await this.authorize(call, request);
        if (!reason) continue;
        const isHidden = request.resourceAccount !== call.account;
        throw this.kms.accessDenied(call, { request, reason, explicit: false, isHidden });
      }
    };
    try {
      if (operation.effect === 'waits') {
        await outside.transaction(before);
        output = await operation.handle(outside, input, subject);
      } else {
        output = await this.database.run(async (db) => {
          const call = this.#call(caller, db);
          await before(call);
          return operation.handle(call, input, subject);
        });
      }
      if (output instanceof Later) output = await output.finish();
      return output;
    } catch (error) {
      trace.error = error;
      throw error;
    } finally {
      trace.record = operation.record?.(outside, input, output, subject);
    }
  }

  /** In place of IAM, which unit tests are without: everyone who is named is there, and their ARNs are their ids. */
  #iam(name: string, input: { Names?: readonly string[] }): object {
    if (name === 'DescribePrincipals') return { Arns: {} };
    return { Ids: Object.fromEntries(input.Names!.map((each) => [each, each])) };
  }

  #call(caller: Caller, db?: AnyDatabase): Call {
    const { principal = root(), region = 'us-east-1', via } = caller;
    const call: Call = {
      requestId: randomUUID(),
      principal,
      account: principal.account,
      region,
      clock: this.clock,
      sourceIp: '192.0.2.1',
      userAgent: 'test',
      via,
      cancelled: new AbortController().signal,
      get db(): AnyDatabase {
        if (!db) throw new Error('the database is used outside a transaction');
        return db;
      },
      transaction: (work) => this.database.run((inside) => work(this.#call(caller, inside))),
      invoke: async <Output>(service: string, name: string, input: object) => {
        if (service === 'iam') return this.#iam(name, input) as Output;
        // There is no trail here, so nothing is found in it.
        if (service === 'cloudtrail') return {} as Output;
        const operation = this.kms.operations[name] as Operation;
        return (await operation.handle(call, input, await operation.resolve?.(call, input))) as Output;
      },
      asItself: (ofAccount, ofRegion) =>
        this.#call({ principal: { ...service, account: ofAccount }, region: ofRegion }, db),
      inRegion: (ofRegion) => this.#call({ ...caller, region: ofRegion }, db),
      raise: () => {},
      signals: new Signals(),
      emit: (event) => void this.events.push({ ...event, account: principal.account, region }),
    };
    return call;
  }
}

const service: Principal = {
  type: 'AWSService',
  account: 'aws',
  arn: 'arn:aws:iam::aws:service/kms.amazonaws.com',
  principalId: 'kms.amazonaws.com',
};
