/** `coffer key usage`: what depends on a KMS key. `coffer key delete`: the end of a key, once one has seen that. */
import { createInterface } from 'node:readline/promises';
import { DescribeKeyCommand, KMSClient, ScheduleKeyDeletionCommand } from '@aws-sdk/client-kms';
import { Command } from 'commander';
import type { KeyUsage, KeyUsageInput, LastUse } from '../gateway/key-usage.ts';
import { Connection, type ConnectionOptions, withConnection } from './connection.ts';
import { CommandError, exitCodes, exitCodesHelp } from './errors.ts';
import { printable, printJson, printLine, printTable } from './output.ts';

interface UsageOptions extends ConnectionOptions {
  readonly max?: string;
  readonly json?: boolean;
}

interface DeleteOptions extends ConnectionOptions {
  readonly days?: string;
  readonly yes?: boolean;
  readonly json?: boolean;
}

/** Dependents shown to a person unless more are asked for. */
const shownDefault = 50;
/** Dependents that one request asks for. */
const pageMax = 1000;
const keyArgument = 'a key id, key ARN, alias/… or alias ARN';

export function keyCommand(): Command {
  return new Command('key').addCommand(usageCommand()).addCommand(deleteCommand());
}

function usageCommand(): Command {
  return withConnection(new Command('usage'))
    .description('List the volumes, snapshots and attachments that depend on a key, and who used it last.')
    .argument('<key>', keyArgument)
    .option('--max <count>', `how many to list (default: ${shownDefault}; with --json all)`)
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
It needs kms:DescribeKey on the key, ec2:DescribeVolumes and
ec2:DescribeSnapshots; the last use is shown to who may call
cloudtrail:LookupEvents.

Examples:
  coffer key usage alias/databases
  coffer key usage 1234abcd-12ab-34cd-56ef-1234567890ab --json
${exitCodesHelp}`,
    )
    .action(usage);
}

function deleteCommand(): Command {
  return withConnection(new Command('delete'))
    .description("Schedule the deletion of a key. What is encrypted under it can't be read any more after that.")
    .argument('<key>', keyArgument)
    .option(
      '--days <count>',
      'the waiting period, 7 to 30 days, in which cancel-key-deletion takes it back (default: 30)',
    )
    .option('--yes', 'do not ask, also when the key is in use')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Shows what depends on the key and asks first. A key on which nothing depends,
and that was not used in the 90 days that the trail keeps, is scheduled without
a question.

Examples:
  coffer key delete alias/databases
  coffer key delete 1234abcd-12ab-34cd-56ef-1234567890ab --days 7 --yes
${exitCodesHelp}`,
    )
    .action(scheduleDeletion);
}

async function usage(key: string, options: UsageOptions): Promise<void> {
  const max = countOption('--max', options.max) ?? (options.json ? Number.POSITIVE_INFINITY : shownDefault);
  const connection = new Connection(options);
  const found = await readUsage(connection, key, max);
  connection.close();
  if (options.json) printJson(found);
  else show(found, printLine);
}

async function scheduleDeletion(key: string, options: DeleteOptions): Promise<void> {
  const days = countOption('--days', options.days);
  if (days !== undefined && (days < 7 || days > 30))
    throw new CommandError('--days must be from 7 to 30', exitCodes.usage);
  const connection = new Connection(options);
  const client = new KMSClient(connection.sdkConfiguration());
  const send = connection.translate.bind(connection);
  let KeyId: string;
  if (options.yes) {
    // Without a question, whoever may delete a key need not be allowed to see what depends on it.
    const { KeyMetadata } = await send(() => client.send(new DescribeKeyCommand({ KeyId: key })));
    KeyId = KeyMetadata!.Arn!;
  } else {
    const found = await readUsage(connection, key, shownDefault);
    if (isInUse(found)) await confirm(found);
    KeyId = found.KeyArn;
  }
  const { DeletionDate, KeyState, PendingWindowInDays } = await send(() =>
    client.send(new ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays: days })),
  );
  client.destroy();
  connection.close();
  if (options.json) return printJson({ KeyId, KeyState, PendingWindowInDays, DeletionDate });
  const when = DeletionDate
    ? `on ${DeletionDate.toISOString().slice(0, 10)}`
    : `${PendingWindowInDays} days after the last of its replicas`;
  printLine(`${KeyId} will be deleted ${when}.`);
  printLine(`Until then this takes it back: aws kms cancel-key-deletion --key-id ${KeyId}`);
}

