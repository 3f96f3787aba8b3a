import { expect, it } from 'vitest';
import { fromHex, toHex } from '../../src/support/bits.ts';
import { formatIp6, offsetAddress, parseIp, parseIp6 } from '../support/addresses.ts';
import {
  ethernet,
  extension,
  fragmentHeader,
  icmp,
  internetChecksum,
  ipv4,
  ipv6,
  raw,
  tcp,
  udp,
} from '../support/frames.ts';

function sumOf(data: Uint8Array, start = 0): number {
  return internetChecksum(data, start);
}

it('computes the Internet checksum of the example in RFC 1071', () => {
  expect(internetChecksum(fromHex('0001f203f4f5f6f7') ?? new Uint8Array())).toBe(0x220d);
});

it('gives IPv4 headers, with and without options, a checksum that verifies', () => {
  const plain = ipv4({}, udp()).data;
  const long = ipv4({ options: new Uint8Array(8).fill(1) }, udp()).data;
  expect(sumOf(plain.subarray(0, 20))).toBe(0);
  expect(sumOf(long.subarray(0, 28))).toBe(0);
  expect(long[0]).toBe(0x47);
});

it.each([
  ['tcp', tcp({}, Uint8Array.of(1, 2, 3)), 6],
  ['udp', udp({}, Uint8Array.of(1, 2, 3)), 17],
])(
  'gives %s a checksum that verifies against the pseudo header of both versions',
  (_, l4, number) => {
    const v4 = ipv4({}, l4).data;
    expect(
      sumOf(v4.subarray(20), 0x0a00 + 0x0002 + 0x0a00 + 0x0001 + number + v4.length - 20),
    ).toBe(0);
    const v6 = ipv6({}, l4).data;
    expect(sumOf(v6.subarray(40), 2 * (0x2001 + 0x0db8) + 3 + number + v6.length - 40)).toBe(0);
  },
);

it('gives ICMP a checksum over the message alone', () => {
  expect(sumOf(ipv4({}, icmp({}, Uint8Array.of(9))).data.subarray(20))).toBe(0);
});

it('writes a TCP SYN byte for byte', () => {
  const frame = ethernet({}, ipv4({}, tcp({ sport: 1000, dport: 80 })));
  expect(toHex(frame)).toBe(
    '0200000000010200000000020800' +
      '4500002800010000400666cd0a0000020a000001' +
      '03e8005000000001000000005002200077a7'.padEnd(40, '0'),
  );
});

it('chains IPv6 extension headers', () => {
  const extensions = [extension(0), fragmentHeader(1, true, 7)];
  const packet = ipv6({ extensions }, raw(17, new Uint8Array(8))).data;
  expect(packet[6]).toBe(0);
  expect(packet[40]).toBe(44);
  expect(toHex(packet.subarray(48, 56))).toBe('1100000900000007');
  expect(packet[5]).toBe(24);
});

it('puts tags outermost first, then pads', () => {
  const tags = [
    { protocol: 0x88a8, vid: 5 },
    { vid: 7, pcp: 1 },
  ];
  const frame = ethernet({ tags, padTo: 60 }, ipv4({}, raw(253)));
  expect(toHex(frame.subarray(12, 22))).toBe('88a8000581002007' + '0800');
  expect(frame.length).toBe(60);
});

it('reads and writes addresses', () => {
  expect(parseIp('10.0.0.1')).toEqual(Uint8Array.of(10, 0, 0, 1));
  expect(formatIp6(parseIp6('2001:db8::1'))).toBe('2001:db8:0:0:0:0:0:1');
  expect(offsetAddress(parseIp('10.0.0.0'), -1)).toEqual(parseIp('9.255.255.255'));
  expect(offsetAddress(parseIp('10.0.0.255'), 1)).toEqual(parseIp('10.0.1.0'));
});
