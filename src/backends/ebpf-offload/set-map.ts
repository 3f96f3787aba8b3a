import { isPlain, joinKey, splitKey } from '../../ir/operand.ts';
import type { Operand, SetElements } from '../../ir/ruleset.ts';
import { ones, writeUint } from '../../support/bits.ts';
import { chooseLengths } from './choose-lengths.ts';
import type { Dialect } from './dialect.ts';
import type { Lookup } from './lookup-key.ts';
import type { MapDefinition } from './maps.ts';
import { expandPrefix, type Prefix, splitRange } from './prefix-levels.ts';
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
  /** By level, the keys as the set has them, each once; see `keysOf`. */
  readonly values: readonly (readonly bigint[])[];
  /** Bits of the parts in these values. */
  readonly widths: readonly number[];
  /** The set's name in nft, for people. */
  readonly name: string | null;
}

/** Every value means the same: the key is in the set. */
export const SET_VALUE = Uint8Array.of(1, 0, 0, 0);

/** Entries a set may grow to for fewer look-ups: eight times as many, or what is little anyway. */
const GROWTH = 8;
const SMALL_MAP = 4096;
/** The same where parts multiply. */
const SMALL_PRODUCT = 65_536;
/** Look-ups for one set, beyond which it is better asked as code. */
const MOST_LEVELS = 32;
/** Entries beyond which no set grows, even where it takes too many look-ups: filling takes time. */
const MOST_KEYS = 262_144;

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

/** Keys of which the same bits count: of each part so many, from its start. */
interface Group {
  readonly lengths: readonly number[];
  readonly values: Set<bigint>;
}

/** A prefix of each part. */
type Row = readonly Prefix[];

function product(parts: readonly (readonly Prefix[])[]): Row[] {
  return parts.reduce<Row[]>(
    (rows, prefixes) => rows.flatMap((row) => prefixes.map((prefix) => [...row, prefix])),
    [[]],
  );
}

/** All elements as prefixes, by their lengths; null where there are more than `most`. */
function splitElements({ parts, lo, hi }: SetElements, most: number): readonly Row[][] | null {
  const groups = new Map<string, Row[]>();
  let count = 0;
  for (const [index, key] of lo.entries()) {
    const highs = splitKey(parts, hi[index] ?? key);
    const prefixes = splitKey(parts, key).map((low, part) =>
      splitRange(parts[part] ?? 0, low, highs[part] ?? low),
    );
    count += prefixes.reduce((total, { length }) => total * length, 1);
    if (count > most) return null;
    for (const row of product(prefixes)) {
      const name = row.map(({ length }) => length).join();
      const group = groups.get(name);
      if (group === undefined) groups.set(name, [row]);
      else group.push(row);
    }
  }
  return [...groups.values()];
}

/** Every key, by what counts of it; null where there are more than the device's maps hold. */
function groupKeys(elements: SetElements, most: number): readonly Group[] | null {
  const { parts, lo } = elements;
  if (lo.length > most) return null;
  if (isExact(elements)) return [{ lengths: parts, values: new Set(lo) }];
  const rows = splitElements(elements, most);
  if (rows === null) return null;
  const small = parts.length === 1 ? SMALL_MAP : SMALL_PRODUCT;
  const kinds = rows.map((group) => ({
    lengths: (group[0] ?? []).map(({ length }) => length),
    keys: group.length,
  }));
  const targets = chooseLengths(kinds, MOST_LEVELS, {
    usual: Math.min(most, Math.max(lo.length * GROWTH, small)),
    most: Math.min(most, MOST_KEYS),
  });
  if (targets === null) return null;
  const groups = new Map<string, Group>();
  for (const [kind, own] of rows.entries()) {
    const lengths = targets[kind] ?? [];
    const name = lengths.join();
    const group = groups.get(name) ?? { lengths, values: new Set() };
    groups.set(name, group);
    for (const row of own) {
      const expanded = row.map((prefix, part) =>
        expandPrefix(parts[part] ?? 0, prefix, lengths[part] ?? 0),
      );
      for (const key of product(expanded)) {
        const values = key.map(({ value }) => value);
        group.values.add(joinKey(parts, values));
      }
    }
  }
  return [...groups.values()].sort((x, y) => compareLengths(y.lengths, x.lengths));
}

function maskOf(width: number, length: number): bigint {
  return ones(width) ^ ones(width - length);
}

/** A set as a hash map, or null where the device's maps cannot hold it. */
export function mapSet({ key, set }: Lookup, { hashMaps }: Dialect, name: string): SetMap | null {
  if (hashMaps === null || key.some(({ field }) => field.width > 128)) return null;
  const { elements } = set;
  if (key.some(({ field }, part) => field.width !== elements.parts[part])) return null;
  const groups = groupKeys(elements, hashMaps.maxEntries);
  if (groups === null) return null;
  const { parts, bytes } = layParts(key);
  const keySize = bytes + (groups.length > 1 ? 4 : 0);
  if (Math.ceil(keySize / 8) * 8 + 8 > hashMaps.maxElementBytes) return null;
  const levels = groups.map(({ lengths }) => ({
    masks: lengths.map((length, part) => maskOf(elements.parts[part] ?? 0, length)),
  }));
  const definition: MapDefinition = {
    ...{ name, type: 'hash', keySize, valueSize: SET_VALUE.length },
    ...{ maxEntries: groups.reduce((sum, { values }) => sum + values.size, 0), flags: 0 },
  };
  const values = groups.map((group) => [...group.values]);
  return { definition, parts, levels, values, widths: elements.parts, name: set.name };
}

/** All keys of a map as its bytes. */
export function keysOf({ definition, parts, widths, values }: SetMap): readonly Uint8Array[] {
  const { keySize } = definition;
  const isLevelled = values.length > 1;
  return values.flatMap((level, number) =>
    level.map((value) => {
      const data = new Uint8Array(keySize);
      for (const [part, own] of splitKey(widths, value).entries()) {
        const place = parts[part];
        if (place !== undefined) data.set(encodePart(place, own), place.at);
      }
      if (isLevelled) new DataView(data.buffer).setUint32(keySize - 4, number, true);
      return data;
    }),
  );
}

function compareLengths(a: readonly number[], b: readonly number[]): number {
  for (const [part, length] of a.entries()) {
    const other = b[part] ?? 0;
    if (length !== other) return length - other;
  }
  return 0;
}