/** @throws {CommandError} unless a person at the terminal says yes */
async function confirm(found: KeyUsage): Promise<void> {
  // Questions and what they are about go beside the answer, which may be read by a program.
  show(found, (line) => process.stderr.write(`${line}\n`));
  if (!process.stdin.isTTY)
    throw new CommandError(`${lossOf(found)}, and there is no terminal to ask at; add --yes to delete it all the same`);
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await terminal
    .question(`\n${warningOf(found)} Schedule its deletion? Type yes: `)
    .finally(() => terminal.close());
  if (answer.trim().toLowerCase() !== 'yes') throw new CommandError('nothing was changed');
}

/** Everything about a key's use, with up to `max` of its dependents. */
async function readUsage(connection: Connection, key: string, max: number): Promise<KeyUsage> {
  let found: KeyUsage | undefined;
  do {
    const listed = found?.Dependents.length ?? 0;
    const body: KeyUsageInput = {
      KeyId: found?.KeyArn ?? key,
      MaxResults: Math.min(pageMax, max - listed),
      NextToken: found?.NextToken,
    };
    const page = await connection.call<KeyUsage>('DescribeKeyUsage', body);
    found = {
      ...(found ?? page),
      Dependents: [...(found?.Dependents ?? []), ...page.Dependents],
      NextToken: page.NextToken,
    };
  } while (found.NextToken !== undefined && found.Dependents.length < max);
  return found;
}

/** What else was encrypted with a key nobody can list; that it was used lately says that there may be something. */
function isInUse(found: KeyUsage): boolean {
  return hasDependents(found) || found.LastUse.Known === 'used';
}

function lossOf(found: KeyUsage): string {
  return hasDependents(found)
    ? `${summaryOf(found)} would be lost with this key`
    : 'this key was used in the last 90 days';
}

function warningOf(found: KeyUsage): string {
  return hasDependents(found)
    ? "All of this can't be read any more once the key is deleted."
    : "It was used in the last 90 days. What was encrypted with it can't be read any more once it is deleted.";
}

function hasDependents({ Counts, OtherAccounts }: KeyUsage): boolean {
  return [Counts, ...OtherAccounts].some(({ Volumes, Snapshots }) => Volumes + Snapshots > 0);
}

function show(found: KeyUsage, print: (line: string) => void): void {
  print(printable(`${found.KeyArn} (${found.KeyState}${found.Description ? `, "${found.Description}"` : ''})`));
  print(printable(lastUseOf(found.LastUse)));
  print(hasDependents(found) ? `What depends on it: ${summaryOf(found)}` : 'No volume or snapshot depends on it.');
  for (const other of found.OtherAccounts) print(`  of account ${other.Account}: ${countsOf(other)}`);
  if (found.Dependents.length === 0) return;
  print('');
  printTable(
    ['TYPE', 'ID', 'STATE', 'SIZE', 'ATTACHED TO'],
    found.Dependents.map((each) => [
      each.Type,
      each.Id,
      each.State,
      `${each.SizeGib} GiB`,
      each.Attachments.map(({ InstanceId, Device, State }) => `${InstanceId} ${Device} (${State})`).join(', '),
    ]),
    print,
  );
  const more = found.Counts.Volumes + found.Counts.Snapshots - found.Dependents.length;
  if (more > 0) print(`… and ${more} more; coffer key usage --max ${found.Dependents.length + more} lists them`);
}

function lastUseOf(use: LastUse): string {
  switch (use.Known) {
    case 'used':
      return `Last used ${use.Time}: ${use.Operation} by ${use.By}${use.Via ? ` via ${use.Via}` : ''}`;
    case 'unused':
      return 'Not used in the 90 days that the trail keeps.';
    case 'unknown':
      return `When it was last used is not known: ${use.Reason}`;
  }
}

function summaryOf({ Counts, OtherAccounts }: KeyUsage): string {
  const all = [Counts, ...OtherAccounts];
  const sum = (name: keyof typeof Counts) => all.reduce((total, each) => total + each[name], 0);
  return countsOf({ Volumes: sum('Volumes'), Snapshots: sum('Snapshots'), Attachments: sum('Attachments') });
}

function countsOf({ Volumes, Snapshots, Attachments }: KeyUsage['Counts']): string {
  const count = (number: number, what: string) => `${number} ${what}${number === 1 ? '' : 's'}`;
  const attached = Attachments > 0 ? ` (${count(Attachments, 'attachment')})` : '';
  return `${count(Volumes, 'volume')}${attached}, ${count(Snapshots, 'snapshot')}`;
}

function countOption(name: string, given: string | undefined): number | undefined {
  if (given === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(given)) throw new CommandError(`${name} must be a whole number above 0`, exitCodes.usage);
  return Number(given);
}
