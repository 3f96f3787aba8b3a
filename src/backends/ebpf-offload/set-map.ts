import { isPlain, splitKey } from '../../ir/operand.ts';
import type { Operand, SetElements } from '../../ir/ruleset.ts';
import { ones, writeUint } from '../../support/bits.ts';
import type { Dialect } from './dialect.ts';
import type { Lookup } from './lookup-key.ts';
import type { MapDefinition } from './maps.ts';
import { levelRanges, type Prefix } from './prefix-levels.ts';
import { isExact } from './set-key.ts';

/**
 * How a part of a key stands in a map: its bytes as the frame has them (`raw`), or a number in the
 * machine's own order (little-endian); filled up with zeros to whole words of 4 bytes.
 */
export interface KeyPart {
  readonly operand: Operand;
  readonly raw: boolean;
  /** Byte where it starts. */
  readonly at: number;
  readonly bytes: number;
}

/** One look-up of a set: which bits of the key count. */
export interface Level {
  /** By part, in the field's own order. */
  readonly masks: readonly bigint[];
}

/** A set as a hash map. Where there are several levels, the level's number is the key's last word. */
export interface SetMap {
  readonly definition: MapDefinition;
  readonly parts: readonly KeyPart[];
  /** Longest masks first. */
  readonly levels: readonly Level[];
  readonly keys: readonly Uint8Array[];
  /** The set's name in nft, for people. */
  readonly name: string | null;
}

/** Every value means the same: the key is in the set. */
export const SET_VALUE = Uint8Array.of(1, 0, 0, 0);

/** Entries a set may grow to for fewer look-ups: eight times as many, or what fits a small map. */
const GROWTH = 8;
const SMALL_MAP = 4096;

function isRaw(operand: Operand): boolean {
  const { base, offset, width } = operand.field;
  return base !== 'meta' && isPlain(operand) && offset % 8 === 0 && width % 8 === 0;
}

function layParts(key: readonly Operand[]): { parts: KeyPart[]; bytes: number } {
  const parts: KeyPart[] = [];
  let at = 0;
  for (const operand of key) {
    const bytes = Math.ceil(operand.field.width / 32) * 4;
    parts.push({ operand, raw: isRaw(operand), at, bytes });
    at += bytes;
  }
  return { parts, bytes: at };
}

/** A part's value (or mask) as its bytes in the key. */
export function encodePart({ operand, raw, bytes }: KeyPart, value: bigint): Uint8Array {
  const data = new Uint8Array(bytes);
  if (raw) data.set(writeUint(value, operand.field.width / 8));
  else data.set(writeUint(value, bytes).reverse());
  return data;
}

/** Every element as prefixes by part, few lengths in all; null: too many. */
function levelElements(
  elements: SetElements,
  most: number,
): readonly (readonly (readonly Prefix[])[])[] | null {
  const { parts, lo, hi } = elements;
  const lows = lo.map((key) => splitKey(parts, key));
  const highs = hi === lo ? lows : hi.map((key) => splitKey(parts, key));
  const byPart = parts.map((width, part) => {
    const ranges = lows.map(
      (low, i) => [low[part] ?? 0n, highs[i]?.[part] ?? 0n] as const,
    );
    return levelRanges(width, ranges, most);
  });
  const known = byPart.filter((levels) => levels !== null);
  if (known.length < byPart.length) return null;
  return lo.map((_, i) => known.map((levels) => levels[i] ?? []));
}

function product(parts: readonly (readonly Prefix[])[]): Prefix[][] {
  return parts.reduce<Prefix[][]>(
    (rows, prefixes) => rows.flatMap((row) => prefixes.map((prefix) => [...row, prefix])),
    [[]],
  );
}

function countKeys(levelled: readonly (readonly (readonly Prefix[])[])[]): number {
  return levelled.reduce(
    (sum, parts) => sum + parts.reduce((keys, prefixes) => keys * prefixes.length, 1),
    0,
  );
}

function keysOf(elements: SetElements, most: number): readonly (readonly Prefix[])[] | null {
  const { parts, lo } = elements;
  if (isExact(elements)) {
    if (lo.length > most) return null;
    return lo.map((key) =>
      splitKey(parts, key).map((value, part) => ({ length: parts[part] ?? 0, value })),
    );
  }
  const wanted = Math.min(most, Math.max(lo.length * GROWTH, SMALL_MAP));
  for (const limit of [wanted, most]) {
    const levelled = levelElements(elements, limit);
    if (levelled === null || countKeys(levelled) > limit) continue;
    return levelled.flatMap(product);
  }
  return null;
}

function maskOf(width: number, length: number): bigint {
  return ones(width) ^ ones(width - length);
}

/** A set as a hash map, or null where the device's maps cannot hold it. */
export function mapSet({ key, set }: Lookup, { hashMaps }: Dialect, name: string): SetMap | null {
  if (hashMaps === null || key.some(({ field }) => field.width > 128)) return null;
  const { elements } = set;
  const prefixes = keysOf(elements, hashMaps.maxEntries);
  if (prefixes === null) return null;
  const { parts, bytes } = layParts(key);
  const lengthsOf = (row: readonly Prefix[]): string => row.map(({ length }) => length).join(' ');
  const groups = new Map<string, (readonly Prefix[])[]>();
  for (const row of prefixes) {
    const group = groups.get(lengthsOf(row));
    if (group === undefined) groups.set(lengthsOf(row), [row]);
    else group.push(row);
  }
  const sorted = [...groups.values()].sort((a, b) => compareLengths(b[0] ?? [], a[0] ?? []));
  const keySize = bytes + (sorted.length > 1 ? 4 : 0);
  if (Math.ceil(keySize / 8) * 8 + 8 > hashMaps.maxElementBytes) return null;
  const keys = new Map<string, Uint8Array>();
  for (const [level, rows] of sorted.entries()) {
    for (const row of rows) {
      const data = new Uint8Array(keySize);
      for (const [part, { value }] of row.entries()) {
        const place = parts[part];
        if (place !== undefined) data.set(encodePart(place, value), place.at);
      }
      if (sorted.length > 1) new DataView(data.buffer).setUint32(bytes, level, true);
      keys.set(data.join(), data);
    }
  }
  const levels = sorted.map(([row]) => ({
    masks: (row ?? []).map(({ length }, part) => maskOf(elements.parts[part] ?? 0, length)),
  }));
  const definition: MapDefinition = {
    ...{ name, type: 'hash', keySize, valueSize: SET_VALUE.length },
    ...{ maxEntries: keys.size, flags: 0 },
  };
  return { definition, parts, levels, keys: [...keys.values()], name: set.name };
}

function compareLengths(a: readonly Prefix[], b: readonly Prefix[]): number {
  for (const [part, { length }] of a.entries()) {
    const other = b[part]?.length ?? 0;
    if (length !== other) return length - other;
  }
  return 0;
}
