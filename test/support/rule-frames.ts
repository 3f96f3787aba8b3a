import type { Classifier } from '../../src/ir/classifier.ts';
import { fieldKey, findField, META } from '../../src/ir/fields.ts';
import { boxesOf } from '../../src/ir/match-boxes.ts';

/** Numbers below a limit, the same every time. */
export type Numbers = (below: number) => number;

/** Mulberry32. */
export function createNumbers(seed: number): Numbers {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

function keyOf(protocol: string, name: string): string {
  const field = findField(protocol, name);
  if (field === null) throw new Error(`bug: no field ${protocol} ${name}`);
  return fieldKey(field);
}

const SOURCE = [keyOf('ip', 'saddr'), keyOf('ip6', 'saddr')];
const DESTINATION = [keyOf('ip', 'daddr'), keyOf('ip6', 'daddr')];
const SOURCE_PORT = keyOf('th', 'sport');
const DESTINATION_PORT = keyOf('th', 'dport');

function draw(next: Numbers, lo: bigint, hi: bigint): bigint {
  let random = 0n;
  for (let word = 0; word < 4; word += 1) random = (random << 32n) | BigInt(next(2 ** 32));
  return lo + (random % (hi - lo + 1n));
}

function bytesOf(value: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let rest = value;
  for (let at = length - 1; at >= 0; at -= 1) {
    bytes[at] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return bytes;
}

/** A frame with these fields; TCP or UDP, without payload. */
function frameOf(
  isIp6: boolean,
  source: bigint,
  destination: bigint,
  protocol: number,
  ports: readonly [number, number],
): Uint8Array {
  const size = isIp6 ? 16 : 4;
  const header = isIp6 ? 40 : 20;
  const frame = new Uint8Array(14 + header + 20);
  const view = new DataView(frame.buffer);
  frame.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
  view.setUint16(12, isIp6 ? 0x86dd : 0x0800);
  view.setUint8(14, isIp6 ? 0x60 : 0x45);
  view.setUint16(isIp6 ? 18 : 16, isIp6 ? 20 : 40);
  view.setUint8(isIp6 ? 20 : 23, protocol);
  frame.set(bytesOf(source, size), isIp6 ? 22 : 26);
  frame.set(bytesOf(destination, size), (isIp6 ? 22 : 26) + size);
  view.setUint16(14 + header, ports[0]);
  view.setUint16(16 + header, ports[1]);
  return frame;
}

/**
 * Frames of mixed traffic: four in five meet what a random rule asks for (an earlier one may match all
 * the same), the others are random.
 */
export function mixFrames(
  { entries }: Classifier,
  count: number,
  isIp6: boolean,
  seed = 1,
): Uint8Array[] {
  const next = createNumbers(seed);
  const rules = entries.filter(({ rule }) => rule !== null);
  const top = isIp6 ? (1n << 128n) - 1n : 0xffffffffn;
  return Array.from({ length: count }, () => {
    const values = new Map<string, bigint>();
    const rule = next(5) === 0 ? undefined : rules[next(rules.length)];
    for (const test of rule?.tests ?? []) {
      const boxes = boxesOf(test) ?? [];
      for (const { field, lo, hi } of boxes[next(boxes.length)] ?? []) {
        values.set(fieldKey(field), draw(next, lo, hi));
      }
    }
    const pick = (keys: readonly string[], hi: bigint): bigint => {
      const known = keys.map((key) => values.get(key)).find((value) => value !== undefined);
      return known ?? draw(next, 0n, hi);
    };
    const protocol = Number(values.get(META.l4proto.name) ?? (next(3) === 0 ? 17n : 6n));
    return frameOf(isIp6, pick(SOURCE, top), pick(DESTINATION, top), protocol, [
      Number(pick([SOURCE_PORT], 0xffffn)),
      Number(pick([DESTINATION_PORT], 0xffffn)),
    ]);
  });
}
