/** The `coffer` command: one file per subcommand. */
import { Command, CommanderError } from 'commander';
import { version } from '../aws/signed-client.ts';
import { accountCommand } from './account.ts';
import { demoCommand } from './demo.ts';
import { CommandError, exitCodes, exitCodesHelp } from './errors.ts';
import { eventsCommand } from './events.ts';
import { hostCommand } from './host.ts';
import { serveCommand } from './serve.ts';
import { statusCommand } from './status.ts';
import { trailCommand } from './trail.ts';
import { volumeCommand } from './volume.ts';

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

const commands = [
  serveCommand(),
  hostCommand(),
  demoCommand(),
  statusCommand(),
  accountCommand(),
  volumeCommand(),
  trailCommand(),
  eventsCommand(),
];
for (const command of commands) program.addCommand(command);

/** Makes commander throw instead of exit, in every subcommand. */
function throwInsteadOfExit(command: Command): void {
  command.exitOverride();
  for (const each of command.commands) throwInsteadOfExit(each);
}

// A reader that has seen enough (`coffer trail | head`) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) =>
  process.exit(error.code === 'EPIPE' ? 0 : exitCodes.failed),
);

throwInsteadOfExit(program);
try {
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
