/** Which server a command talks to, and as whom. */
import { existsSync, readFileSync } from 'node:fs';
import https from 'node:https';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { type Command, Option } from 'commander';
import { AwsError } from '../aws/errors.ts';
import { certificateErrors, type Endpoint, pinning, SignedClient, Unreachable } from '../aws/signed-client.ts';
import { type Credentials, parseCredentials } from './credentials-file.ts';
import { CommandError, exitCodes } from './errors.ts';
import { defaultDataDir, readServerFile } from './server-file.ts';

export interface ConnectionOptions {
  readonly endpoint?: string;
  readonly data?: string;
  readonly region?: string;
  readonly profile?: string;
  readonly caFile?: string;
}

const requestTimeoutMs = 60_000;

/** Adds the options with which a command finds its server. `region` is what it takes the region for, if not for its calls. */
export function withConnection(
  command: Command,
  { region = 'the region (default: $AWS_REGION, $AWS_DEFAULT_REGION or us-east-1)' } = {},
): Command {
  const options = [
    new Option('--endpoint <url>', 'the server; without it, the one that runs on the data directory').env(
      'COFFER_ENDPOINT',
    ),
    new Option('--data <dir>', `the server's data directory (default: $COFFER_DATA or ./${defaultDataDir})`),
    new Option('--profile <name>', 'the profile in the AWS shared-credentials file').env('AWS_PROFILE'),
    new Option('--region <name>', region),
    new Option('--ca-file <pem>', "the server's own certificate, when no authority signed it"),
  ];
  for (const option of options) command.addOption(option.helpGroup('Server and credentials:'));
  return command;
}

export class Connection {
  readonly endpoint: Endpoint;
  readonly credentials: Credentials;
  readonly region: string;
  /** Where the credentials came from, for error messages. */
  readonly credentialsSource: string;
  readonly #client: SignedClient;

  /** @throws {CommandError} when there is no server or there are no credentials to be found */
  constructor(options: ConnectionOptions, env: NodeJS.ProcessEnv = process.env) {
    const dataDir = options.data ?? env.COFFER_DATA ?? defaultDataDir;
    this.endpoint = options.endpoint
      ? { url: checkUrl(options.endpoint), certificateFile: options.caFile }
      : readServerFile(dataDir);
    const { credentials, source } = findCredentials(options, dataDir, env);
    this.credentials = credentials;
    this.credentialsSource = source;
    this.region = options.region ?? env.AWS_REGION ?? env.AWS_DEFAULT_REGION ?? 'us-east-1';
    this.#client = new SignedClient(this.endpoint);
  }

  /** Calls one of the system's own operations. @throws {CommandError} with the server's words */
  async call<Output>(operation: string, body: object, timeoutMs = requestTimeoutMs): Promise<Output> {
    const { region, credentials } = this;
    const target = `Coffer.${operation}`;
    return this.translate(() =>
      this.#client.send<Output>({ service: 'coffer', target, region, credentials, body, timeoutMs }),
    );
  }

  /** What an SDK client is configured with. */
  sdkConfiguration() {
    const { certificateFile } = this.endpoint;
    const handler = certificateFile
      ? { requestHandler: new NodeHttpHandler({ httpsAgent: new https.Agent(pinning(certificateFile)) }) }
      : {};
    return { endpoint: this.endpoint.url, region: this.region, credentials: this.credentials, ...handler };
  }

  /** Runs `work`; what goes wrong in talking to the server becomes one line that says what to do. */
  async translate<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw this.#commandError(error);
    }
  }

  close(): void {
    this.#client.close();
  }

  #commandError(error: unknown): unknown {
    const { name, message, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number } };
    if (error instanceof AwsError || $metadata?.httpStatusCode !== undefined) {
      const code = error instanceof AwsError ? error.code : name;
      const hint = aboutWho.test(code) ? ` The credentials came from ${this.credentialsSource}.` : '';
      return new CommandError(`${code}: ${message}${hint}`, exitCodes.failed, { cause: error });
    }
    const network = networkError(error);
    if (!network) return error;
    const { url } = this.endpoint;
    return new CommandError(unreachable(url, network), exitCodes.unavailable, { cause: error });
  }
}

function unreachable(url: string, why: string): string {
  if (certificateErrors.test(why))
    return `the certificate of ${url} is not trusted (${why}); if it is the server's own, name it with --ca-file`;
  if (url.startsWith('https:') && /^(EPROTO|ERR_SSL_.*)$/.test(why))
    return `what answers at ${url} does not speak TLS (${why}); is it ${url.replace('https:', 'http:')}?`;
  if (why === 'ECONNRESET' && url.startsWith('http:'))
    return `what answers at ${url} hangs up (${why}); is it ${url.replace('http:', 'https:')}?`;
  return `no server answers at ${url} (${why}); is it running?`;
}

const aboutWho = /UnrecognizedClient|InvalidClientToken|InvalidSignature|SignatureDoesNotMatch|AuthFailure/;

/** The code of an error that kept a request from being answered, or undefined when `error` is another kind. */
function networkError(error: unknown): string | undefined {
  const { code, name } = error as NodeJS.ErrnoException;
  if (error instanceof Unreachable) {
    const cause = error.cause as NodeJS.ErrnoException;
    return cause.code ?? cause.message;
  }
  // Node's own ERR_… codes are mistakes of ours, except those of TLS.
  if (code && !/^ERR_(?!TLS|SSL)/.test(code)) return code;
  return name === 'TimeoutError' ? name : undefined;
}

function checkUrl(text: string): string {
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return new URL(text).origin;
  throw new CommandError(
    `the endpoint ${JSON.stringify(text)} is not an http or https address, as http://127.0.0.1:4600 is`,
    exitCodes.usage,
  );
}

/**
 * `--profile`; then `--data`, which means its administrator; then the environment; for a named endpoint the default
 * profile; last the data directory's administrator.
 */
function findCredentials(
  options: ConnectionOptions,
  dataDir: string,
  env: NodeJS.ProcessEnv,
): { credentials: Credentials; source: string } {
  const sharedFile = env.AWS_SHARED_CREDENTIALS_FILE ?? join(homedir(), '.aws', 'credentials');
  const adminFile = join(resolve(dataDir), 'admin.credentials');
  if (options.profile) return fromFile(sharedFile, options.profile);
  if (options.data && !options.endpoint) return fromFile(adminFile);
  if (env.AWS_ACCESS_KEY_ID && env.AWS_SECRET_ACCESS_KEY) {
    const { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey } = env;
    const credentials = { accessKeyId, secretAccessKey, sessionToken: env.AWS_SESSION_TOKEN };
    return { credentials, source: 'AWS_ACCESS_KEY_ID in the environment' };
  }
  if (options.endpoint && !options.data && existsSync(sharedFile)) return fromFile(sharedFile);
  return fromFile(adminFile);
}

function fromFile(path: string, profile = 'default'): { credentials: Credentials; source: string } {
  try {
    return { credentials: parseCredentials(readFileSync(path, 'utf8'), profile), source: path };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = code === 'ENOENT' ? `there is no ${path}` : `${path}: ${code ?? message}`;
    throw new CommandError(
      `no credentials: ${reason}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name the server's --data directory`,
      exitCodes.usage,
    );
  }
}
