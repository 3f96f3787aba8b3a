import { expect, it } from 'vitest';
import { parsePacket, type View } from '../../src/ir/packet.ts';
import { fromHex } from '../../src/support/bits.ts';
import {
  ah,
  arp,
  type EthernetFields,
  type Extension,
  esp,
  ethernet,
  extension,
  fragmentHeader,
  type Ipv4Fields,
  type Ipv6Fields,
  icmpv6,
  ipv4,
  ipv6,
  raw,
  type Tag,
  tcp,
  udp,
} from '../support/frames.ts';

const HBH = extension(0);
const DEST = extension(60);
const ROUTING = extension(43);
const LATER = fragmentHeader(5);

function v4(fields: Ipv4Fields = {}, link: EthernetFields = {}): Uint8Array {
  return ethernet(link, ipv4(fields, tcp()));
}

function v6(fields: Ipv6Fields = {}, link: EthernetFields = {}): Uint8Array {
  return ethernet(link, ipv6(fields, tcp()));
}

function chain(...extensions: readonly Extension[]): Uint8Array {
  return v6({ extensions });
}

/** A frame with some bytes replaced. */
function patch(frame: Uint8Array, offset: number, ...bytes: readonly number[]): Uint8Array {
  const patched = frame.slice();
  patched.set(bytes, offset);
  return patched;
}

function without({ frame: _, ...rest }: View): Omit<View, 'frame'> {
  return rest;
}

const TAGGED_5 = v4({}, { tags: [{ vid: 5 }] });

it.each([
  ['13 bytes', v4().subarray(0, 13), 'packet/short'],
  ['nothing', new Uint8Array(0), 'packet/short'],
  ['5 bytes behind the tag', TAGGED_5.subarray(0, 19), 'packet/cut-tag'],
  ['two tags, second cut', patch(TAGGED_5, 16, 0x81, 0).subarray(0, 19), 'packet/cut-tag'],
  ['802.3 length', v4({}, { type: 0x05ff }), 'packet/length-field'],
  ['802.3 length in a tag', patch(TAGGED_5, 16, 0, 46), 'packet/length-field'],
  ['ip: 19 bytes', v4().subarray(0, 33), 'packet/ipv4-cut'],
  ['ip: version 6', v4({ version: 6 }), 'packet/ipv4-version'],
  ['ip: ihl 0', v4({ ihl: 0 }), 'packet/ipv4-header-length'],
  ['ip: ihl 4', v4({ ihl: 4 }), 'packet/ipv4-header-length'],
  ['ip: total length 0', v4({ totalLength: 0 }), 'packet/ipv4-total-length'],
  ['ip: ihl beyond total length', v4({ ihl: 15 }), 'packet/ipv4-total-length'],
  ['ip: total length beyond the frame', v4({ totalLength: 41 }), 'packet/ipv4-truncated'],
  ['ip6: 39 bytes', v6().subarray(0, 53), 'packet/ipv6-cut'],
  ['ip6: version 4', v6({ version: 4 }), 'packet/ipv6-version'],
  ['ip6: payload length 0', v6({ payloadLength: 0 }), 'packet/ipv6-no-payload'],
  [
    'ip6: nothing behind the header, and none announced',
    ethernet({}, ipv6({ nextHeader: 59 }, raw(59))),
    'packet/ipv6-no-payload',
  ],
  ['ip6: payload beyond the frame', v6({ payloadLength: 21 }), 'packet/ipv6-truncated'],
  [
    'ip6: options header of 7 bytes',
    ethernet({}, ipv6({ nextHeader: 60 }, raw(60, new Uint8Array(7)))),
    'packet/ipv6-extension-cut',
  ],
  [
    'ip6: options beyond the payload but inside the frame',
    patch(v6({ extensions: [DEST], payloadLength: 8 }), 55, 1),
    'packet/ipv6-extension-cut',
  ],
  [
    'ip6: AH of 7 bytes',
    ethernet({}, ipv6({}, raw(51, new Uint8Array(7)))),
    'packet/ipv6-extension-cut',
  ],
  ['ip6: later fragment', chain(LATER), 'packet/ipv6-later-fragment'],
  ['ip6: later fragment behind options', chain(HBH, LATER), 'packet/ipv6-later-fragment'],
  ['ip6: seven headers', chain(...Array.from({ length: 7 }, () => DEST)), 'packet/ipv6-extensions'],
  [
    'ip6: AH as the seventh header',
    ethernet({}, ipv6({ extensions: Array.from({ length: 6 }, () => DEST) }, ah(tcp()))),
    'packet/ipv6-extensions',
  ],
])('calls a frame odd: %s', (_, frame, code) => {
  expect(parsePacket(frame).odd).toBe(code);
});

