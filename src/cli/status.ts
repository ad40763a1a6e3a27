/** `coffer status`: is the server there, are its hosts, what do they hold. */
import {
  DescribeInstancesCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  EC2Client,
} from '@aws-sdk/client-ec2';
import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { Command } from 'commander';
import { Connection, type ConnectionOptions, withConnection } from './connection.ts';
import { exitCodesHelp } from './errors.ts';
import { printJson, printLine, printTable } from './output.ts';

/** What the operation DescribeHosts tells of each host. */
interface HostStatus {
  readonly HostId: string;
  readonly Connected: boolean;
  readonly LastSeen?: string;
  readonly Zones?: readonly string[] | string;
  readonly Version?: string;
  readonly DataDirectory?: string;
  /** Where it keeps snapshots. */
  readonly BlockStore?: string | null;
  /** Why it gets no work on snapshots. */
  readonly BlockStoreProblem?: string | null;
}

export function statusCommand(): Command {
  return withConnection(new Command('status'))
    .option('--json', 'print JSON')
    .addHelpText('after', `\nExamples:\n  coffer status\n  coffer status --data /srv/coffer --json\n${exitCodesHelp}`)
    .action(status);
}

async function status(options: ConnectionOptions & { json?: boolean }): Promise<void> {
  const connection = new Connection(options);
  const sts = new STSClient(connection.sdkConfiguration());
  const ec2 = new EC2Client(connection.sdkConfiguration());
  const { identity, volumes, snapshots, instances } = await connection.translate(async () => ({
    identity: await sts.send(new GetCallerIdentityCommand({})),
    volumes: await countStates(async (NextToken) => {
      const page = await ec2.send(new DescribeVolumesCommand({ NextToken, MaxResults: 500 }));
      return { states: page.Volumes?.map((volume) => volume.State ?? '') ?? [], next: page.NextToken };
    }),
    snapshots: await countStates(async (NextToken) => {
      const page = await ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'], NextToken, MaxResults: 1000 }));
      return { states: page.Snapshots?.map((snapshot) => snapshot.State ?? '') ?? [], next: page.NextToken };
    }).catch(orUndefined('InvalidAction')),
    instances: await countStates(async (NextToken) => {
      const page = await ec2.send(new DescribeInstancesCommand({ NextToken, MaxResults: 500 }));
      const found = page.Reservations?.flatMap((reservation) => reservation.Instances ?? []) ?? [];
      return { states: found.map((instance) => instance.State?.Name ?? ''), next: page.NextToken };
    }),
  }));
  const hosts = await describeHosts(connection);
  sts.destroy();
  ec2.destroy();
  connection.close();

  const { endpoint, region } = connection;
  if (options.json) {
    printJson({
      Endpoint: endpoint.url,
      Account: identity.Account,
      Region: region,
      Hosts: hosts,
      Volumes: volumes,
      Snapshots: snapshots,
      Instances: instances,
    });
    return;
  }
  printTable(
    ['SERVER', endpoint.url],
    [
      ['account', `${identity.Account}, ${identity.Arn}`],
      ['region', region],
      ['volumes', counted(volumes)],
      ...(snapshots ? [['snapshots', counted(snapshots)]] : []),
      ['instances', counted(instances)],
    ],
  );
  if (!hosts) return;
  printLine();
  if (hosts.length === 0) printLine('No host has been here yet: volumes are attached where one runs (coffer host).');
  else showHosts(hosts);
}

function showHosts(hosts: readonly HostStatus[]): void {
  printTable(
    ['HOST', 'STATE', 'LAST SEEN', 'ZONES', 'VERSION', 'DATA', 'SNAPSHOTS'],
    hosts.map((host) => [
      host.HostId,
      host.Connected ? 'connected' : 'away',
      host.LastSeen ?? '',
      [host.Zones ?? ''].flat().join(' '),
      host.Version ?? '',
      host.DataDirectory ?? '',
      host.BlockStore ?? '',
    ]),
  );
  for (const host of hosts)
    if (host.Connected && host.BlockStoreProblem)
      printLine(`\n${host.HostId} gets no work on snapshots: ${host.BlockStoreProblem}.`);
}

/** The hosts, which only the operator may see: undefined for anyone else. */
async function describeHosts(connection: Connection): Promise<readonly HostStatus[] | undefined> {
  try {
    return (await connection.call<{ Hosts: readonly HostStatus[] }>('DescribeHosts', {})).Hosts;
  } catch (error) {
    if (/AccessDenied/.test((error as Error).message)) return undefined;
    throw error;
  }
}

async function countStates(
  readPage: (token: string | undefined) => Promise<{ states: string[]; next: string | undefined }>,
): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  let token: string | undefined;
  do {
    const { states, next } = await readPage(token);
    for (const state of states) counts[state] = (counts[state] ?? 0) + 1;
    token = next;
  } while (token);
  return counts;
}

/** A server of an earlier version, which is yet to be restarted, does not know all operations. */
function orUndefined(errorName: string): (error: Error) => undefined {
  return (error) => {
    if (error.name === errorName) return undefined;
    throw error;
  };
}

function counted(counts: Record<string, number>): string {
  const parts = Object.entries(counts).map(([state, count]) => `${count} ${state}`);
  return parts.length === 0 ? 'none' : parts.join(', ');
}
