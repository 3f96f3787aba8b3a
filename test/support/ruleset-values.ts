import { writeUint } from '../../src/support/bits.ts';
import { formatIp, formatIp6 } from './addresses.ts';
import { EMPTY_POOL, type FramePool } from './frame-pool.ts';
import type { Random } from './random.ts';

/** What a field's values are like: their width, the text nft reads, the values worth naming. */
export interface ValueKind {
  readonly bits: number;
  format(value: bigint): string;
  readonly favourites: readonly bigint[];
  /** Where frames find the values that rules mention; null when no frame field is made from them. */
  readonly pool: keyof FramePool | null;
  /** From the rule's value to the frame's. */
  readonly shift: number;
  /** Values that nft takes; all of `bits` when left out. */
  readonly most?: bigint;
}

function list(...values: readonly number[]): readonly bigint[] {
  return values.map(BigInt);
}

function decimal(value: bigint): string {
  return value.toString();
}

function hexadecimal(value: bigint): string {
  return `0x${value.toString(16)}`;
}

function mac(value: bigint): string {
  return [...writeUint(value, 6)].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

// 10.0.0.0/23 is the lab's, the others are for documentation (RFC 5737, RFC 3849).
const IP = list(0x0a000001, 0x0a000002, 0x0a000003, 0x0a000080, 0x0a00014d, 0xc0000207, 0xc6336401);
const IP6_NET = 0x20010db8n << 96n;
const IP6 = [1n, 2n, 3n, 0x80n, (1n << 64n) | 0x77n, (7n << 80n) | 9n].map((low) => IP6_NET | low);

const PLAIN = { format: decimal, shift: 0 } as const;

/** All kinds of values. */
export const VALUE_KINDS = {
  ip: {
    ...{ bits: 32, favourites: IP, pool: 'ip', shift: 0 },
    format: (value) => formatIp(writeUint(value, 4)),
  },
  rawIp: { bits: 32, favourites: IP, pool: 'ip', shift: 0, format: hexadecimal },
  ip6: {
    ...{ bits: 128, favourites: IP6, pool: 'ip6', shift: 0 },
    format: (value) => formatIp6(writeUint(value, 16)),
  },
  mac: {
    ...{ bits: 48, pool: 'mac', shift: 0, format: mac },
    favourites: [
      0x020000000001n,
      0xffffffffffffn,
      0x01005e000001n,
      0x333300000001n,
      0x021111111111n,
    ],
  },
  port: {
    ...PLAIN,
    ...{ bits: 16, pool: 'ports' },
    favourites: list(22, 53, 80, 443, 1024, 4789, 8080, 49152),
  },
  protocol: {
    ...PLAIN,
    ...{ bits: 8, pool: 'protocols' },
    favourites: list(1, 6, 17, 47, 50, 51, 58, 132, 6, 17),
  },
  etherType: {
    ...{ bits: 16, pool: 'etherTypes', shift: 0, format: hexadecimal },
    favourites: list(0x0800, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x88cc, 0x8847),
  },
  vlan: { ...PLAIN, bits: 12, pool: 'vlans', favourites: list(0, 1, 5, 7, 100) },
  pcp: { ...PLAIN, bits: 3, pool: null, favourites: list(0, 1, 7) },
  icmpType: {
    ...PLAIN,
    ...{ bits: 8, pool: 'icmpTypes' },
    favourites: list(0, 3, 8, 13, 128, 129, 133, 135, 136),
  },
  tcpFlags: {
    ...{ bits: 8, pool: 'tcpFlags', shift: 0, format: hexadecimal },
    favourites: list(0x02, 0x12, 0x10, 0x18, 0x04, 0x11, 0x01),
  },
  byte: { ...PLAIN, bits: 8, pool: 'bytes', favourites: list(1, 63, 64, 128, 255) },
  rawByte: {
    ...{ bits: 8, pool: 'bytes', shift: 0, format: hexadecimal },
    favourites: list(0, 0x45, 0x60, 1, 64),
  },
  dscp: { ...PLAIN, bits: 6, pool: 'bytes', shift: 2, favourites: list(8, 16, 46) },
  word: {
    ...PLAIN,
    ...{ bits: 16, pool: 'words' },
    favourites: list(0, 28, 40, 60, 64, 100, 8192, 0x4000, 0x2000),
  },
  flowLabel: { ...PLAIN, bits: 20, pool: 'flowLabels', favourites: list(0, 1, 80, 0x12345) },
} as const satisfies Record<string, ValueKind>;

export type ValueKindName = keyof typeof VALUE_KINDS;

/** Values from `lo` to `hi`, both included. */
export interface Interval {
  readonly lo: bigint;
  readonly hi: bigint;
}

/** Remembers each value that a ruleset mentions, by where frames would carry it. */
export interface PoolBuilder {
  add(kind: ValueKind, ...values: readonly bigint[]): void;
  build(): FramePool;
}

/** A pool that grows with the ruleset. */
export function createPoolBuilder(): PoolBuilder {
  const seen = new Map<keyof FramePool, Set<bigint>>();
  const numbers = (key: keyof FramePool) => [...(seen.get(key) ?? [])].map(Number);
  const addresses = (key: keyof FramePool, length: number) =>
    [...(seen.get(key) ?? [])].map((value) => writeUint(value, length));
  return {
    add(kind, ...values) {
      if (kind.pool === null) return;
      const known = seen.get(kind.pool) ?? new Set<bigint>();
      for (const value of values) known.add(value << BigInt(kind.shift));
      seen.set(kind.pool, known);
    },
    build: () => ({
      ...EMPTY_POOL,
      ...{ ip: addresses('ip', 4), ip6: addresses('ip6', 16), mac: addresses('mac', 6) },
      ...{ ports: numbers('ports'), protocols: numbers('protocols'), vlans: numbers('vlans') },
      ...{ etherTypes: numbers('etherTypes'), icmpTypes: numbers('icmpTypes') },
      ...{ tcpFlags: numbers('tcpFlags'), bytes: numbers('bytes'), words: numbers('words') },
      flowLabels: numbers('flowLabels'),
    }),
  };
}

function ones(bits: number): bigint {
  return (1n << BigInt(bits)) - 1n;
}

/** One value: mostly a favourite, else one near a favourite or any. */
export function pickValue(random: Random, kind: ValueKind): bigint {
  const favourite = random.pick(kind.favourites);
  const roll = random.below(20);
  if (roll < 14) return favourite;
  if (roll < 18) return (favourite + BigInt(random.below(16))) & ones(kind.bits);
  return random.bytes(16).reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n) & ones(kind.bits);
}

