/** `coffer demo`: tells what Coffer does by doing it, and checks every claim it prints. */
import { Command } from 'commander';
import { Connection, type ConnectionOptions, withConnection } from './connection.ts';
import { Narrator } from './demo-narrator.ts';
import { tellStory } from './demo-story.ts';
import { CommandError, exitCodesHelp } from './errors.ts';
import { printLine } from './output.ts';
import { startTemporaryServer } from './temporary-server.ts';

interface DemoOptions extends ConnectionOptions {
  readonly json?: boolean;
}

export function demoCommand(): Command {
  return withConnection(new Command('demo'))
    .option('--json', 'print the claims as JSON, one per line')
    .addHelpText(
      'after',
      `
Without --endpoint or --data it starts a server of its own and removes it
afterwards. Against a running server it must run on the machine of that server's
host, because it reads and writes volumes through their sockets; it deletes what
it made, and schedules its key for deletion in 7 days.

Examples:
  coffer demo
  coffer demo --data ./coffer-data
Exit code 1: a claim does not hold.
${exitCodesHelp}`,
    )
    .action(demo);
}

async function demo(options: DemoOptions): Promise<void> {
  const started = performance.now();
  const usesRunning = options.endpoint !== undefined || options.data !== undefined;
  const server = usesRunning ? undefined : await startTemporaryServer();
  const interrupted = () => void server?.stop().finally(() => process.exit(130));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, interrupted);
  const narrator = new Narrator(options.json ?? false);
  try {
    const connection = new Connection(server ? { ...options, data: server.dataDir } : options);
    await connection.translate(() => tellStory(connection, narrator, server?.dataDir));
    connection.close();
  } finally {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, interrupted);
    await server?.stop();
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  if (narrator.failed > 0)
    throw new CommandError(`${narrator.failed} of ${narrator.told} claims do not hold (${seconds} s)`);
  if (!options.json) printLine(`\nAll ${narrator.told} claims hold (${seconds} s).`);
}
