/** The `coffer` command: one file per subcommand. */
import { Command, CommanderError } from 'commander';
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

/** One file each; only the one that is asked for is loaded, so that it starts quickly. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  serve: async () => (await import('./serve.ts')).serveCommand(),
  host: async () => (await import('./host.ts')).hostCommand(),
  demo: async () => (await import('./demo.ts')).demoCommand(),
  status: async () => (await import('./status.ts')).statusCommand(),
  account: async () => (await import('./account.ts')).accountCommand(),
  key: async () => (await import('./key.ts')).keyCommand(),
  volume: async () => (await import('./volume.ts')).volumeCommand(),
  snapshot: async () => (await import('./snapshot.ts')).snapshotCommand(),
  store: async () => (await import('./store.ts')).storeCommand(),
  trail: async () => (await import('./trail.ts')).trailCommand(),
  events: async () => (await import('./events.ts')).eventsCommand(),
};

/** In every subcommand: makes commander throw instead of exit, and say what is wrong as we do, on one line. */
function adopt(command: Command, path = command.name()): void {
  command.exitOverride();
  command.configureOutput({
    outputError: (text, write) => write(`${inOneLine(text)}; see ${path} --help\n`),
  });
  for (const each of command.commands) adopt(each, `${path} ${each.name()}`);
}

function inOneLine(text: string): string {
  return text
    .replace(/^error: /, 'coffer: ')
    .trim()
    .replace(/\.?\n/g, ' ')
    .replace(/\.$/, '');
}

const asked = process.argv.slice(2).find((argument) => !argument.startsWith('-')) ?? '';

// A reader that has seen enough (`coffer trail | head`) is no error; and a server goes on without its readers.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (asked !== 'serve') process.exit(error.code === 'EPIPE' ? 0 : exitCodes.failed);
});
process.stderr.on('error', () => {});

try {
  const isVersion = process.argv[2] === '--version';
  const needed = commands[asked] ? [commands[asked]] : isVersion ? [] : Object.values(commands);
  for (const load of needed) program.addCommand(await load());
  adopt(program);
  await program.parseAsync();
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
