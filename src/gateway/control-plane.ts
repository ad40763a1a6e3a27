/** The control plane put together: database, services, pipeline, HTTP server, and the work it does by itself. */
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { type Clock, systemClock } from '../aws/clock.ts';
import type { Service } from '../aws/service.ts';
import { Signals } from '../aws/signals.ts';
import { continueTrail } from '../cloudtrail/record-store.ts';
import { loadRootKeyFile } from '../crypto/root-key.ts';
import { migrate } from '../database/migrations.ts';
import { SqliteDatabase } from '../database/sqlite.ts';
import { type AccessKey, requireOwnRootKey } from '../iam/access-keys.ts';
import { ensureAdministrator } from '../iam/accounts.ts';
import { CredentialStore } from '../iam/credential-store.ts';
import { hasCredentialsFile, writeCredentialsFile } from '../iam/credentials-file.ts';
import { replaceHostKey } from '../iam/hosts.ts';
import { Pipeline } from './pipeline.ts';
import { createServer } from './server.ts';
import { createServices } from './services.ts';

/** The name of the host that a server starts beside itself. */
export const embeddedHostId = 'local';
const housekeepingEveryMs = 60_000;
const homeRegion = 'us-east-1';

export interface ControlPlaneOptions {
  /** Everything that lasts is in here; made with mode 0700 when missing. */
  readonly dataDir: string;
  readonly listen: { readonly host: string; readonly port: number };
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer };
  readonly log: Logger;
  readonly clock?: Clock;
  /** The administrator's access key, where the operator chose it; otherwise one is made and written to a file. */
  readonly administrator?: AccessKey;
}

export interface ControlPlane {
  /** `http://127.0.0.1:4600` */
  readonly endpoint: string;
  /** Lets requests in flight finish (within a bound), makes everything durable and closes. */
  close(): Promise<void>;
}

/**
 * Starts a control plane; it answers requests when this resolves.
 * @throws when the data directory is in use, was written by a newer version, or the address can't be listened on
 */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  const { dataDir, log } = options;
  const clock = options.clock ?? systemClock;
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const databaseFile = join(dataDir, 'coffer.db');
  const rootKeyFile = join(dataDir, 'root.key');
  const rootKey = loadRootKeyFile(rootKeyFile, { mayMake: !existsSync(databaseFile) });
  const database = new SqliteDatabase(databaseFile);
  const stopping = new AbortController();
  try {
    const credentials = new CredentialStore({ database, rootKey, clock });
    const services = createServices({ rootKey, database, forgetCredentials: (id) => credentials.forget(id) });
    await database.run((db) =>
      migrate(
        db,
        services.flatMap((service) => service.migrations),
      ),
    );
    // Were the tables lost with their group (the disk is full), what follows would only find them missing.
    await database.durable();
    await database.run((db) => requireOwnRootKey(db, rootKey, rootKeyFile));
    await database.run(continueTrail);
    const signals = new Signals();
    const pipeline = new Pipeline({ database, services, clock, signals });

    const adminFile = join(dataDir, 'admin.credentials');
    const hostFile = join(dataDir, 'host.credentials');
    const given = options.administrator;
    const keys = await database.run(async (db) => ({
      admin: await ensureAdministrator(db, rootKey, clock.now(), { given, makeKey: !hasCredentialsFile(adminFile) }),
      host: hasCredentialsFile(hostFile) ? undefined : await replaceHostKey(db, rootKey, embeddedHostId, clock.now()),
    }));
    await database.durable();
    // The files come after the keys are durable: a file that exists always opens the door.
    if (keys.admin) writeCredentialsFile(adminFile, keys.admin, 'Coffer administrator: the root of the first account');
    if (keys.host) writeCredentialsFile(hostFile, keys.host, 'Coffer host on this machine');
    if (given) rmSync(adminFile, { force: true });

    const housekeeping = startHousekeeping(pipeline, services, log, stopping.signal);
    await housekeeping.firstRound;
    const server = await createServer({
      listen: options.listen,
      tls: options.tls,
      services,
      pipeline,
      credentials,
      clock,
      log,
      ready: () => database.isUsable,
    });
    return {
      endpoint: server.endpoint,
      async close() {
        stopping.abort();
        await server.close();
        await housekeeping.stopped();
        await database.close();
        credentials.forget();
        rootKey.wipe();
      },
    };
  } catch (error) {
    stopping.abort();
    await database.close();
    rootKey.wipe();
    throw error;
  }
}

/** Runs every service's housekeeping now and then each minute; a failure is logged and tried again the next time. */
function startHousekeeping(pipeline: Pipeline, services: readonly Service[], log: Logger, stopping: AbortSignal) {
  const round = async () => {
    for (const service of services) {
      try {
        await pipeline.housekeeping(service, homeRegion, stopping);
      } catch (error) {
        log.error({ err: error, service: service.name }, 'housekeeping failed; it runs again in a minute');
      }
      if (stopping.aborted) return;
    }
  };
  let running = round();
  const firstRound = running;
  const timer = setInterval(() => {
    running = running.then(round);
  }, housekeepingEveryMs);
  stopping.addEventListener('abort', () => clearInterval(timer), { once: true });
  return { firstRound, stopped: () => running };
}
