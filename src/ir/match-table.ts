import type { ViewName } from './classifier.ts';
import { type Field, FRAME, fieldEnd, fieldKey, META } from './fields.ts';
import { type Alternative, boxesOf, type Constraint } from './match-boxes.ts';
import { presenceOf, type Region } from './region.ts';
import type { Row } from './residual.ts';

/** A condition for loading parts of a key: so many bytes behind the base. */
export interface Presence {
  readonly base: Exclude<Field['base'], 'meta'>;
  readonly view: ViewName;
  readonly end: number;
}

/**
 * A field as part of a key. It fills lanes of 32 bits, most significant first (the first may be
 * narrower); one that cannot be loaded is 0.
 */
export interface KeyPart {
  readonly field: Field;
  readonly view: ViewName;
  /** The presence (by index) that loading it needs; null where its bytes are always there. */
  readonly guard: number | null;
  readonly lane: number;
  readonly lanes: number;
}

/** What a table's key consists of. */
export interface TableKey {
  readonly parts: readonly KeyPart[];
  readonly presences: readonly Presence[];
  /**
   * Bits of each lane, at most 32. The last one is the generation: a number that counts the changes of
   * a table in use, so that every packet sees the boxes of one generation. The one before it, where
   * there are presences, holds them: bit `i` for presence `i`.
   */
  readonly widths: readonly number[];
}

/** Bits of a generation. */
export const GENERATION_BITS = 32;
/** Generations at which a box that nobody took away ends. */
export const FOREVER = 0xffffffff;

/** The lane of the generation. */
export function generationLane({ widths }: TableKey): number {
  return widths.length - 1;
}

/** The lane of the presences; only where there are some. */
export function presenceLane({ widths }: TableKey): number {
  return widths.length - 2;
}

/**
 * Boxes: number `i` holds every key whose lanes are within `lo` and `hi` (both included) and, where
 * `mask` is not null, equal `value` under it. The one with the lowest `order` wins. A new table has
 * its boxes in order; what is added to one in use stands behind the others.
 */
export interface MatchTable {
  readonly key: TableKey;
  readonly size: number;
  /** By lane, then by box. */
  readonly lo: readonly Uint32Array[];
  readonly hi: readonly Uint32Array[];
  readonly value: readonly (Uint32Array | null)[];
  readonly mask: readonly (Uint32Array | null)[];
  /** The rule of each box, as an index into what the table was made from. */
  readonly owner: Uint32Array;
  /** Numbers of the rules, which leave room for others between them; at most `MOST_ORDER`. */
  readonly order: Uint32Array;
}

/** Beyond any rule's number. */
export const NO_ORDER = 0xffffffff;
/** Numbers between two rules of a new table at most, and those of all together. */
const WIDEST_GAP = 2 ** 16;
const MOST_ORDER = 2 ** 31;

/** What is between the numbers of two rules of a table that is made of `rules`. */
function gapOf(rules: number): number {
  return Math.min(WIDEST_GAP, 2 ** Math.floor(Math.log2(MOST_ORDER / (rules + 1))));
}

/** Bytes a key has at most; lanes take 1, 2 or 4 of them. */
export const KEY_BYTES = 64;
/** Presences that have a bit each. */
const MOST_PRESENCES = 16;
/** Boxes that one rule may be. */
const MOST_BOXES = 65_536;
/** Rules that are several lists at once multiply. */
const MOST_PRODUCT = 1024;

export function laneBytes(width: number): 1 | 2 | 4 {
  return width <= 8 ? 1 : width <= 16 ? 2 : 4;
}

function isLaterPossible(region: Region): boolean {
  return (region.get(FRAME.fragment.name)?.hi ?? 2n) >= 2n;
}

/** A row as boxes, before lanes are given away. */
interface BoxedRow {
  readonly row: Row;
  /** By open test. */
  readonly tests: readonly (readonly Alternative[])[];
}

function boxRow(row: Row, region: Region): BoxedRow | null {
  const tests: (readonly Alternative[])[] = [];
  let boxes = 1;
  for (const { test, fields } of row.tests) {
    const alternatives = boxesOf(test);
    if (alternatives === null) return null;
    // What a later fragment holds there is not asked: only code can hand it on.
    if (fields.some(({ base }) => base === 'th') && isLaterPossible(region)) {
      const isOpen = fields.some((field) => presenceOf(field, row.view, region) === 'open');
      if (isOpen) return null;
    }
    boxes *= alternatives.length;
    tests.push(alternatives);
  }
  const isProduct = tests.filter(({ length }) => length > 1).length > 1;
  return boxes <= (isProduct ? MOST_PRODUCT : MOST_BOXES) ? { row, tests } : null;
}

