/** `coffer trail`: who did what, from the audit record. */
import { CloudTrailClient, type Event, type LookupAttribute, LookupEventsCommand } from '@aws-sdk/client-cloudtrail';
import { Command, Option } from 'commander';
import { Connection, type ConnectionOptions, withConnection } from './connection.ts';
import { CommandError, exitCodes, exitCodesHelp } from './errors.ts';
import { printJsonLine, printTable } from './output.ts';

interface TrailOptions extends ConnectionOptions {
  readonly event?: string;
  readonly resource?: string;
  readonly user?: string;
  readonly service?: string;
  readonly since?: string;
  readonly until?: string;
  readonly max: string;
  readonly json?: boolean;
}

const pageMax = 50;
const keyId = /^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32})$/;

export function trailCommand(): Command {
  return withConnection(new Command('trail'))
    .option('--event <name>', 'calls of one operation (Decrypt)')
    .option('--resource <name>', 'calls about one resource (vol-…, a key id, alias/…, an ARN)')
    .option('--user <name>', 'calls by one user')
    .option('--service <source>', 'calls to one service (kms)')
    .option('--since <time>', 'from this time on (2026-01-31T12:00:00Z)')
    .option('--until <time>', 'up to this time')
    .addOption(new Option('--max <count>', 'how many').default('20', '20'))
    .option('--json', 'print whole CloudTrail records, one JSON document per line')
    .addHelpText(
      'after',
      `\nExamples:\n  coffer trail --event Decrypt\n  coffer trail --resource vol-0123456789abcdef0 --json\n${exitCodesHelp}`,
    )
    .action(trail);
}

async function trail(options: TrailOptions): Promise<void> {
  const max = Number(options.max);
  if (!Number.isInteger(max) || max < 1)
    throw new CommandError('--max must be a whole number above 0', exitCodes.usage);
  const [StartTime, EndTime] = [parseTime('--since', options.since), parseTime('--until', options.until)];
  requireOne(options);
  const connection = new Connection(options);
  const attributes = await lookupAttributes(options, connection);
  const client = new CloudTrailClient(connection.sdkConfiguration());
  const found: Event[] = [];
  let NextToken: string | undefined;
  do {
    const page = await connection.translate(() =>
      client.send(
        new LookupEventsCommand({
          LookupAttributes: attributes,
          StartTime,
          EndTime,
          MaxResults: Math.min(pageMax, max - found.length),
          NextToken,
        }),
      ),
    );
    found.push(...(page.Events ?? []));
    NextToken = page.NextToken;
  } while (NextToken && found.length < max);
  client.destroy();
  connection.close();
  if (options.json) for (const event of found) printJsonLine(JSON.parse(event.CloudTrailEvent ?? '{}'));
  else printTable(['TIME', 'SERVICE', 'CALL', 'WHO', 'ERROR', 'RESOURCES'], found.map(row));
}

function row(event: Event): string[] {
  const record = JSON.parse(event.CloudTrailEvent ?? '{}') as {
    userIdentity?: { arn?: string; type?: string; invokedBy?: string };
    errorCode?: string;
  };
  const { arn, type, invokedBy } = record.userIdentity ?? {};
  return [
    event.EventTime?.toISOString().replace('.000Z', 'Z') ?? '',
    (event.EventSource ?? '').replace('.amazonaws.com', ''),
    event.EventName ?? '',
    [arn?.split(':').slice(5).join(':') ?? type, invokedBy].filter(Boolean).join(' via '),
    record.errorCode ?? '',
    (event.Resources ?? []).map(({ ResourceName }) => shortName(ResourceName ?? '')).join(', '),
  ];
}

/** What an ARN names: `alias/mine`, but of keys, volumes and the like only the id. */
function shortName(name: string): string {
  const last = name.split(':').pop()!;
  return last.startsWith('alias/') ? last : last.split('/').pop()!;
}

/** CloudTrail takes one attribute a lookup. */
function requireOne({ event, resource, user, service }: TrailOptions): void {
  if ([event, resource, user, service].filter((given) => given !== undefined).length > 1)
    throw new CommandError('a lookup takes one of --event, --resource, --user and --service', exitCodes.usage);
}

async function lookupAttributes(
  { event, resource, user, service }: TrailOptions,
  connection: Connection,
): Promise<LookupAttribute[] | undefined> {
  if (event !== undefined) return [{ AttributeKey: 'EventName', AttributeValue: event }];
  if (user !== undefined) return [{ AttributeKey: 'Username', AttributeValue: user }];
  if (resource !== undefined)
    return [{ AttributeKey: 'ResourceName', AttributeValue: await fullName(resource, connection) }];
  if (service !== undefined)
    return [
      { AttributeKey: 'EventSource', AttributeValue: service.includes('.') ? service : `${service}.amazonaws.com` },
    ];
  return undefined;
}

/** The trail names keys and aliases by ARN; the table, and people, by less. */
async function fullName(resource: string, connection: Connection): Promise<string> {
  const kind = resource.startsWith('alias/') ? '' : keyId.test(resource) ? 'key/' : undefined;
  if (kind === undefined) return resource;
  const { GetCallerIdentityCommand, STSClient } = await import('@aws-sdk/client-sts');
  const sts = new STSClient(connection.sdkConfiguration());
  const { Account } = await connection.translate(() => sts.send(new GetCallerIdentityCommand({})));
  sts.destroy();
  return `arn:aws:kms:${connection.region}:${Account}:${kind}${resource}`;
}

function parseTime(option: string, text: string | undefined): Date | undefined {
  if (text === undefined) return undefined;
  const time = new Date(text);
  if (Number.isNaN(time.getTime()))
    throw new CommandError(
      `${option} ${JSON.stringify(text)} is not a time such as 2026-01-31T12:00:00Z`,
      exitCodes.usage,
    );
  return time;
}
