import { isPlain, joinKey, splitKey } from '../../ir/operand.ts';
import type { Operand, SetElements } from '../../ir/ruleset.ts';
import { ones, writeUint } from '../../support/bits.ts';
import type { Dialect } from './dialect.ts';
import type { Lookup } from './lookup-key.ts';
import type { MapDefinition } from './maps.ts';
import {
  expandedLength,
  expandPrefix,
  type LengthChoice,
  lengthChoices,
  type Prefix,
  splitRange,
} from './prefix-levels.ts';
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
/** Combinations of lengths that are looked at. */
const MOST_COMBINATIONS = 4096;

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

/** A part of all elements, as prefixes, with the lengths they could be expanded to. */
interface PartPrefixes {
  readonly width: number;
  /** By element. */
  readonly prefixes: readonly (readonly Prefix[])[];
  readonly choices: readonly LengthChoice[];
}

function splitParts({ parts, lo, hi }: SetElements): PartPrefixes[] {
  const lows = lo.map((key) => splitKey(parts, key));
  const highs = hi.map((key) => splitKey(parts, key));
  const most = Math.min(MOST_LEVELS, Math.floor(MOST_COMBINATIONS ** (1 / parts.length)));
  return parts.map((width, part) => {
    const prefixes = lows.map((low, i) =>
      splitRange(width, low[part] ?? 0n, highs[i]?.[part] ?? 0n),
    );
    const counts = new Map<number, number>();
    for (const { length } of prefixes.flat()) counts.set(length, (counts.get(length) ?? 0) + 1);
    return { width, prefixes, choices: lengthChoices(counts, most) };
  });
}

/** Keys of one element in one part. */
function countExpanded(prefixes: readonly Prefix[], lengths: readonly number[]): number {
  return prefixes.reduce(
    (sum, { length }) => sum + 2 ** (expandedLength(lengths, length) - length),
    0,
  );
}

/**
 * Which lengths each part is expanded to: as few combinations of them (look-ups) as the keys that
 * makes allow; null where every combination makes more than `most`.
 */
function chooseLevels(
  parts: readonly PartPrefixes[],
  most: number,
): readonly (readonly number[])[] | null {
  const combinations = parts.reduce<LengthChoice[][]>(
    (rows, { choices }) => rows.flatMap((row) => choices.map((choice) => [...row, choice])),
    [[]],
  );
  const lookups = (row: readonly LengthChoice[]): number =>
    row.reduce((product, { lengths }) => product * lengths.length, 1);
  combinations.sort((a, b) => lookups(a) - lookups(b));
  const sizes = new Map<LengthChoice, Float64Array>();
  for (const { prefixes, choices } of parts) {
    for (const choice of choices) {
      const counts = prefixes.map((own) => countExpanded(own, choice.lengths));
      sizes.set(choice, Float64Array.from(counts));
    }
  }
  const elements = parts[0]?.prefixes.length ?? 0;
  for (const row of combinations) {
    if (lookups(row) > MOST_LEVELS) break;
    const counts = row.map((choice) => sizes.get(choice) ?? new Float64Array(elements));
    let keys = 0;
    for (let element = 0; element < elements && keys <= most; element += 1) {
      keys += counts.reduce((product, count) => product * (count[element] ?? 0), 1);
    }
    if (keys <= most) return row.map(({ lengths }) => lengths);
  }
  return null;
}

function product(parts: readonly (readonly Prefix[])[]): Prefix[][] {
  return parts.reduce<Prefix[][]>(
    (rows, prefixes) => rows.flatMap((row) => prefixes.map((prefix) => [...row, prefix])),
    [[]],
  );
}

/** The keys that are looked up with the same masks. */
interface Group {
  /** Bits that count, by part. */
  readonly lengths: readonly number[];
  readonly values: Set<bigint>;
}

/** Every key, by what counts of it; null where there are more than the device's maps hold. */
function groupKeys(elements: SetElements, most: number): readonly Group[] | null {
  const { parts, lo } = elements;
  if (lo.length > most) return null;
  if (isExact(elements)) return [{ lengths: parts, values: new Set(lo) }];
  const split = splitParts(elements);
  const small = parts.length === 1 ? SMALL_MAP : SMALL_PRODUCT;
  const levels = chooseLevels(split, Math.min(most, Math.max(lo.length * GROWTH, small)));
  if (levels === null) return null;
  const groups = new Map<string, Group>();
  for (const element of lo.keys()) {
    const expanded = split.map(({ width, prefixes }, part) =>
      (prefixes[element] ?? []).flatMap((prefix) =>
        expandPrefix(width, prefix, expandedLength(levels[part] ?? [], prefix.length)),
      ),
    );
    for (const row of product(expanded)) {
      const lengths = row.map(({ length }) => length);
      const name = lengths.join();
      let group = groups.get(name);
      if (group === undefined) {
        group = { lengths, values: new Set() };
        groups.set(name, group);
      }
      group.values.add(
        joinKey(
          parts,
          row.map(({ value }) => value),
        ),
      );
    }
  }
  return [...groups.values()].sort((a, b) => compareLengths(b.lengths, a.lengths));
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
