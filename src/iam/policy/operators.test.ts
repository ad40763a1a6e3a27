import { BlockList } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { operators } from './operators.ts';

const isIn = (address: string, range: string) => operators.ipaddress!.matches(address, range);

describe('IpAddress', () => {
  it.each([
    ['192.0.2.7', '192.0.2.7', true],
    ['192.0.2.7', '192.0.2.0/24', true],
    ['192.0.3.7', '192.0.2.0/24', false],
    ['192.0.2.7', '0.0.0.0/0', true],
    ['::ffff:192.0.2.7', '192.0.2.0/24', true],
    ['192.0.2.7', '::ffff:192.0.2.0/24', true],
    ['2001:db8::7', '2001:db8::/32', true],
    ['2001:db9::7', '2001:db8::/32', false],
    ['2001:db8:0:0:0:0:0:7', '2001:DB8::7', true],
    ['64:ff9b::192.0.2.7', '64:ff9b::c000:207', true],
    ['fe80::1%eth0', 'fe80::/10', true],
    ['::1', '::/0', true],
    ['192.0.2.7', '::/0', false],
    ['::1', '0.0.0.0/0', false],
    ['192.0.2.7', '192.0.2.0/33', false],
    ['192.0.2.7', '192.0.2.0/', false],
    ['192.0.2.7', '192.0.2/24', false],
    ['somewhere', '0.0.0.0/0', false],
  ])('%s in %s: %s', (address, range, expected) => expect(isIn(address, range)).toBe(expected));

  it('agrees with a block list', () => {
    const agree = (address: string, network: string, prefix: number, type: 'ipv4' | 'ipv6') => {
      const list = new BlockList();
      list.addSubnet(network, prefix, type);
      expect(isIn(address, `${network}/${prefix}`)).toBe(list.check(address, type));
    };
    // Of two random networks hardly any has the other's address: short prefixes, and addresses near by.
    fc.assert(
      fc.property(fc.ipV4(), fc.ipV4(), fc.nat(32), (a, b, prefix) => {
        agree(a, b, prefix % 6, 'ipv4');
        agree(a, a.replace(/\d+$/, '77'), prefix, 'ipv4');
      }),
    );
    fc.assert(
      fc.property(fc.ipV6(), fc.ipV6(), fc.nat(128), (a, b, prefix) => {
        // A block list takes such an address for the IPv4 address within it.
        fc.pre(![a, b].some((address) => /^(0*:){1,5}:?:?ffff:/i.test(address)));
        agree(a, b, prefix % 6, 'ipv6');
        agree(a, a, prefix, 'ipv6');
      }),
    );
  });
});