it.each([
  ['ip', v4()],
  ['ip with options', v4({ options: new Uint8Array(40).fill(1) })],
  ['ip later fragment', v4({ fragmentOffset: 1 })],
  ['ip, header only', v4({ totalLength: 20 })],
  ['ip, wrong checksum', v4({ checksum: 1 })],
  ['ip, padded', v4({}, { padTo: 60 })],
  ['one tag', TAGGED_5],
  ['two tags', v4({}, { tags: [{ vid: 5 }, { vid: 6 }] })],
  ['two tags, nothing behind', patch(TAGGED_5, 16, 0x81, 0).subarray(0, 20)],
  ['arp', ethernet({}, arp())],
  ['unknown EtherType 0600', v4({}, { type: 0x0600 })],
  ['nothing behind the EtherType', v4({}, { type: 0x0806 }).subarray(0, 14)],
  ['ip6', v6()],
  ['ip6 with six headers', chain(HBH, DEST, ROUTING, fragmentHeader(), DEST, DEST)],
  ['ip6 first fragment', chain(fragmentHeader(0, true))],
  ['ip6 no next header', ethernet({}, ipv6({}, raw(59, new Uint8Array(1))))],
])('does not call a frame odd: %s', (_, frame) => {
  expect(parsePacket(frame).odd).toBeNull();
});

it('sees a plain IPv4 packet alike at ingress and at layer 3', () => {
  const packet = parsePacket(v4());
  const view = {
    protocol: 0x0800,
    nfproto: 2,
    network: 14,
    end: 54,
    l4proto: 6,
    transport: 34,
    fragment: 'whole',
    length: 40,
  };
  expect(without(packet.ingress)).toEqual(view);
  expect(packet.l3 && without(packet.l3)).toEqual(view);
  expect(packet).toMatchObject({ noL3: null, tags: 0, fragment: 'whole', checksum: true });
});

it('counts padding at ingress and trims it at layer 3', () => {
  const { ingress, l3 } = parsePacket(v4({}, { padTo: 60 }));
  expect([ingress.length, ingress.end]).toEqual([46, 60]);
  expect([l3?.length, l3?.end, l3?.frame.length]).toEqual([40, 54, 54]);
});

it('bounds transport loads by the frame at ingress and by the total length at layer 3', () => {
  const { ingress, l3 } = parsePacket(v4({ totalLength: 20 }));
  expect([ingress.transport, ingress.end]).toEqual([34, 54]);
  expect([l3?.transport, l3?.end]).toEqual([34, 34]);
});

it('puts the transport header behind IPv4 options', () => {
  const { ingress, l3 } = parsePacket(v4({ options: new Uint8Array(40).fill(1) }));
  expect([ingress.transport, l3?.transport]).toEqual([74, 74]);
});

it.each([
  ['8100 vid 5', { vid: 5 }],
  ['88a8 vid 7', { protocol: 0x88a8, vid: 7 }],
] satisfies [string, Tag][])('looks through one tag: %s', (_, tag) => {
  const frame = v4({}, { tags: [tag] });
  const packet = parsePacket(frame);
  expect(without(packet.ingress)).toMatchObject({
    protocol: 0x0800,
    network: 18,
    end: 58,
    l4proto: 6,
    transport: 38,
    length: 40,
  });
  expect(packet.ingress.frame).toBe(frame);
  expect(packet).toMatchObject({ noL3: null, tags: 1 });
  // A VLAN device shows the packet without its tag.
  expect(packet.l3).toMatchObject({ protocol: 0x0800, network: 14, end: 54, transport: 34 });
});

