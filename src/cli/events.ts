/** `coffer events`: what went over the account's event bus. */
import { Command, Option } from 'commander';
import type { BusEvent } from '../events/bus-event.ts';
import type { ListEventsInput, ListEventsOutput } from '../events/list.ts';
import { Connection, type ConnectionOptions, withConnection } from './connection.ts';
import { CommandError, exitCodes, exitCodesHelp } from './errors.ts';
import { printable, printJsonLine, printLine } from './output.ts';

const waitMs = 20_000;
const timeoutMs = waitMs + 10_000;
const retryPauseMs = 1_000;
/** What one request gives at most. */
const limitMax = 1000;

interface EventsOptions extends ConnectionOptions {
  readonly follow?: boolean;
  readonly max: string;
  readonly json?: boolean;
}

export function eventsCommand(): Command {
  return withConnection(new Command('events'), { region: 'only what happened in this region (default: in all)' })
    .option('-f, --follow', 'go on as they come, until Ctrl-C')
    .addOption(new Option('--max <count>', 'how many of the newest to start with').default('20', '20'))
    .option('--json', 'print whole events, one JSON document per line')
    .addHelpText('after', `\nExamples:\n  coffer events\n  coffer events --follow --json\n${exitCodesHelp}`)
    .action(events);
}

async function events(options: EventsOptions): Promise<void> {
  const max = Number(options.max);
  if (!Number.isInteger(max) || max < 0 || max > limitMax)
    throw new CommandError(`--max must be a whole number from 0 to ${limitMax}`, exitCodes.usage);
  const connection = new Connection(options);
  const list = (input: ListEventsInput) => connection.call<ListEventsOutput>('ListEvents', input, timeoutMs);
  const print = (found: readonly BusEvent[]) => {
    for (const event of found) {
      if (options.json) printJsonLine(event);
      else printLine(sentence(event));
    }
  };
  const ofRegion = (found: readonly BusEvent[]) =>
    found.filter(({ region }) => options.region === undefined || region === options.region);
  // At least one, because the answer's position is that of its last event.
  const first = await list({ Limit: options.region === undefined ? Math.max(max, 1) : limitMax });
  if (max > 0) print(ofRegion(first.Events).slice(-max));
  let after = first.Last;
  while (options.follow) {
    try {
      const next = await list({ After: after, WaitMs: waitMs });
      print(ofRegion(next.Events));
      after = next.Last;
    } catch (error) {
      if (!(error instanceof CommandError) || error.exitCode !== exitCodes.unavailable) throw error;
      await new Promise((wake) => setTimeout(wake, retryPauseMs));
    }
  }
  connection.close();
}

/** `2026-11-21T20:00:00Z  EBS Volume Notification  attachVolume failed  vol-…: … is disabled.` */
function sentence(event: BusEvent): string {
  const { event: what, result, cause, state } = event.detail as Record<string, string | undefined>;
  const names = event.resources.map((arn) => arn.split(/[:/]/).pop()).join(', ');
  const outcome = [what, result, state].filter(Boolean).join(' ');
  return printable(
    [event.time, event['detail-type'], outcome, names + (cause ? `: ${cause}` : '')].filter(Boolean).join('  '),
  );
}