/** A value, a short range or a prefix around one. */
export function pickInterval(random: Random, kind: ValueKind): Interval {
  const lo = pickValue(random, kind);
  const roll = random.below(10);
  if (roll < 5 || kind.bits < 8) return { lo, hi: lo };
  if (roll < 7) {
    const hi = lo + BigInt(1 + random.below(kind.bits < 16 ? 8 : 300));
    return hi > ones(kind.bits) ? { lo, hi: lo } : { lo, hi };
  }
  const free = ones(1 + random.below(Math.min(10, kind.bits - 4)));
  return { lo: lo & (ones(kind.bits) ^ free), hi: lo | free };
}

/** Up to `count` values or intervals that do not overlap; never none. */
export function pickDisjoint(
  random: Random,
  kind: ValueKind,
  count: number,
  ranges: boolean,
): readonly Interval[] {
  const chosen: Interval[] = [];
  for (let tries = 0; chosen.length === 0 || tries < count; tries += 1) {
    const value = pickValue(random, kind);
    const next = ranges ? pickInterval(random, kind) : { lo: value, hi: value };
    if (chosen.every((other) => next.hi < other.lo || next.lo > other.hi)) chosen.push(next);
  }
  return chosen;
}

/** As nft reads it: a value, `lo-hi`, or a prefix where addresses allow one. */
export function formatInterval(random: Random, kind: ValueKind, { lo, hi }: Interval): string {
  if (lo === hi) return kind.format(lo);
  const free = lo ^ hi;
  const isPrefix = (free & (free + 1n)) === 0n && (lo & free) === 0n;
  if (isPrefix && (kind.pool === 'ip' || kind.pool === 'ip6') && random.chance(0.7)) {
    return `${kind.format(lo)}/${kind.bits - free.toString(2).length}`;
  }
  return `${kind.format(lo)}-${kind.format(hi)}`;
}
