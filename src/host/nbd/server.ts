// An NBD server for one export on one Unix socket. The socket is 0600 in a directory that is 0700: who may open it is
// decided by the file system, so there is no other authentication.

import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { libc } from '../../blocks/libc.ts';
import type { Device } from '../devices/device.ts';
import { Handshake } from './handshake.ts';
import type { ExportDescription } from './protocol.ts';
import { type Accounts, Transmission } from './transmission.ts';
import { Wire } from './wire.ts';

export interface ServerLimits {
  /** Connections at a time; further ones are closed at once. */
  readonly connections: number;
  /** Time for a client to finish negotiation. */
  readonly handshakeMs: number;
}

/** sockaddr_un.sun_path on Linux, less the final zero. */
const maxSocketPathBytes = 107;

export const defaultLimits: ServerLimits = { connections: 64, handshakeMs: 10_000 };

export interface NbdServer {
  readonly connections: number;
  /** Takes no more connections and requests, finishes those under way within `graceMs`, and closes all connections. */
  close(graceMs: number): Promise<void>;
}

interface Connection {
  end(): void;
  destroy(): void;
}

/**
 * Listens on `socketPath` (whatever lies there is replaced; the caller knows that no other server uses it) and serves
 * `device` to all who connect, keeping `accounts`. `description` is asked for each connection. Throws when the path is too long for a socket, or can't be used.
 */
export async function listenNbd(
  socketPath: string,
  device: Device,
  description: () => ExportDescription,
  accounts: Accounts,
  limits: ServerLimits = defaultLimits,
): Promise<NbdServer> {
  const connections = new Set<Connection>();
  let emptied: (() => void) | undefined;
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    if (connections.size >= limits.connections) {
      socket.destroy();
      return;
    }
    const fd = takeDescriptor(socket);
    if (fd === undefined) return;
    const connection = serve(fd, device, description(), accounts, limits, () => {
      connections.delete(connection);
      accounts.connections = connections.size;
      if (connections.size === 0) emptied?.();
    });
    connections.add(connection);
    accounts.connections = connections.size;
  });
  await listen(server, socketPath);
  return {
    get connections() {
      return connections.size;
    },
    async close(graceMs) {
      server.close();
      for (const connection of connections) connection.end();
      if (connections.size > 0) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(() => {
            for (const connection of connections) connection.destroy();
          }, graceMs);
          emptied = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
    },
  };
}

function serve(
  fd: number,
  device: Device,
  description: ExportDescription,
  accounts: Accounts,
  limits: ServerLimits,
  closed: () => void,
): Connection {
  const handshake = new Handshake(description);
  let transmission: Transmission | undefined;
  let ending = false;
  const timer = setTimeout(() => wire.destroy(), limits.handshakeMs);

  const negotiate = (): boolean => {
    const step = handshake.consume(wire.input.bytes.subarray(wire.start, wire.end));
    wire.start += step.consumed;
    if (!say(step.output) || step.next === 'close') {
      // The timer goes on: it ends a client that does not take its last answers.
      ending = true;
      wire.finish();
      return false;
    }
    if (step.next === 'more') return true;
    clearTimeout(timer);
    transmission = new Transmission(wire, device, handshake.negotiated(), description, accounts);
    return transmission.pump();
  };
  // A client that does not read the answers to its options runs out of room, and out of luck.
  const say = (parts: readonly Buffer[]): boolean => {
    for (const part of parts) {
      if (wire.room < part.length) return false;
      wire.length += part.copy(wire.output.bytes, wire.length);
    }
    wire.send();
    return true;
  };
  const wire = new Wire(fd, libc(), {
    received: () => !ending && (transmission ? transmission.pump() : negotiate()),
    drained: () => transmission?.proceed(),
    closed: () => {
      clearTimeout(timer);
      closed();
    },
  });
  say([handshake.greeting()]);
  return {
    end: () => (transmission ? transmission.end() : wire.destroy()),
    destroy: () => wire.destroy(),
  };
}

/**
 * Takes a connection's descriptor out of the socket object that Node made for it, so that it can be wrapped in one that
 * receives into our memory. Node offers no public way to get at it; `_handle.fd` has been there since version 0.10.
 * Undefined, and the connection dropped, when the process has no descriptors left.
 */
function takeDescriptor(socket: Socket): number | undefined {
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const own = libc().duplicate(fd);
  socket.destroy();
  return own < 0 ? undefined : own;
}

async function listen(server: Server, socketPath: string): Promise<void> {
  if (Buffer.byteLength(socketPath) > maxSocketPathBytes) {
    throw new Error(`the path of a Unix socket has at most ${maxSocketPathBytes} bytes; this is longer: ${socketPath}`);
  }
  mkdirSync(dirname(socketPath), { recursive: true, mode: 0o700 });
  rmSync(socketPath, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socketPath, () => {
      server.off('error', reject);
      // Out of descriptors: the client sees its connection refused, those that exist go on.
      server.on('error', () => {});
      resolve();
    });
  });
  chmodSync(socketPath, 0o600);
}
