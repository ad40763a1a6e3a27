import { lookup } from 'node:dns/promises';
import { BlockList, isIPv6 } from 'node:net';

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

/** Whether every address that `host` stands for is this machine's own loopback. */
async function isLoopback(host: string): Promise<boolean> {
  const addresses = await lookup(host, { all: true });
  return addresses.every(({ address, family }) => loopback.check(address, family === 6 ? 'ipv6' : 'ipv4'));
}

/**
 * Refuses to serve beyond this machine without TLS: requests carry session tokens, and answers carry data keys.
 * @throws with what to do instead
 */
export async function requireSafeAddress(host: string, hasTls: boolean): Promise<void> {
  if (hasTls || (await isLoopback(host))) return;
  throw new Error(
    `refusing to listen on ${host} without TLS: data keys would cross the network unprotected. ` +
      'Give a certificate and its key (--tls-cert FILE --tls-key FILE), or listen on 127.0.0.1.',
  );
}

/** The URL that clients on this machine use. */
export function endpointOf(host: string, port: number, hasTls: boolean): string {
  const isWildcard = host === '0.0.0.0' || host === '::';
  const name = isWildcard ? 'localhost' : isIPv6(host) ? `[${host}]` : host;
  return `${hasTls ? 'https' : 'http'}://${name}:${port}`;
}
