/** `coffer serve`: the control plane in this process, a host in another. */
import { chmodSync, closeSync, existsSync, mkdirSync, readFileSync, realpathSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Command, Option } from 'commander';
import { pino } from 'pino';
import type { Endpoint } from '../aws/signed-client.ts';
import { DatabaseUnavailable } from '../database/database.ts';
import { startControlPlane } from '../gateway/control-plane.ts';
import { requireSafeAddress } from '../gateway/listen-address.ts';
import { socketPathBytesMax } from '../host/instances.ts';
import { endStart, forbidDumps, type ProcessLock, readPid, tryLock } from '../host/process.ts';
import type { AccessKey } from '../iam/access-keys.ts';
import { CommandError, exitCodes, exitCodesHelp } from './errors.ts';
import { HostSupervisor } from './host-supervisor.ts';
import { parseListen } from './listen.ts';
import { printLine } from './output.ts';
import { writePidFile } from './pid-file.ts';
import { defaultDataDir, writeServerFile } from './server-file.ts';
import { storeOption } from './store-option.ts';

interface ServeOptions {
  readonly data: string;
  readonly listen: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly host: boolean;
  readonly store?: string;
  readonly logLevel: string;
}

/** The last is the end of the terminal. */
const endSignals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** How long a start waits for its host before it says that it is ready all the same. */
const hostReadyMs = 10_000;

export function serveCommand(): Command {
  return new Command('serve')
    .addOption(new Option('--data <dir>', 'where everything is kept').env('COFFER_DATA').default(`./${defaultDataDir}`))
    .addOption(new Option('--listen <host:port>', 'where to listen; port 0 takes a free one').default('127.0.0.1:4600'))
    .option('--tls-cert <pem>', 'certificate; needed to listen beyond loopback')
    .option('--tls-key <pem>', "the certificate's private key")
    .option('--no-host', 'start no host: volumes are attached by hosts elsewhere (coffer host)')
    .addOption(storeOption())
    .addOption(
      new Option('--log-level <level>', 'what goes to stderr, as JSON lines')
        .choices(['debug', 'info', 'warn', 'error', 'silent'])
        .default('warn'),
    )
    .addHelpText(
      'after',
      `
The administrator's access key is made on the first start and written to
DIR/admin.credentials (an AWS shared-credentials file, mode 0600), or is the one
in COFFER_ADMIN_ACCESS_KEY_ID and COFFER_ADMIN_SECRET_ACCESS_KEY.

SIGTERM and Ctrl-C end server and host after volumes are flushed.

Examples:
  coffer serve
  coffer serve --data /srv/coffer --listen 0.0.0.0:4600 \\
      --tls-cert cert.pem --tls-key key.pem
${exitCodesHelp}`,
    )
    .action(serve);
}

async function serve(options: ServeOptions): Promise<void> {
  const administrator = givenAdministrator();
  forbidDumps();
  process.umask(0o077);
  const listen = parseListen(options.listen);
  const tls = readTls(options);
  await requireSafeAddress(listen.host, tls !== undefined).catch((error) => {
    throw new CommandError((error as Error).message, exitCodes.usage);
  });
  const dataDir = prepareDataDir(options.data, options.host);
  const destination = pino.destination({ dest: 2, sync: true });
  // Whoever read our log has gone: that is no reason to stop serving.
  destination.on('error', () => {});
  const log = pino({ level: options.logLevel, name: 'coffer' }, destination);
  const startedAt = Date.now();

  let lock: ProcessLock;
  let controlPlane: Awaited<ReturnType<typeof startControlPlane>> | undefined;
  let endpoint: Endpoint;
  let supervisor: HostSupervisor | undefined;
  try {
    lock = lockDataDir(dataDir);
    controlPlane = await startControlPlane({ dataDir, listen, tls, log, administrator });
    endpoint = {
      url: controlPlane.endpoint,
      ...(options.tlsCert ? { certificateFile: realpathSync(options.tlsCert) } : {}),
    };
    writeServerFile(dataDir, endpoint);
    supervisor = options.host ? new HostSupervisor(dataDir, options.store, (message) => say(message)) : undefined;
    supervisor?.start();
  } catch (error) {
    // What listens already would keep this process from ending.
    await controlPlane?.close();
    throw startError(error, options.listen);
  }

  const ending = new Promise<void>((resolve) => {
    for (const signal of endSignals) process.once(signal, () => resolve());
  });
  if (supervisor && !(await Promise.race([supervisor.synced(startedAt, hostReadyMs), ending.then(() => true)])))
    say(`the host has not reported yet; its log is ${join(dataDir, 'host.log')}`);
  printWelcome(dataDir, endpoint, administrator !== undefined);
  endStart();
  await ending;
  // A second signal ends at once: nothing acknowledged is lost by that.
  for (const signal of endSignals) process.once(signal, () => process.exit(130));
  await supervisor?.stop();
  await controlPlane.close();
  lock.release();
}

function say(message: string): void {
  process.stderr.write(`coffer: ${message}\n`);
}