it.each([0x8100, 0x88a8])('removes a priority tag before layer 3: %i', (protocol) => {
  const packet = parsePacket(v4({}, { tags: [{ protocol, vid: 0, pcp: 3 }], padTo: 64 }));
  expect(packet.tags).toBe(1);
  expect(packet.ingress).toMatchObject({ network: 18, length: 46 });
  expect(packet.l3?.frame).toEqual(v4());
  expect(packet.l3).toMatchObject({ network: 14, transport: 34, end: 54, length: 40 });
});

it.each([
  ['8100 in 8100', 0x8100, 0x8100],
  ['8100 in 88a8', 0x88a8, 0x8100],
  ['88a8 in 8100', 0x8100, 0x88a8],
])('stops at the second tag: %s', (_, outer, inner) => {
  const tags = [
    { protocol: outer, vid: 5 },
    { protocol: inner, vid: 6 },
  ];
  const packet = parsePacket(v4({}, { tags }));
  expect(without(packet.ingress)).toEqual({
    protocol: inner,
    nfproto: 5,
    network: 18,
    end: 62,
    l4proto: null,
    transport: null,
    fragment: 'whole',
    length: 44,
  });
  expect([...packet.ingress.frame.subarray(18, 20)]).toEqual([0, 6]);
  expect(packet).toMatchObject({ l3: null, noL3: 'undecided', tags: 2, checksum: true });
});

it.each([
  ['lengths are LLC', v4({}, { type: 46 }), 0x0004],
  ['ffff behind the length is raw 802.3', patch(v4({}, { type: 46 }), 14, 0xff, 0xff), 0x0001],
])('gives 802.3 frames a protocol of their own: %s', (_, frame, protocol) => {
  expect(parsePacket(frame).ingress).toMatchObject({ protocol, network: 14, l4proto: null });
});

it('shows the protocol instead of the length behind a tag, as the kernel puts the tag back', () => {
  const frame = patch(TAGGED_5, 16, 0, 46);
  const { ingress } = parsePacket(frame);
  expect(ingress.frame).toEqual(patch(frame, 16, 0, 4));
});

it.each([
  ['arp', ethernet({}, arp()), 0x0806],
  ['lldp', v4({}, { type: 0x88cc }), 0x88cc],
])('has only link and network loads for other protocols: %s', (_, frame, protocol) => {
  const packet = parsePacket(frame);
  expect(packet.ingress).toMatchObject({ protocol, network: 14, l4proto: null, transport: null });
  expect(packet).toMatchObject({ l3: null, noL3: 'not-ip', checksum: true });
});

it.each([
  ['ip: ihl 4', v4({ ihl: 4 })],
  ['ip: ihl beyond total length', v4({ ihl: 15 })],
  ['ip: version', v4({ version: 5 })],
  ['ip: total length beyond the frame', v4({ totalLength: 100 })],
  ['ip: total length 0', v4({ totalLength: 0 })],
  ['ip: cut at 19 bytes', v4().subarray(0, 33)],
  ['ip6: version', v6({ version: 4 })],
  ['ip6: payload beyond the frame', v6({ payloadLength: 100 })],
])('keeps network loads of malformed packets at ingress only: %s', (_, frame) => {
  const packet = parsePacket(frame);
  expect(packet.ingress).toMatchObject({
    network: 14,
    end: frame.length,
    l4proto: null,
    transport: null,
  });
  expect(packet).toMatchObject({ l3: null, noL3: 'malformed' });
});

it.each([
  ['right', v4(), true],
  ['right with options', v4({ options: new Uint8Array(8).fill(1) }), true],
  ['right behind a tag', TAGGED_5, true],
  ['wrong', v4({ checksum: 0x1234 }), false],
  ['zero', v4({ checksum: 0 }), false],
  ['of a cut header', v4({ ihl: 15, checksum: 0 }), false],
  ['ip6 has none', v6(), true],
])('verifies the header checksum: %s', (_, frame, right) => {
  const packet = parsePacket(frame);
  expect(packet.checksum).toBe(right);
});

