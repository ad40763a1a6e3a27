/** `coffer store check`: whether everything that snapshots refer to is there and is what was stored. */
import { Command } from 'commander';
import { type CheckReport, checkStore, isFine } from '../blocks/check.ts';
import { openStore } from '../blocks/open-store.ts';
import { blockBytes, inFull } from '../blocks/store.ts';
import { readStoreNote, storeLocation } from '../host/store-note.ts';
import { CommandError } from './errors.ts';
import { printable, printJson, printLine, printTable } from './output.ts';
import { defaultDataDir } from './server-file.ts';
import { storeOption } from './store-option.ts';
import { Progress, sizeText } from './transfer/progress.ts';

interface CheckCommandOptions {
  readonly store?: string;
  readonly data?: string;
  readonly quick?: boolean;
  readonly repair?: boolean;
  readonly quiet?: boolean;
  readonly json?: boolean;
}

const checkExitCodes = { fine: 0, problems: 1, notRun: 2 } as const;
/** Problems that are printed one by one; the JSON has more. */
const printedMax = 100;

export function storeCommand(): Command {
  const check = new Command('check')
    .description('Check a block store: read every block of every snapshot, and look for what nothing refers to.')
    .addOption(storeOption())
    .option('--data <dir>', `the data directory of a host (default: $COFFER_DATA or ./${defaultDataDir})`)
    .option('--quick', 'only look whether the blocks are there, do not read them')
    .option('--repair', 'drop blocks that nothing refers to')
    .option('--quiet', 'no progress')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Without --store it checks the store that the host of the data directory used last. Hosts may go on working meanwhile:
snapshots that are being made or deleted are left alone, and so are blocks younger than an hour.

--repair drops nothing else, and nothing at all while a manifest is damaged.

Examples:
  coffer store check --data /srv/coffer
  coffer store check --store s3://backups/coffer --quick --json

Exit codes: 0 everything is fine; 1 something is missing, corrupt, or referred to by nothing; 2 it could not be checked.`,
    )
    .action(runCheck);
  return new Command('store').addCommand(check);
}

async function runCheck(options: CheckCommandOptions): Promise<void> {
  let report: CheckReport;
  try {
    report = await check(options);
  } catch (error) {
    throw new CommandError(printable(inFull(error)), checkExitCodes.notRun, { cause: error });
  }
  if (options.json) printJson(reportJson(report));
  else printReport(report, options.repair === true);
  process.exitCode = isFine(report) ? checkExitCodes.fine : checkExitCodes.problems;
}

async function check({ store: given, data, quick, repair, quiet }: CheckCommandOptions): Promise<CheckReport> {
  const dataDir = data ?? process.env.COFFER_DATA ?? defaultDataDir;
  const location = given === undefined ? readStoreNote(dataDir)?.location : undefined;
  const store = await openStore(location ?? storeLocation(given, dataDir), { create: false });
  const interrupted = new AbortController();
  const interrupt = () => interrupted.abort(new Error('interrupted'));
  process.once('SIGINT', interrupt);
  let progress: Progress | undefined;
  let before = 0;
  try {
    return await checkStore(store, {
      quick,
      repair,
      signal: interrupted.signal,
      onProgress: (doneBytes, totalBytes) => {
        progress ??= new Progress('checked', totalBytes, { isQuiet: quiet === true || quick === true });
        progress.add(doneBytes - before, true);
        before = doneBytes;
      },
    });
  } finally {
    progress?.end();
    process.off('SIGINT', interrupt);
    store.close();
  }
}

/** Named as all that programs read of Coffer is: as AWS names things. */
function reportJson(report: CheckReport): object {
  const { unreferenced } = report;
  return {
    Location: report.location,
    StoreId: report.storeId,
    Fine: isFine(report),
    Snapshots: report.snapshots,
    Blocks: report.blocks,
    BlocksRead: report.blocksRead,
    DamagedManifests: report.damagedManifests.map(({ snapshotId, message }) => ({
      SnapshotId: snapshotId,
      Message: message,
    })),
    ProblemCount: report.problemCount,
    Problems: report.problems.map(({ owner, index, kind, snapshotIds, message }) => ({
      Owner: owner,
      BlockIndex: index,
      Kind: kind,
      SnapshotIds: snapshotIds,
      Message: message,
    })),
    Unreferenced: {
      Blocks: unreferenced.blocks,
      Bytes: unreferenced.bytes,
      Owners: unreferenced.owners.map(({ snapshotId, blocks }) => ({ SnapshotId: snapshotId, Blocks: blocks })),
    },
    RecentBlocks: report.recentBlocks,
    BeingMade: report.beingMade,
    BeingFreed: report.beingFreed,
    ...(report.dropped === undefined ? {} : { Dropped: report.dropped }),
    ...(report.notRepaired === undefined ? {} : { NotRepaired: report.notRepaired }),
  };
}

function printReport(report: CheckReport, isRepair: boolean): void {
  const { damagedManifests, problems, problemCount, unreferenced, recentBlocks, beingMade, beingFreed } = report;
  const size = sizeText(report.blocks * blockBytes);
  const read = report.blocksRead > 0 ? `, ${plural(report.blocksRead, 'block')} read` : '';
  printLine(
    `${report.location}: ${plural(report.snapshots, 'snapshot')}, ${plural(report.blocks, 'block')} (${size})${read}`,
  );
  for (const { message } of damagedManifests) printLine(printable(message));
  if (problemCount > 0) {
    const rows = problems
      .slice(0, printedMax)
      .map(({ owner, index, kind, snapshotIds }) => [`${index} of ${owner}`, kind, snapshotIds.join(' ')]);
    printTable(['BLOCK', 'IS', 'NEEDED BY'], rows);
    if (problemCount > rows.length) printLine(`… and ${problemCount - rows.length} more`);
  }
  if (unreferenced.blocks > 0) {
    const what = `${plural(unreferenced.blocks, 'block')} (${sizeText(unreferenced.bytes)}) that nothing refers to`;
    if (report.dropped !== undefined) printLine(`dropped ${report.dropped} of ${what}`);
    else printLine(isRepair ? what : `${what}; --repair drops them`);
  }
  if (report.notRepaired !== undefined) printLine(`nothing was dropped: ${report.notRepaired}`);
  if (recentBlocks > 0) printLine(`${plural(recentBlocks, 'block')} that nothing refers to yet, too young to tell`);
  if (beingMade.length > 0) printLine(`being made: ${beingMade.join(' ')}`);
  if (beingFreed.length > 0) printLine(`being deleted: ${beingFreed.join(' ')}`);
  printLine(isFine(report) ? 'everything is fine' : 'problems were found');
}

function plural(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}
