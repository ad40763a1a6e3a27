/** The stock clients, pointed at one endpoint with one set of credentials. */
import { spawn } from 'node:child_process';
import type { Credentials } from '../../src/cli/credentials-file.ts';

const defaultRegion = 'us-east-1';
const commandTimeoutMs = 150_000;

/** A command that ended with another exit code than 0. */
export class CommandFailed extends Error {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  constructor(command: string, exitCode: number, stdout: string, stderr: string) {
    super(`${command} ended with ${exitCode}: ${stderr.trim() || stdout.trim()}`);
    this.name = 'CommandFailed';
    this.exitCode = exitCode;
    this.stdout = stdout;
    this.stderr = stderr;
  }
}

/** What steers AWS clients, Coffer, Node.js, how text comes out, and by which way requests go. */
const steering =
  /^(?:AWS_|BOTO_|COFFER_|NODE_(?:OPTIONS|DEBUG|ENV|USE_)|VITEST|TEST$|LC_|LANG|NO_COLOR$|FORCE_COLOR$|COLUMNS$|(?:https?|all|no)_proxy$)/i;

/** This process's environment without anything that would steer a client or Coffer; numbers and words are in C's form. */
export function cleanEnvironment(): NodeJS.ProcessEnv {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !steering.test(name)));
  return { ...env, LC_ALL: 'C.UTF-8', AWS_CONFIG_FILE: '/dev/null', AWS_SHARED_CREDENTIALS_FILE: '/dev/null' };
}

/** Runs a command to its end. @throws {CommandFailed} */
export async function run(
  command: string,
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv; input?: string | Uint8Array; cwd?: string; timeoutMs?: number } = {},
): Promise<{ stdout: string; stderr: string; stdoutBytes: Buffer }> {
  const child = spawn(command, args, { env: options.env ?? cleanEnvironment(), cwd: options.cwd, stdio: 'pipe' });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk) => stdout.push(chunk));
  child.stderr.on('data', (chunk) => stderr.push(chunk));
  child.stdin.on('error', () => {});
  child.stdin.end(options.input);
  const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? commandTimeoutMs);
  const exitCode = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? 128));
  }).finally(() => clearTimeout(timer));
  const stdoutBytes = Buffer.concat(stdout);
  const result = { stdout: stdoutBytes.toString(), stderr: Buffer.concat(stderr).toString(), stdoutBytes };
  if (exitCode !== 0) throw new CommandFailed([command, ...args].join(' '), exitCode, result.stdout, result.stderr);
  return result;
}

interface SdkConfiguration {
  endpoint: string;
  region: string;
  credentials: Credentials;
  maxAttempts: number;
}

export class Client {
  readonly endpoint: string;
  readonly credentials: Credentials;
  readonly region: string;

  constructor(endpoint: string, credentials: Credentials, region = defaultRegion) {
    this.endpoint = endpoint;
    this.credentials = credentials;
    this.region = region;
  }

  /** The same endpoint for someone else, or in another region. */
  as(credentials: Credentials, region = this.region): Client {
    return new Client(this.endpoint, credentials, region);
  }

  /** What an AWS client needs in its environment to talk to the endpoint. */
  environment(): NodeJS.ProcessEnv {
    return {
      ...cleanEnvironment(),
      AWS_ACCESS_KEY_ID: this.credentials.accessKeyId,
      AWS_SECRET_ACCESS_KEY: this.credentials.secretAccessKey,
      ...(this.credentials.sessionToken ? { AWS_SESSION_TOKEN: this.credentials.sessionToken } : {}),
      AWS_DEFAULT_REGION: this.region,
      AWS_ENDPOINT_URL: this.endpoint,
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_MAX_ATTEMPTS: '1',
      AWS_PAGER: '',
    };
  }

  /**
   * Runs Debian's aws CLI; its JSON answer, or undefined when it prints nothing.
   * @throws {CommandFailed} with the CLI's words in `stderr`
   */
  // biome-ignore lint/suspicious/noExplicitAny: JSON of any operation.
  async awsCli(...args: string[]): Promise<any> {
    const all = ['--endpoint-url', this.endpoint, '--output', 'json', ...args];
    const { stdout } = await run('/usr/bin/aws', all, { env: this.environment() });
    return stdout.trim() === '' ? undefined : JSON.parse(stdout);
  }

  /** A client of the JavaScript SDK: `server.sdk(KMSClient)`. One attempt, so that errors show at once. */
  sdk<T>(
    ClientClass: new (configuration: SdkConfiguration) => T,
    options: { maxAttempts?: number; region?: string } = {},
  ): T {
    const { endpoint, credentials } = this;
    const region = options.region ?? this.region;
    return new ClientClass({ endpoint, region, credentials, maxAttempts: options.maxAttempts ?? 1 });
  }

  /**
   * Runs Python with boto3 in sight: `client(name)` makes a client for the endpoint, and what the script passes to
   * `answer(…)` comes back as JSON.
   */
  // biome-ignore lint/suspicious/noExplicitAny: whatever the script answers.
  async boto3(script: string): Promise<any> {
    const prelude = [
      'import boto3, botocore, json, os',
      'def client(name, **more): return boto3.client(name, endpoint_url=os.environ["AWS_ENDPOINT_URL"], **more)',
      'def answer(value): print("\\n@answer " + json.dumps(value, default=str))',
    ].join('\n');
    const { stdout } = await run('/usr/bin/python3', ['-'], {
      env: this.environment(),
      input: `${prelude}\n${script}\n`,
    });
    const answer = stdout.split('\n').findLast((line) => line.startsWith('@answer '));
    return answer === undefined ? undefined : JSON.parse(answer.slice('@answer '.length));
  }
}