/** The administrator's key, if the environment had one; bin/coffer hands it over through a pipe. */
function givenAdministrator(): AccessKey | undefined {
  const fd = process.env.COFFER_ADMIN_FD;
  if (process.env.COFFER_ADMIN_ACCESS_KEY_ID !== undefined) {
    throw new CommandError(
      'COFFER_ADMIN_ACCESS_KEY_ID needs COFFER_ADMIN_SECRET_ACCESS_KEY beside it',
      exitCodes.usage,
    );
  }
  if (fd === undefined) return undefined;
  delete process.env.COFFER_ADMIN_FD;
  const [accessKeyId, secretAccessKey] = readFileSync(Number(fd), 'utf8').split('\n');
  closeSync(Number(fd));
  if (!/^\w{16,128}$/.test(accessKeyId ?? '') || !secretAccessKey || secretAccessKey.length > 128) {
    throw new CommandError(
      'COFFER_ADMIN_ACCESS_KEY_ID must be 16 to 128 letters, digits or underscores, and COFFER_ADMIN_SECRET_ACCESS_KEY 1 to 128 characters',
      exitCodes.usage,
    );
  }
  return { accessKeyId: accessKeyId!, secretAccessKey };
}

function readTls({ tlsCert, tlsKey }: ServeOptions): { cert: Buffer; key: Buffer } | undefined {
  if (!tlsCert && !tlsKey) return undefined;
  if (!tlsCert || !tlsKey) throw new CommandError('--tls-cert and --tls-key go together', exitCodes.usage);
  try {
    return { cert: readFileSync(tlsCert), key: readFileSync(tlsKey) };
  } catch (error) {
    throw new CommandError(`the TLS files can't be read: ${(error as Error).message}`, exitCodes.usage);
  }
}

/** The data directory, made private, with all links resolved: sockets are told to users by this path. */
function prepareDataDir(given: string, hasHost: boolean): string {
  try {
    // Once before anything is made, and once with the links resolved.
    if (hasHost && !existsSync(given)) requireShort(resolve(given));
    mkdirSync(given, { recursive: true, mode: 0o700 });
    const dataDir = realpathSync(given);
    if (hasHost) requireShort(dataDir);
    chmodSync(dataDir, 0o700);
    return dataDir;
  } catch (error) {
    if (error instanceof CommandError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    const reason =
      code === 'EPERM' || code === 'EACCES' ? `${message}; is it another user's? Choose another with --data` : message;
    throw new CommandError(`the data directory can't be used: ${reason}`, exitCodes.usage);
  }
}

function requireShort(dataDir: string): void {
  const longest = Buffer.byteLength(join(dataDir, 'instances', `i-${'0'.repeat(17)}`, 'dev', 'xvdzz'));
  if (longest <= socketPathBytesMax) return;
  throw new CommandError(
    `${dataDir} is too long: the sockets of attached volumes would have paths of ${longest} bytes, and ${socketPathBytesMax} are possible; choose a shorter --data directory`,
    exitCodes.usage,
  );
}

function lockDataDir(dataDir: string): ProcessLock {
  const lock = tryLock(join(dataDir, 'server.lock'));
  const pidFile = join(dataDir, 'server.pid');
  if (!lock) {
    const pid = readPid(pidFile);
    throw new CommandError(
      `another server${pid ? ` (process ${pid})` : ''} runs on ${dataDir}; stop it, or choose another --data directory`,
      exitCodes.unavailable,
    );
  }
  writePidFile(pidFile);
  return lock;
}

function startError(error: unknown, listen: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  const reasons: Record<string, string> = {
    EADDRINUSE: `${listen} is in use by another program; choose another address with --listen`,
    EADDRNOTAVAIL: `${listen} is no address of this machine; choose another with --listen`,
    EACCES: `no permission: ${message}`,
    ENOSPC: 'the disk is full; make room and start again',
  };
  const isFull = error instanceof DatabaseUnavailable && message.includes('disk is full');
  const reason = isFull ? reasons.ENOSPC : code ? reasons[code] : undefined;
  return reason ? new CommandError(reason, exitCodes.unavailable, { cause: error }) : error;
}

function printWelcome(dataDir: string, endpoint: Endpoint, isKeyGiven: boolean): void {
  const credentials = isKeyGiven
    ? 'the access key given in COFFER_ADMIN_ACCESS_KEY_ID'
    : join(dataDir, 'admin.credentials');
  printLine(`
Endpoint     ${endpoint.url}
Credentials  ${credentials}
Data         ${dataDir}

Try, in another terminal:
${isKeyGiven ? '' : `  export AWS_SHARED_CREDENTIALS_FILE=${shellWord(credentials)}\n`}  export AWS_DEFAULT_REGION=us-east-1 AWS_ENDPOINT_URL=${endpoint.url}
  alias aws='aws --endpoint-url ${endpoint.url}'
  aws kms create-key
  aws ec2 create-volume --size 1 --availability-zone us-east-1a --encrypted
  aws ec2 run-instances --image-id ami-0c0ffe00000000000 --instance-type m5.large
The whole story in half a minute:  ${shellWord(join(import.meta.dirname, '../../bin/coffer'))} demo
`);
  printLine(`coffer is ready on ${endpoint.url}`);
}

function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
