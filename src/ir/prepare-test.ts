import { type Field, FRAME, fieldEnd, META } from './fields.ts';
import { applyOperand, isPlain, splitKey, testedFields } from './operand.ts';
import type { Packet, View } from './packet.ts';
import type { Operand, SetElements, Test } from './ruleset.ts';

/** Whether a test holds; unknown when nobody can tell from the frame. */
export type Truth = boolean | 'unknown';

/**
 * A loaded value: a number up to NARROW bits, else a bigint. Never negative, so that the load's own
 * results fit in.
 */
type Loaded = number | bigint;
const FAILED = -1;
const UNKNOWN = -2;

/** Widest value kept as a number: exact in a double, and a MAC address fits. */
const NARROW = 48;
/** JavaScript's bitwise operators work on 32 bits. */
const WORD = 32;

// include/uapi/linux/if_packet.h.
const PACKET_HOST = 0;
const PACKET_BROADCAST = 1;
const PACKET_MULTICAST = 2;
const PACKET_OTHERHOST = 3;

type Load = (view: View, packet: Packet, pkttype: number) => Loaded;
/** A test as a function; `pkttype` is what `pkttypeOf` gives for the packet. */
export type PreparedTest = (view: View, packet: Packet, pkttype: number) => Truth;

const FRAGMENTS = { whole: 0, first: 1, later: 2 } as const;

/** Metadata that the frame determines; all other is folded before or unknown. */
const META_LOADS: Readonly<Record<string, Load>> = {
  [META.protocol.name]: (view) => view.protocol,
  [META.nfproto.name]: (view) => view.nfproto,
  [META.l4proto.name]: (view) => view.l4proto ?? FAILED,
  [META.length.name]: (view) => view.length,
  [META.pkttype.name]: (_view, _packet, pkttype) => pkttype,
  [FRAME.tags.name]: (_view, packet) => packet.tags,
  [FRAME.fragment.name]: (_view, packet) => FRAGMENTS[packet.fragment],
  [FRAME.checksum.name]: (_view, packet) => (packet.checksum ? 1 : 0),
};

/** Where a payload load starts, or why it does not. */
const STARTS: Readonly<Record<'ll' | 'nh' | 'th', (view: View) => number>> = {
  ll: () => 0,
  nh: (view) => view.network,
  th: (view) => {
    if (view.transport === null) return FAILED;
    return view.fragment === 'later' ? UNKNOWN : view.transport;
  },
};

function prepareLoad(field: Field): Load {
  if (field.base === 'meta') return META_LOADS[field.name] ?? (() => UNKNOWN);
  const startOf = STARTS[field.base];
  const first = Math.floor(field.offset / 8);
  const end = fieldEnd(field);
  const read = (end - first) * 8 <= NARROW ? prepareNarrowRead(field) : prepareWideRead(field);
  return (view) => {
    const start = startOf(view);
    if (start < 0) return start;
    return start + end > view.end ? FAILED : read(view.frame, start + first);
  };
}

function readNarrow(data: Uint8Array, offset: number, length: number): number {
  let value = 0;
  for (let at = offset; at < offset + length; at += 1) value = value * 256 + (data[at] ?? 0);
  return value;
}

type Read = (data: Uint8Array, offset: number) => Loaded;

function prepareNarrowRead(field: Field): Read {
  const length = fieldEnd(field) - Math.floor(field.offset / 8);
  if (length * 8 === field.width) return (data, offset) => readNarrow(data, offset, length);
  const low = 2 ** (fieldEnd(field) * 8 - field.offset - field.width);
  const size = 2 ** field.width;
  return (data, offset) => Math.floor(readNarrow(data, offset, length) / low) % size;
}

function prepareWideRead(field: Field): Read {
  const length = fieldEnd(field) - Math.floor(field.offset / 8);
  const head = length % 4;
  const low = BigInt(fieldEnd(field) * 8 - field.offset - field.width);
  const narrow = field.width <= NARROW;
  return (data, offset) => {
    let value = BigInt(readNarrow(data, offset, head));
    for (let at = offset + head; at < offset + length; at += 4) {
      value = (value << 32n) | BigInt(readNarrow(data, at, 4));
    }
    const cut = BigInt.asUintN(field.width, value >> low);
    return narrow ? Number(cut) : cut;
  };
}

