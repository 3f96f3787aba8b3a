import { offsetAddress, parseIp, parseIp6, parseMac } from './addresses.ts';
import { LAB_ADDRESSES, LAB_MAC } from './lab-network.ts';
import type { Random } from './random.ts';

/** Values worth having in a frame: those that the ruleset under test mentions. Lists may be empty. */
export interface FramePool {
  readonly ip: readonly Uint8Array[];
  readonly ip6: readonly Uint8Array[];
  readonly mac: readonly Uint8Array[];
  readonly ports: readonly number[];
  /** `meta l4proto`, `ip protocol`, `ip6 nexthdr`. */
  readonly protocols: readonly number[];
  readonly etherTypes: readonly number[];
  readonly vlans: readonly number[];
  /** ICMP and ICMPv6 types and codes. */
  readonly icmpTypes: readonly number[];
  readonly tcpFlags: readonly number[];
  /** TTL, hop limit, DSCP shifted into place, and raw bytes. */
  readonly bytes: readonly number[];
  /** IP length and ID, TCP window, and raw 16-bit values. */
  readonly words: readonly number[];
  readonly flowLabels: readonly number[];
}

/** A pool with nothing in it: all values are the lab's own or random. */
export const EMPTY_POOL: FramePool = {
  ip: [],
  ip6: [],
  mac: [],
  ports: [],
  protocols: [],
  etherTypes: [],
  vlans: [],
  icmpTypes: [],
  tcpFlags: [],
  bytes: [],
  words: [],
  flowLabels: [],
};

const OWN_IP = parseIp(LAB_ADDRESSES.eth0.ip);
const OWN_IP6 = parseIp6(LAB_ADDRESSES.eth0.ip6);

/** Own, broadcast, multicast, forwarded and unroutable destinations. */
export const SPECIAL_IP: readonly Uint8Array[] = [
  ...['10.0.1.1', '10.0.1.77', '10.0.0.77', '255.255.255.255', '10.0.0.255', '224.0.0.1'],
  ...['239.1.2.3', '127.0.0.1', '0.0.0.0', '240.0.0.1', '192.0.2.1', '169.254.1.1'],
].map(parseIp);

/** As `SPECIAL_IP`, for IPv6. */
export const SPECIAL_IP6: readonly Uint8Array[] = [
  ...['2001:db8:1::1', '2001:db8:1::77', '2001:db8::77', 'ff02::1', 'ff02::2', 'ff01::1'],
  ...['ff00::1', 'ff02::1:ff00:1', 'ff02::1:ff00:2', 'fe80::1', 'fe80::ff:fe00:1', '::1', '::'],
  ...['::ffff:a00:2', 'ff05::1:3', '2001:db8:2::1'],
].map(parseIp6);

/** Broadcast, multicast, group and foreign destinations. */
export const SPECIAL_MAC: readonly Uint8Array[] = [
  ...['ff:ff:ff:ff:ff:ff', '01:00:5e:00:00:01', '33:33:00:00:00:01', '01:80:c2:00:00:0e'],
  ...['02:11:11:11:11:11'],
].map(parseMac);

/** A pool value three times of five, else one beside it, one of `common`, or anything. */
export function pickNumber(
  random: Random,
  values: readonly number[],
  common: readonly number[],
  limit: number,
): number {
  const roll = random.below(20);
  if (values.length > 0 && roll < 12) return random.pick(values) % limit;
  if (values.length > 0 && roll < 15) {
    return (random.pick(values) + (random.chance(0.5) ? 1 : limit - 1)) % limit;
  }
  return common.length > 0 && roll < 18 ? random.pick(common) : random.below(limit);
}

function pickFrom(
  random: Random,
  values: readonly Uint8Array[],
  special: readonly Uint8Array[],
  near: Uint8Array,
): Uint8Array {
  const roll = random.below(20);
  if (values.length > 0 && roll < 11) return random.pick(values);
  if (values.length > 0 && roll < 14) {
    return offsetAddress(random.pick(values), random.chance(0.5) ? 1 : -1);
  }
  const rest = random.below(10);
  if (rest < 2) return random.pick(special);
  if (rest < 4) return random.bytes(near.length);
  const neighbour = near.slice();
  neighbour[neighbour.length - 1] = 2 + random.below(250);
  return neighbour;
}

/** A source: from the pool, beside it, on the lab's network, special or random. */
export function pickIp(random: Random, pool: FramePool): Uint8Array {
  return pickFrom(random, pool.ip, SPECIAL_IP, OWN_IP);
}

/** As `pickIp`, for IPv6. */
export function pickIp6(random: Random, pool: FramePool): Uint8Array {
  return pickFrom(random, pool.ip6, SPECIAL_IP6, OWN_IP6);
}

/** A destination: the lab itself two times of five, so that input is reached. */
export function pickIpDestination(random: Random, pool: FramePool): Uint8Array {
  return random.chance(0.4) ? OWN_IP : pickIp(random, pool);
}

/** As `pickIpDestination`, for IPv6. */
export function pickIp6Destination(random: Random, pool: FramePool): Uint8Array {
  return random.chance(0.4) ? OWN_IP6 : pickIp6(random, pool);
}

/** A destination MAC: the lab's, nine times of ten. */
export function pickMac(random: Random, pool: FramePool): Uint8Array {
  if (random.chance(0.9)) return LAB_MAC;
  return pool.mac.length > 0 && random.chance(0.5)
    ? random.pick(pool.mac)
    : random.pick(SPECIAL_MAC);
}
