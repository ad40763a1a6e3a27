/** The `coffer` command: one file per subcommand. */
import { Command, CommanderError, Help, type Option } from 'commander';
import { version } from '../aws/signed-client.ts';
import { CommandError, exitCodes, exitCodesHelp } from './errors.ts';

const program = new Command('coffer')
  .description('Encrypted block storage for your own machines, driven through the AWS EBS and KMS APIs.')
  .version(version, '--version')
  .option('--debug', 'show stack traces of errors')
  .showSuggestionAfterError()
  .addHelpText(
    'after',
    `
Start here:
  coffer serve                a server and a host, data in ./coffer-data
  coffer demo                 the whole story against a server of its own, in half a minute
  coffer COMMAND --help       options, examples
${exitCodesHelp}`,
  );

/** One file each; only the one that is asked for is loaded: the SDK behind some takes a second. */
const commands: Readonly<Record<string, { about: string; load: () => Promise<Command> }>> = {
  serve: {
    about: 'Start a server, and a host beside it.',
    load: async () => (await import('./serve.ts')).serveCommand(),
  },
  host: {
    about: 'Run a host: it exports attached volumes over NBD, encrypts and decrypts.',
    load: async () => (await import('./host.ts')).hostCommand(),
  },
  demo: {
    about: 'Tell the whole story in half a minute: key, volume, data, snapshots, trail, and what a disabled key does.',
    load: async () => (await import('./demo.ts')).demoCommand(),
  },
  status: {
    about: 'Show whether server and hosts are there, and what the account has in the region.',
    load: async () => (await import('./status.ts')).statusCommand(),
  },
  account: {
    about: 'Accounts and access keys.',
    load: async () => (await import('./account.ts')).accountCommand(),
  },
  key: {
    about: 'KMS keys: what depends on one, and its end.',
    load: async () => (await import('./key.ts')).keyCommand(),
  },
  volume: {
    about: 'Volumes, beyond what the EC2 API shows.',
    load: async () => (await import('./volume.ts')).volumeCommand(),
  },
  snapshot: {
    about: 'Snapshots from disk images, and disk images from snapshots.',
    load: async () => (await import('./snapshot.ts')).snapshotCommand(),
  },
  store: {
    about: 'The block store, where snapshots rest.',
    load: async () => (await import('./store.ts')).storeCommand(),
  },
  trail: {
    about: 'Look up the audit record: every API call, the newest first.',
    load: async () => (await import('./trail.ts')).trailCommand(),
  },
  events: {
    about: 'Show events (volumes, snapshots, instances, keys) of all regions, oldest first.',
    load: async () => (await import('./events.ts')).eventsCommand(),
  },
};

/** In every subcommand: makes commander throw instead of exit, and say what is wrong as we do, on one line. */
function adopt(command: Command, path = command.name()): void {
  command.exitOverride();
  command.configureHelp({ groupItems: ownOptionsFirst });
  command.configureOutput({
    outputError: (text, write) => write(`${inOneLine(text)}; see ${path} --help\n`),
  });
  for (const each of command.commands) adopt(each, `${path} ${each.name()}`);
}

/** What is particular to a command comes before what all of them take. */
function ownOptionsFirst<T extends Command | Option>(
  all: T[],
  visible: T[],
  groupOf: (item: T) => string,
): Map<string, T[]> {
  const groups = new Help().groupItems(all, visible, groupOf);
  const own = groups.get('Options:');
  return own ? new Map([['Options:', own], ...groups]) : groups;
}

function inOneLine(text: string): string {
  return text
    .replace(/^error: /, 'coffer: ')
    .trim()
    .replace(/\.?\n/g, ' ')
    .replace(/\.$/, '');
}

const words = process.argv.slice(2);
if (words[0] === 'help' && words.length > 1) {
  // `coffer help key usage` is `coffer key usage --help`; of an unknown command commander would show all there are.
  words.shift();
  if (words[0]! in commands) words.push('--help');
}
const asked = words.find((word) => !word.startsWith('-')) ?? '';

// A reader that has seen enough (`coffer trail | head`) is no error, unless it lacks a part of an image; and a server goes on
// without its readers.
process.stdout.on('error', ({ code }: NodeJS.ErrnoException) => {
  if (asked === 'serve') return;
  if (code === 'EPIPE' && asked !== 'snapshot') process.exit(0);
  process.stderr.write(`coffer: standard output can't be written: ${code}\n`);
  process.exit(exitCodes.failed);
});
process.stderr.on('error', () => {});

try {
  for (const [name, { about, load }] of Object.entries(commands))
    program.addCommand((name === asked ? await load() : new Command(name)).description(about));
  adopt(program);
  await program.parseAsync(words, { from: 'user' });
} catch (error) {
  process.exitCode = report(error);
}

/** Prints one line for the person at the terminal; the exit code. */
function report(error: unknown): number {
  if (error instanceof CommanderError) {
    // Commander has printed what it has to say.
    const isHelp = error.exitCode === 0 || error.code === 'commander.help';
    return isHelp && error.code !== 'commander.help' ? exitCodes.ok : exitCodes.usage;
  }
  const { message, stack } = error as Error;
  process.stderr.write(`coffer: ${program.opts().debug ? stack : message}\n`);
  if (program.opts().debug && (error as Error).cause)
    process.stderr.write(`${String(((error as Error).cause as Error).stack)}\n`);
  return error instanceof CommandError ? error.exitCode : exitCodes.failed;
}
