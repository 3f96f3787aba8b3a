import type { Field, Protocol } from '../../src/ir/fields.ts';
import {
  ah,
  arp,
  ethernet,
  icmp,
  icmpv6,
  internetChecksum,
  ipv4,
  ipv6,
  type Layer4,
  raw,
  tcp,
  udp,
} from './frames.ts';
import type { Random } from './random.ts';

/** Bytes behind the Ethernet header where each base starts in frames of one kind. */
interface Template {
  readonly frame: Uint8Array;
  readonly starts: Readonly<Record<'ll' | 'nh' | 'th', number>>;
}

const ETHERNET = 14;
const IPV4 = 20;
const IPV6 = 40;

function template(frame: Uint8Array, network: number, header: number): Template {
  return { frame, starts: { ll: 0, nh: network, th: network + header } };
}

function overIp(payload: Layer4): Template {
  return template(ethernet({}, ipv4({}, payload)), ETHERNET, IPV4);
}

function overIp6(payload: Layer4): Template {
  return template(ethernet({}, ipv6({}, payload)), ETHERNET, IPV6);
}

const PAYLOAD = 24; // icmpv6 daddr ends at byte 40: 16 bytes and the header's 8 before it

/** Frames in which the protocol's fields can be found, with `length` bytes behind its header. */
function templatesOf({ name, needs }: Protocol, length: number): readonly Template[] {
  const data = new Uint8Array(length);
  if (name === 'arp') return [template(ethernet({}, arp()), ETHERNET, 28)];
  if (name === 'vlan') {
    const tagged = ethernet({ tags: [{ vid: 5 }] }, ipv4({}, tcp({}, data)));
    return [template(tagged, ETHERNET + 4, IPV4)];
  }
  if (name === 'icmp') return [overIp(icmp({}, data))];
  if (name === 'icmpv6') return [overIp6(icmpv6({}, new Uint8Array(length + PAYLOAD)))];
  if (name === 'ah') return [overIp(ah(raw(99, data))), overIp6(ah(raw(99, data)))];
  if (needs.kind === 'transport' && needs.protocol !== 6 && needs.protocol !== 17) {
    const payload = raw(needs.protocol, new Uint8Array(8 + length));
    return needs.etherType === null ? [overIp(payload), overIp6(payload)] : [overIp(payload)];
  }
  if (name === 'udp') return [overIp(udp({}, data)), overIp6(udp({}, data))];
  const both = [overIp(tcp({}, data)), overIp6(tcp({}, data)), overIp(udp({}, data))];
  if (name === 'ip') return both.filter(({ starts }) => starts.th === ETHERNET + IPV4);
  if (name === 'ip6') return both.filter(({ starts }) => starts.th === ETHERNET + IPV6);
  return both;
}

/** Sets `width` bits at bit `offset`, most significant first; what lies behind the end is left. */
function writeBits(frame: Uint8Array, offset: number, width: number, value: bigint): void {
  for (let bit = 0; bit < width; bit += 1) {
    const at = offset + bit;
    const mask = 0x80 >> (at & 7);
    const isSet = ((value >> BigInt(width - 1 - bit)) & 1n) === 1n;
    const byte = frame[at >> 3];
    if (byte !== undefined) frame[at >> 3] = isSet ? byte | mask : byte & ~mask;
  }
}

function repairChecksum(frame: Uint8Array, network: number): void {
  frame.set([0, 0], network + 10);
  const sum = internetChecksum(frame.subarray(network, network + IPV4));
  frame.set([sum >> 8, sum & 0xff], network + 10);
}

/** The protocol's fields. */
export function fieldsOf({ name, base, fields }: Protocol): readonly Field[] {
  return Object.entries(fields).map(([key, [offset, width]]) => {
    return { name: `${name} ${key}`, base, offset, width } as Field; // bits by construction
  });
}

/**
 * Frames in which one field of the protocol has one of `values`, all others what they usually have;
 * some of them end somewhere behind the protocol's first byte.
 */
export function makeFieldFrames(
  random: Random,
  protocol: Protocol,
  fields: readonly Field[],
  values: (field: Field) => readonly bigint[],
): readonly Uint8Array[] {
  const templates = [0, 12].flatMap((length) => templatesOf(protocol, length));
  return fields.flatMap((field) =>
    templates.flatMap(({ frame, starts }) =>
      values(field).map((value) => {
        const changed = frame.slice();
        const start = field.base === 'meta' ? 0 : starts[field.base];
        writeBits(changed, start * 8 + field.offset, field.width, value);
        const isIp = changed[12] === 8 && changed[13] === 0;
        const isChecksum = field.name === 'ip checksum';
        if (isIp && field.base === 'nh' && !isChecksum) repairChecksum(changed, starts.nh);
        if (random.chance(0.9)) return changed;
        return changed.subarray(0, random.between(starts[protocol.base], changed.length));
      }),
    ),
  );
}
