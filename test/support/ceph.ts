/**
 * An S3 server for tests: a Ceph cluster of one monitor, one OSD and one gateway (radosgw), on loopback, in a folder of
 * its own, started by hand and ended by process id. Debian's packages ceph-mon, ceph-osd, ceph-common and radosgw have
 * the programs; settings are those that make one machine start in seconds.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './client.ts';
import { until } from './server.ts';

export interface S3Server {
  /** `http://127.0.0.1:PORT` */
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  stop(): Promise<void>;
}

export async function startCeph(): Promise<S3Server> {
  const directory = mkdtempSync(join(tmpdir(), 'coffer-ceph-'));
  const daemons: Daemon[] = [];
  const endDaemons = () => {
    for (const { process } of daemons) process.kill('SIGKILL');
  };
  process.once('exit', endDaemons);
  const stop = async () => {
    process.off('exit', endDaemons);
    // The gateway first: what it is connected to has nothing to keep.
    endDaemons();
    await Promise.all(daemons.map(({ ended }) => ended));
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    return { ...(await start(directory, daemons)), stop };
  } catch (error) {
    const logs = daemons.map(({ name, output }) => `${name}:\n${output().slice(-2000)}`).join('\n');
    await stop();
    throw new Error(`Ceph did not start: ${(error as Error).message}\n${logs}`, { cause: error });
  }
}

interface Daemon {
  readonly name: string;
  readonly process: ChildProcess;
  readonly ended: Promise<void>;
  readonly output: () => string;
}

async function start(directory: string, daemons: Daemon[]) {
  const [monitorPort, oldMonitorPort, gatewayPort] = await freePorts(3);
  const monitor = `[v2:127.0.0.1:${monitorPort},v1:127.0.0.1:${oldMonitorPort}]`;
  const [cluster, osd] = [randomUUID(), randomUUID()];
  const configuration = join(directory, 'ceph.conf');
  for (const folder of ['run', 'mon/a', 'osd/0']) mkdirSync(join(directory, folder), { recursive: true });
  writeFileSync(configuration, configurationOf(directory, cluster, monitor, gatewayPort!));
  const environment = { ...process.env, CEPH_CONF: configuration };
  const command = (program: string, ...parameters: string[]) => run(program, parameters, { env: environment });
  const daemon = (program: string, ...parameters: string[]) =>
    daemons.push(startDaemon(program, [...parameters, '--foreground'], environment));

  const keyring = join(directory, 'keyring');
  const everything = ['--cap', 'mon', 'allow *', '--cap', 'osd', 'allow *', '--cap', 'mgr', 'allow *'];
  await command('ceph-authtool', '--create-keyring', keyring, '--gen-key', '-n', 'mon.', '--cap', 'mon', 'allow *');
  for (const name of ['client.admin', 'osd.0', 'client.rgw.a']) {
    await command('ceph-authtool', keyring, '--gen-key', '-n', name, ...everything);
  }
  const map = join(directory, 'monmap');
  await command('monmaptool', '--create', '--fsid', cluster, '--addv', 'a', monitor, map);
  await command('ceph-mon', '--mkfs', '-i', 'a', '--monmap', map, '--keyring', keyring);
  daemon('ceph-mon', '-i', 'a');
  await command('ceph', 'osd', 'new', osd, '0');
  await command('ceph-osd', '-i', '0', '--mkfs', '--osd-uuid', osd);
  daemon('ceph-osd', '-i', '0');
  daemon('radosgw', '-n', 'client.rgw.a');
  const [accessKeyId, secretAccessKey] = [
    randomBytes(10).toString('hex').toUpperCase(),
    randomBytes(20).toString('hex'),
  ];
  const user = ['--uid', 'coffer', '--display-name', 'coffer', '--access-key', accessKeyId];
  await command('radosgw-admin', '-n', 'client.rgw.a', 'user', 'create', ...user, '--secret-key', secretAccessKey);
  const endpoint = `http://127.0.0.1:${gatewayPort}`;
  await until(async () => (await answerOf(endpoint)).includes('ListAllMyBuckets'), 'the gateway', 120_000);
  return { endpoint, accessKeyId, secretAccessKey };
}

function configurationOf(directory: string, cluster: string, monitor: string, gatewayPort: number): string {
  return `
[global]
fsid = ${cluster}
mon host = ${monitor}
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = ${directory}/keyring
run dir = ${directory}/run
admin socket = ${directory}/run/$name.asok
log file = ${directory}/$name.log
crash dir = ${directory}
mon data = ${directory}/mon/a
osd data = ${directory}/osd/0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon data avail crit = 1
mon data avail warn = 2
paxos propose interval = 0.05
paxos min wait = 0.01
osd objectstore = bluestore
bluestore block create = true
bluestore block size = 10737418240
osd memory target = 1073741824
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:${gatewayPort} tcp_nodelay=1
`;
}

function startDaemon(program: string, parameters: readonly string[], env: NodeJS.ProcessEnv): Daemon {
  const child = spawn(program, parameters, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output = (output + chunk).slice(-10_000);
    });
  }
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', (error) => {
      output += `${error.message}: install the Debian package that has it`;
      resolve();
    });
  });
  return { name: program, process: child, ended, output: () => output };
}

async function answerOf(endpoint: string): Promise<string> {
  try {
    return await (await fetch(endpoint)).text();
  } catch {
    return '';
  }
}

/** Free now, and below the range from which the kernel gives ports to connections: nothing takes them meanwhile. */
async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) {
    const port = 12_000 + Math.floor(Math.random() * 20_000);
    const isFree = await new Promise<boolean>((resolve) => {
      const server = createServer();
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
    });
    if (isFree) ports.add(port);
  }
  return [...ports];
}