it.each([
  ['whole', {}, 'whole'],
  ['do not fragment', { dontFragment: true }, 'whole'],
  ['reserved bit', { reservedBit: true }, 'whole'],
  ['more fragments', { moreFragments: true }, 'first'],
  ['middle', { moreFragments: true, fragmentOffset: 1 }, 'later'],
  ['last', { fragmentOffset: 185 }, 'later'],
] satisfies [string, Ipv4Fields, string][])(
  'names the IPv4 fragment: %s',
  (_, fields, fragment) => {
    const packet = parsePacket(v4(fields));
    expect(packet.fragment).toBe(fragment);
    expect(packet.l3).toMatchObject({ fragment, l4proto: 6, transport: 34 });
  },
);

it.each([
  ['none', [], 6, 54, 'whole'],
  ['hop-by-hop', [HBH], 6, 62, 'whole'],
  ['destination options', [DEST], 6, 62, 'whole'],
  ['long destination options', [extension(60, new Uint8Array(22))], 6, 78, 'whole'],
  ['routing', [ROUTING], 6, 62, 'whole'],
  ['atomic fragment', [fragmentHeader()], 6, 62, 'first'],
  ['first fragment', [fragmentHeader(0, true)], 6, 62, 'first'],
  ['any order', [DEST, fragmentHeader(), HBH, ROUTING], 6, 86, 'first'],
  ['nine', Array.from({ length: 9 }, () => DEST), 6, 126, 'whole'],
] satisfies [string, Extension[], number, number, string][])(
  'walks IPv6 extension headers on both views: %s',
  (_, extensions, l4proto, transport, fragment) => {
    const { ingress, l3 } = parsePacket(chain(...extensions));
    expect(ingress).toMatchObject({ l4proto, transport, fragment, nfproto: 10 });
    expect(l3).toMatchObject({ l4proto, transport, fragment });
  },
);

it.each([
  ['ah', ah(tcp()), 51],
  ['esp', esp(), 50],
  ['no next header', raw(59, new Uint8Array(8)), 59],
  ['mobility', raw(135, new Uint8Array(8)), 135],
  ['host identity', raw(139, new Uint8Array(8)), 139],
  ['shim6', raw(140, new Uint8Array(8)), 140],
  ['experimental', raw(253, new Uint8Array(8)), 253],
  ['icmpv6', icmpv6(), 58],
  ['udp', udp(), 17],
])('ends the IPv6 walk at %s', (_, content, l4proto) => {
  const packet = parsePacket(ethernet({}, ipv6({ extensions: [DEST] }, content)));
  expect(packet.odd).toBeNull();
  expect(packet.ingress).toMatchObject({ l4proto, transport: 62 });
  expect(packet.l3).toMatchObject({ l4proto, transport: 62 });
});

it('starts transport loads of a later IPv6 fragment at the IPv6 header', () => {
  const frame = fromHex(
    `${'02'.repeat(12)}86dd 60000050 00202c40 ${'00'.repeat(32)} 0600000800000006 ${'ff'.repeat(24)}`,
  );
  const packet = parsePacket(frame ?? new Uint8Array());
  expect(packet.ingress).toMatchObject({ fragment: 'later', l4proto: 6, transport: 14 });
  expect(packet.fragment).toBe('later');
});

it('has no transport for a later IPv6 fragment of an extension header', () => {
  const packet = parsePacket(chain(LATER, DEST));
  expect(packet.ingress).toMatchObject({ fragment: 'later', l4proto: null, transport: null });
});

it('still names the header behind one that runs past the packet, without its bytes', () => {
  const frame = patch(chain(DEST), 55, 200);
  const { ingress } = parsePacket(frame);
  expect(ingress).toMatchObject({ l4proto: 6, transport: frame.length, end: frame.length });
});

it.each([
  ['shorter than the frame', { payloadLength: 4 }, 74, 58, 44],
  ['zero', { payloadLength: 0 }, 74, 54, 40],
])('trims IPv6 to its payload length at layer 3: %s', (_, fields, atIngress, atL3, length) => {
  const { ingress, l3 } = parsePacket(v6(fields));
  expect([ingress.end, ingress.length, ingress.transport]).toEqual([atIngress, 60, 54]);
  expect(l3).toMatchObject({ end: atL3, length, l4proto: 6, transport: 54 });
});