function prepareOperand(operand: Operand): Load {
  const load = prepareLoad(operand.field);
  if (isPlain(operand)) return load;
  const { width } = operand.field;
  if (width > WORD || operand.shift !== 0) {
    return (view, packet, pkttype) => {
      const loaded = load(view, packet, pkttype);
      if (loaded < 0) return loaded;
      const value = applyOperand(operand, BigInt(loaded));
      return width <= NARROW ? Number(value) : value;
    };
  }
  const mask = Number(operand.mask);
  const xor = Number(operand.xor);
  return (view, packet, pkttype) => {
    const loaded = Number(load(view, packet, pkttype));
    return loaded < 0 ? loaded : ((loaded & mask) ^ xor) >>> 0;
  };
}

/** Whether a set has an element for the key, one value a part. */
type Contains = (key: readonly Loaded[]) => boolean;

function narrowKey(value: bigint, width: number): Loaded {
  return width <= NARROW ? Number(value) : value;
}

/** All elements are single keys: a hash look-up of the joined key. */
function prepareExact({ parts, lo }: SetElements): Contains {
  const total = parts.reduce((sum, width) => sum + width, 0);
  const keys = new Set(lo.map((key) => narrowKey(key, total)));
  if (total <= NARROW) {
    return (key) => {
      let joined = 0;
      for (const [part, width] of parts.entries()) {
        joined = joined * 2 ** width + Number(key[part] ?? 0);
      }
      return keys.has(joined);
    };
  }
  return (key) => {
    let joined = 0n;
    for (const [part, width] of parts.entries()) {
      joined = (joined << BigInt(width)) | BigInt(key[part] ?? 0);
    }
    return keys.has(joined);
  };
}

interface Box {
  readonly lo: readonly Loaded[];
  readonly hi: readonly Loaded[];
}

function compareLoaded(a: Loaded, b: Loaded): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

function inBox(box: Box, key: readonly Loaded[]): boolean {
  for (const [part, value] of key.entries()) {
    if (value < (box.lo[part] ?? 0) || value > (box.hi[part] ?? 0)) return false;
  }
  return true;
}

/**
 * Elements sorted by the first part's low end. The look-up starts at the last one that may hold the
 * key and walks down until no earlier one reaches that far (one step when there is one part).
 */
function prepareRanged({ parts, lo, hi }: SetElements): Contains {
  const split = (key: bigint) =>
    splitKey(parts, key).map((value, part) => narrowKey(value, parts[part] ?? 0));
  const boxes: Box[] = lo.map((key, index) => ({ lo: split(key), hi: split(hi[index] ?? key) }));
  boxes.sort((a, b) => compareLoaded(a.lo[0] ?? 0, b.lo[0] ?? 0));
  const starts = boxes.map((box) => box.lo[0] ?? 0);
  const reach: Loaded[] = [];
  let farthest: Loaded = -1;
  for (const { hi: end } of boxes) {
    const here = end[0] ?? 0;
    if (here > farthest) farthest = here;
    reach.push(farthest);
  }
  return (key) => {
    const first = key[0] ?? 0;
    let from = 0;
    let to = starts.length;
    while (from < to) {
      const middle = (from + to) >>> 1;
      if ((starts[middle] ?? 0) <= first) from = middle + 1;
      else to = middle;
    }
    for (let index = from - 1; index >= 0; index -= 1) {
      if ((reach[index] ?? -1) < first) return false;
      const box = boxes[index];
      if (box !== undefined && inBox(box, key)) return true;
    }
    return false;
  };
}

const preparedSets = new WeakMap<SetElements, Contains>();