/** Gives parts of a key away, as long as it has room. */
interface KeyMaker {
  readonly region: Region;
  readonly parts: KeyPart[];
  readonly presences: Presence[];
  readonly widths: number[];
  readonly byName: Map<string, KeyPart | null>;
  readonly byField: Readonly<Record<ViewName, Map<Field, KeyPart | null>>>;
  bytes: number;
}

function presenceIndex(maker: KeyMaker, wanted: Presence): number | null {
  const index = maker.presences.findIndex(
    ({ base, view, end }) => base === wanted.base && view === wanted.view && end === wanted.end,
  );
  if (index >= 0) return index;
  if (maker.presences.length === MOST_PRESENCES) return null;
  return maker.presences.push(wanted) - 1;
}

/** Tells apart what is loaded in different ways. */
function partName(field: Field, view: ViewName, isOpen: boolean): string {
  const key = fieldKey(field);
  return isOpen || key === META.length.name ? `${key} ${view}` : key;
}

/** The field's part of the key, which it gets when it is asked for first; null where there is no room. */
function partOf(maker: KeyMaker, field: Field, view: ViewName): KeyPart | null {
  const known = maker.byField[view].get(field);
  if (known !== undefined) return known;
  const part = findPart(maker, field, view);
  maker.byField[view].set(field, part);
  return part;
}

function findPart(maker: KeyMaker, field: Field, view: ViewName): KeyPart | null {
  const isOpen = presenceOf(field, view, maker.region) === 'open';
  const name = partName(field, view, isOpen);
  const known = maker.byName.get(name);
  if (known !== undefined) return known;
  const widths: number[] = [];
  const head = field.width % 32;
  if (head > 0) widths.push(head);
  for (let left = field.width - head; left > 0; left -= 32) widths.push(32);
  const bytes = widths.reduce((sum, width) => sum + laneBytes(width), 0);
  let guard: number | null = null;
  let isFull = maker.bytes + bytes > KEY_BYTES;
  if (isOpen && !isFull && field.base !== 'meta') {
    guard = presenceIndex(maker, { base: field.base, view, end: fieldEnd(field) });
    isFull = guard === null;
  }
  const part = isFull
    ? null
    : { field, view, guard, lane: maker.widths.length, lanes: widths.length };
  maker.byName.set(name, part);
  if (part === null) return null;
  maker.parts.push(part);
  maker.widths.push(...widths);
  maker.bytes += bytes;
  return part;
}

/** Boxes under construction; columns grow together. */
interface Boxes {
  size: number;
  readonly lo: Uint32Array[];
  readonly hi: Uint32Array[];
  readonly value: (Uint32Array | null)[];
  readonly mask: (Uint32Array | null)[];
  owner: Uint32Array;
}

function full(width: number): number {
  return width === 32 ? 0xffffffff : 2 ** width - 1;
}

/** One box: lo, hi, value and mask of every lane, in this order. */
type Box = Uint32Array;

function blankBox(widths: readonly number[]): Box {
  const box = new Uint32Array(4 * widths.length);
  for (const [lane, width] of widths.entries()) box[4 * lane + 1] = full(width);
  return box;
}

/** Restricts one lane; false when nothing is left. */
function restrictLane(box: Box, lane: number, lo: number, hi: number): boolean {
  const low = Math.max(box[4 * lane] ?? 0, lo);
  const high = Math.min(box[4 * lane + 1] ?? 0, hi);
  box[4 * lane] = low;
  box[4 * lane + 1] = high;
  return low <= high;
}

/** Asks for bits of one lane; false when they contradict those asked before. */
function maskLane(box: Box, lane: number, value: number, mask: number): boolean {
  const oldValue = box[4 * lane + 2] ?? 0;
  const oldMask = box[4 * lane + 3] ?? 0;
  if (((oldValue ^ value) & oldMask & mask) !== 0) return false;
  box[4 * lane + 2] = oldValue | value;
  box[4 * lane + 3] = oldMask | mask;
  return true;
}

/** A number's lanes, most significant first. */
function lanesOf(value: bigint, lanes: number): number[] {
  return Array.from({ length: lanes }, (_, index) =>
    Number((value >> BigInt(32 * (lanes - 1 - index))) & 0xffffffffn),
  );
}

/**
 * `lo..hi` over several lanes as ranges of lanes: the first lane in which the bounds differ is either
 * strictly between them, or equal to one of them and the rest decides.
 */
