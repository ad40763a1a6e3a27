/** `coffer host`: the side that exports volumes, for a machine of its own; `coffer serve` starts one by itself. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import type { Endpoint } from '../aws/signed-client.ts';
import { HostIsRunning, runHost } from '../host/main.ts';
import { parseCredentials } from './credentials-file.ts';
import { CommandError, exitCodes, exitCodesHelp } from './errors.ts';
import { defaultDataDir, readServerFile } from './server-file.ts';
import { storeOption } from './store-option.ts';

interface HostOptions {
  readonly data: string;
  readonly endpoint?: string;
  readonly credentials?: string;
  readonly hostId: string;
  readonly zone?: readonly string[];
  readonly caFile?: string;
  readonly store?: string;
}

/** The name under which a server knows the host that it starts beside itself. */
const embeddedHostId = 'local';

export function hostCommand(): Command {
  return new Command('host')
    .addOption(
      new Option('--data <dir>', 'where images and sockets are').env('COFFER_DATA').default(`./${defaultDataDir}`),
    )
    .option('--endpoint <url>', 'the server (default: the one on the data directory)')
    .option('--credentials <file>', "the host's access key (default: DIR/host.credentials)")
    .option('--host-id <name>', 'the name that the access key was made for', embeddedHostId)
    .option('--zone <name...>', 'availability zones whose volumes this host reaches (default: all)')
    .addOption(storeOption())
    .option('--ca-file <pem>', "the server's own certificate, when no authority signed it")
    .addHelpText(
      'after',
      `
Logs to stderr as JSON lines. SIGTERM ends it after volumes are flushed; their
data keys are wiped. While the server is away, attached volumes go on working.

Examples:
  coffer host                                     beside a server that was started with --no-host
  coffer account host-key rack7 > host.credentials
  coffer host --endpoint https://coffer.example:4600 --host-id rack7 \\
      --credentials host.credentials --zone us-east-1b
${exitCodesHelp}`,
    )
    .action(host);
}

async function host(options: HostOptions): Promise<void> {
  const { endpoint, caFile } = options;
  const find = (): Endpoint => (endpoint ? { url: endpoint, certificateFile: caFile } : readServerFile(options.data));
  find();
  const file = options.credentials ?? join(options.data, 'host.credentials');
  let credentials: ReturnType<typeof parseCredentials>;
  try {
    credentials = parseCredentials(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new CommandError(`no host credentials in ${file}: ${(error as Error).message}`, exitCodes.usage);
  }
  try {
    await runHost({
      dataDir: options.data,
      hostId: options.hostId,
      credentials,
      region: 'us-east-1',
      zones: options.zone ?? '*',
      endpoint: find,
      storeLocation: options.store,
    });
  } catch (error) {
    if (error instanceof HostIsRunning) throw new CommandError(error.message, exitCodes.unavailable);
    throw error;
  }
}