function prepareSet(elements: SetElements): Contains {
  const known = preparedSets.get(elements);
  if (known !== undefined) return known;
  const { lo, hi } = elements;
  const exact = hi === lo || lo.every((key, index) => key === hi[index]);
  const contains = exact ? prepareExact(elements) : prepareRanged(elements);
  preparedSets.set(elements, contains);
  return contains;
}

function prepareCompare(test: Extract<Test, { kind: 'compare' }>): PreparedTest {
  const load = prepareOperand(test.operand);
  const { width } = test.operand.field;
  const { negated } = test;
  if (width > NARROW) {
    const { lo, hi } = test;
    return (view, packet, pkttype) => {
      const value = load(view, packet, pkttype);
      if (value < 0) return value === UNKNOWN ? 'unknown' : false;
      return (value >= lo && value <= hi) !== negated;
    };
  }
  const lo = Number(test.lo);
  const hi = Number(test.hi);
  return (view, packet, pkttype) => {
    const value = load(view, packet, pkttype);
    if (value < 0) return value === UNKNOWN ? 'unknown' : false;
    return (value >= lo && value <= hi) !== negated;
  };
}

/** Whether some element agrees with all parts of a key that are known. */
function mayContain({ parts, lo, hi }: SetElements, key: readonly Loaded[]): boolean {
  return lo.some((low, index) => {
    const from = splitKey(parts, low);
    const to = splitKey(parts, hi[index] ?? low);
    return key.every((value, part) => {
      return value === UNKNOWN || (value >= (from[part] ?? 0n) && value <= (to[part] ?? 0n));
    });
  });
}

function prepareLookup(test: Extract<Test, { kind: 'lookup' }>): PreparedTest {
  const loads = test.key.map(prepareOperand);
  const contains = test.set.unknown === null ? prepareSet(test.set.elements) : null;
  return (view, packet, pkttype) => {
    const key: Loaded[] = [];
    let known = true;
    for (const load of loads) {
      const value = load(view, packet, pkttype);
      if (value === FAILED) return false;
      if (value === UNKNOWN) known = false;
      key.push(value);
    }
    if (contains === null) return 'unknown';
    if (known) return contains(key) !== test.negated;
    // Whatever the others are, and also where one of them cannot be loaded.
    return test.negated || mayContain(test.set.elements, key) ? 'unknown' : false;
  };
}

/** Without the device's address a unicast frame is host or other: certain if both agree. */
function prepareForBoth(test: PreparedTest): PreparedTest {
  return (view, packet, pkttype) => {
    if (pkttype !== UNKNOWN) return test(view, packet, pkttype);
    const host = test(view, packet, PACKET_HOST);
    return host === test(view, packet, PACKET_OTHERHOST) ? host : 'unknown';
  };
}

const preparedTests = new WeakMap<Test, PreparedTest>();

/**
 * Prepares a test for many packets. A load beyond the view makes it false, negated or not, and that
 * wins over what is unknown. Prepared tests and sets are kept as long as the data they come from.
 */
export function prepareTest(test: Test): PreparedTest {
  const known = preparedTests.get(test);
  if (known !== undefined) return known;
  const usesType = testedFields(test).some((field) => field.name === META.pkttype.name);
  const plain = prepareKind(test);
  const prepared = usesType ? prepareForBoth(plain) : plain;
  preparedTests.set(test, prepared);
  return prepared;
}

function prepareKind(test: Test): PreparedTest {
  switch (test.kind) {
    case 'compare':
      return prepareCompare(test);
    case 'lookup':
      return prepareLookup(test);
    case 'unknown':
      return () => 'unknown';
  }
}

/**
 * `meta pkttype`, which only the destination MAC decides; negative when a unicast frame comes in
 * and the device's own address is not known.
 */
export function pkttypeOf({ frame }: Packet, mac: bigint | null): number {
  const destination = readNarrow(frame, 0, 6);
  if (destination === 2 ** 48 - 1) return PACKET_BROADCAST;
  if (((frame[0] ?? 0) & 1) === 1) return PACKET_MULTICAST;
  if (mac === null) return UNKNOWN;
  return destination === Number(mac) ? PACKET_HOST : PACKET_OTHERHOST;
}