function splitInterval(
  widths: readonly number[],
  lo: readonly number[],
  hi: readonly number[],
): (readonly (readonly [number, number])[])[] {
  const top = (lane: number): number => full(widths[lane] ?? 32);
  const rest = (from: number) =>
    widths.slice(from).map((width): [number, number] => [0, full(width)]);
  const exact = (values: readonly number[], end: number) =>
    values.slice(0, end).map((value): [number, number] => [value, value]);
  const at = lo.findIndex((value, lane) => value !== hi[lane]);
  if (at < 0) return [exact(lo, lo.length)];
  const low = lo[at] ?? 0;
  const high = hi[at] ?? 0;
  const boxes: [number, number][][] = [];
  const isFromZero = lo.slice(at + 1).every((value) => value === 0);
  const isToTop = hi.slice(at + 1).every((value, index) => value === top(at + 1 + index));
  const from = isFromZero ? low : low + 1;
  const to = isToTop ? high : high - 1;
  if (from <= to) boxes.push([...exact(lo, at), [from, to], ...rest(at + 1)]);
  if (!isFromZero) {
    for (const tail of splitInterval(
      widths.slice(at + 1),
      lo.slice(at + 1),
      widths.slice(at + 1).map(full),
    )) {
      boxes.push([...exact(lo, at + 1), ...tail.map(([a, b]): [number, number] => [a, b])]);
    }
  }
  if (!isToTop) {
    for (const tail of splitInterval(
      widths.slice(at + 1),
      widths.slice(at + 1).map(() => 0),
      hi.slice(at + 1),
    )) {
      boxes.push([...exact(hi, at + 1), ...tail.map(([a, b]): [number, number] => [a, b])]);
    }
  }
  return boxes;
}

/** The boxes that are left of one under a constraint on a part. */
function constrain(box: Box, key: KeyMaker, part: KeyPart, constraint: Constraint): Box[] {
  const { lane, lanes } = part;
  if (constraint.mask !== 0n) {
    const values = lanesOf(constraint.value, lanes);
    const masks = lanesOf(constraint.mask, lanes);
    for (const [index, mask] of masks.entries()) {
      if (mask !== 0 && !maskLane(box, lane + index, values[index] ?? 0, mask)) return [];
    }
  }
  if (lanes === 1) {
    return restrictLane(box, lane, Number(constraint.lo), Number(constraint.hi)) ? [box] : [];
  }
  const widths = key.widths.slice(lane, lane + lanes);
  const lo = lanesOf(constraint.lo, lanes);
  const split = splitInterval(widths, lo, lanesOf(constraint.hi, lanes));
  return split.flatMap((ranges, index) => {
    const own = index === split.length - 1 ? box : box.slice();
    const isLeft = ranges.every(([a, b], offset) => restrictLane(own, lane + offset, a, b));
    return isLeft ? [own] : [];
  });
}

/** All boxes of a row, whose fields are in the key. */
function expandRow({ row, tests }: BoxedRow, maker: KeyMaker, key: TableKey): Box[] {
  let boxes: Box[] = [blankBox(key.widths)];
  let present = 0;
  for (const [index, alternatives] of tests.entries()) {
    for (const field of row.tests[index]?.fields ?? []) {
      const guard = partOf(maker, field, row.view)?.guard ?? null;
      if (guard !== null) present |= 1 << guard;
    }
    const last = alternatives.length - 1;
    const restricted: Box[] = [];
    for (const box of boxes) {
      for (const [number, alternative] of alternatives.entries()) {
        let own: readonly Box[] = [number === last ? box : box.slice()];
        for (const constraint of alternative) {
          const part = partOf(maker, constraint.field, row.view);
          if (part === null) throw new Error('bug: a field without a place in its key');
          own = own.flatMap((one) => constrain(one, maker, part, constraint));
        }
        restricted.push(...own);
      }
    }
    boxes = restricted;
  }
  if (present !== 0) {
    boxes = boxes.filter((box) => maskLane(box, presenceLane(key), present, present));
  }
  return boxes;
}

function createBoxes(lanes: number, room: number): Boxes {
  const column = (): Uint32Array => new Uint32Array(room);
  return {
    size: 0,
    lo: Array.from({ length: lanes }, column),
    hi: Array.from({ length: lanes }, column),
    value: Array.from({ length: lanes }, () => null),
    mask: Array.from({ length: lanes }, () => null),
    owner: column(),
  };
}

function grown(column: Uint32Array, room: number): Uint32Array {
  const larger = new Uint32Array(room);
  larger.set(column);
  return larger;
}

function growBoxes(boxes: Boxes): void {
  const room = boxes.owner.length * 2;
  boxes.owner = grown(boxes.owner, room);
  for (let lane = 0; lane < boxes.lo.length; lane += 1) {
    boxes.lo[lane] = grown(boxes.lo[lane] ?? boxes.owner, room);
    boxes.hi[lane] = grown(boxes.hi[lane] ?? boxes.owner, room);
    const value = boxes.value[lane] ?? null;
    const mask = boxes.mask[lane] ?? null;
    if (value !== null) boxes.value[lane] = grown(value, room);
    if (mask !== null) boxes.mask[lane] = grown(mask, room);
  }
}

function addBox(boxes: Boxes, box: Box, owner: number): void {
  if (boxes.size === boxes.owner.length) growBoxes(boxes);
  const at = boxes.size;
  boxes.size += 1;
  boxes.owner[at] = owner;
  for (let lane = 0; lane < boxes.lo.length; lane += 1) {
    const low = boxes.lo[lane];
    const high = boxes.hi[lane];
    if (low === undefined || high === undefined) throw new Error('bug: a lane without a column');
    low[at] = box[4 * lane] ?? 0;
    high[at] = box[4 * lane + 1] ?? 0;
    const mask = box[4 * lane + 3] ?? 0;
    if (mask === 0) continue;
    let values = boxes.value[lane] ?? null;
    let masks = boxes.mask[lane] ?? null;
    if (values === null || masks === null) {
      values = new Uint32Array(boxes.owner.length);
      masks = new Uint32Array(boxes.owner.length);
      boxes.value[lane] = values;
      boxes.mask[lane] = masks;
    }
    values[at] = box[4 * lane + 2] ?? 0;
    masks[at] = mask;
  }
}

/** Says which rows of one region can be boxes of tables, and makes tables of runs of them. */
export interface TableMaker {
  readonly canTake: (row: Row) => boolean;
  /** A table of rows that `canTake`; box owners are indices into `rows`. */
  readonly make: (rows: readonly Row[]) => MatchTable;
  /** The same for a key that is given; null where rows ask for what is not in it. */
  readonly makeFor: (rows: readonly Row[], key: TableKey) => MatchTable | null;
}

/** A maker for the rows of one region. */
export function createTableMaker(region: Region): TableMaker {
  const boxed = new Map<Row, BoxedRow | null>();
  const lookUp = (row: Row): BoxedRow | null => {
    let known = boxed.get(row);
    if (known === undefined) {
      known = boxRow(row, region);
      boxed.set(row, known);
    }
    return known;
  };
  // A trial key: rows whose fields no longer fit are not for tables.
  const trial = createKeyMaker(region);
  const fits = (row: Row, key: KeyMaker): boolean =>
    row.tests.every(({ fields }) => fields.every((field) => partOf(key, field, row.view) !== null));
  return {
    canTake: (row) => lookUp(row) !== null && fits(row, trial),
    make: (rows) => {
      const maker = createKeyMaker(region);
      for (const row of rows) fits(row, maker);
      return fillTable(rows.map(lookUp), maker, keyOf(maker));
    },
    makeFor: (rows, key) => {
      const maker = reopenKey(region, key);
      if (!rows.every((row) => fits(row, maker))) return null;
      return fillTable(rows.map(lookUp), maker, key);
    },
  };
}

function noFields(): KeyMaker['byField'] {
  return { ingress: new Map(), l3: new Map() };
}

function fillTable(rows: readonly (BoxedRow | null)[], maker: KeyMaker, key: TableKey): MatchTable {
  const boxes = createBoxes(key.widths.length, Math.max(16, rows.length));
  for (const [owner, row] of rows.entries()) {
    if (row === null) throw new Error('bug: a row that is no boxes');
    for (const box of expandRow(row, maker, key)) addBox(boxes, box, owner);
  }
  const gap = gapOf(rows.length);
  return { ...boxes, key, order: boxes.owner.map((owner) => (owner + 1) * gap) };
}

function createKeyMaker(region: Region): KeyMaker {
  // Two bytes are kept for the presences, and four for the generation.
  const own = { parts: [], presences: [], widths: [] };
  return { region, ...own, byName: new Map(), byField: noFields(), bytes: 6 };
}

function keyOf({ parts, presences, widths }: KeyMaker): TableKey {
  const flags = presences.length > 0 ? [presences.length] : [];
  return { parts, presences, widths: [...widths, ...flags, GENERATION_BITS] };
}

/** A key that takes no more parts. */
function reopenKey(region: Region, { parts, presences, widths }: TableKey): KeyMaker {
  const byName = new Map(
    parts.map((part) => {
      const isOpen = presenceOf(part.field, part.view, region) === 'open';
      return [partName(part.field, part.view, isOpen), part];
    }),
  );
  const own = { parts: [...parts], presences: [...presences], widths: [...widths] };
  return { region, ...own, byName, byField: noFields(), bytes: KEY_BYTES };
}
