import {
  generationLane,
  KEY_BYTES,
  laneBytes,
  type MatchTable,
  type TableKey,
} from '../../ir/match-table.ts';

/**
 * A test of a row. `range`: key - value <= size, of one lane; `mask`: key & size == value, of one lane,
 * or (`lanes` 2) of two lanes that are the halves of a 64-bit word. `value` and `size` stand side by
 * side, each of `bytes` bytes, from byte `at` of the row.
 */
export interface Column {
  readonly kind: 'range' | 'mask';
  readonly lane: number;
  readonly lanes: 1 | 2;
  readonly bytes: 1 | 2 | 4 | 8;
  readonly at: number;
}

/** How one table's keys and rows stand in memory. */
export interface TreeLayout {
  /** Byte of the key at which each lane starts; keys are little-endian. */
  readonly places: readonly number[];
  /** Words of 8 bytes that a key takes: 1, 2, 4 or 8. */
  readonly words: number;
  /** In the order in which a row is tested. */
  readonly columns: readonly Column[];
  /** Bytes of a row at which the number of its rule and its action stand; both are u32. */
  readonly orderAt: number;
  readonly actionAt: number;
  /** A multiple of 8. */
  readonly rowBytes: number;
}

/** First lanes of pairs that fill a word of the key: halves of what is wide. */
function pairsOf({ parts, widths }: TableKey): number[] {
  return parts.flatMap(({ lane, lanes }) => {
    const isWhole = lanes > 1 && lanes % 2 === 0 && widths[lane] === 32;
    return isWhole ? Array.from({ length: lanes / 2 }, (_, index) => lane + 2 * index) : [];
  });
}

function placeLanes(key: TableKey, pairs: readonly number[]): { places: number[]; words: number } {
  const places = key.widths.map(() => -1);
  let at = 0;
  for (const lane of pairs) {
    places[lane] = at + 4;
    places[lane + 1] = at;
    at += 8;
  }
  for (const bytes of [4, 2, 1]) {
    for (const [lane, width] of key.widths.entries()) {
      if ((places[lane] ?? 0) >= 0 || laneBytes(width) !== bytes) continue;
      places[lane] = at;
      at += bytes;
    }
  }
  if (at > KEY_BYTES) throw new Error('bug: a key is too long');
  return { places, words: 2 ** Math.ceil(Math.log2(Math.max(1, Math.ceil(at / 8)))) };
}

function full(width: number): number {
  return width === 32 ? 0xffffffff : 2 ** width - 1;
}

function isPrefix({ lo, hi }: MatchTable, lane: number, box: number): boolean {
  const low = lo[lane]?.[box] ?? 0;
  const span = ((hi[lane]?.[box] ?? 0) - low) >>> 0;
  return (span & (span + 1)) === 0 && (low & span) === 0;
}

/** Whether every box asks for a prefix of a lane (or all, or one value of it). */
function hasPrefixes(table: MatchTable, lane: number): boolean {
  if ((table.mask[lane] ?? null) !== null) return false;
  for (let box = 0; box < table.size; box += 1) if (!isPrefix(table, lane, box)) return false;
  return true;
}

function isAsked({ lo, hi, key }: MatchTable, lane: number, box: number): boolean {
  const top = full(key.widths[lane] ?? 32);
  return (lo[lane]?.[box] ?? 0) > 0 || (hi[lane]?.[box] ?? 0) < top;
}

function asksRange(table: MatchTable, lane: number): boolean {
  // What a table in use is changed by is asked for in this lane.
  if (lane === generationLane(table.key)) return true;
  for (let box = 0; box < table.size; box += 1) if (isAsked(table, lane, box)) return true;
  return false;
}

/** Whether rows of a layout can say what a box asks for. */
export function canHold({ columns }: TreeLayout, table: MatchTable, box: number): boolean {
  return table.key.widths.every((_, lane) => {
    const own = columns.filter((one) => one.lane === lane || one.lane + one.lanes - 1 === lane);
    const isMasked = (table.mask[lane]?.[box] ?? 0) !== 0;
    if (isMasked && !own.some(({ kind, lanes }) => kind === 'mask' && lanes === 1)) return false;
    if (!isAsked(table, lane, box)) return true;
    const isPair = own.some(({ lanes }) => lanes === 2) && isPrefix(table, lane, box);
    return isPair || own.some(({ kind }) => kind === 'range');
  });
}

type Wanted = Omit<Column, 'at'>;

function columnsOf(table: MatchTable, pairs: readonly number[]): Wanted[] {
  const wanted: Wanted[] = [];
  const second = new Set<number>();
  for (const [lane, width] of table.key.widths.entries()) {
    if (second.has(lane)) continue;
    const isPair = pairs.includes(lane) && [lane, lane + 1].every((own) => hasPrefixes(table, own));
    if (isPair) {
      second.add(lane + 1);
      if (asksRange(table, lane) || asksRange(table, lane + 1)) {
        wanted.push({ kind: 'mask', lane, lanes: 2, bytes: 8 });
      }
      continue;
    }
    const bytes = laneBytes(width);
    if (asksRange(table, lane)) wanted.push({ kind: 'range', lane, lanes: 1, bytes });
    if ((table.mask[lane] ?? null) !== null) wanted.push({ kind: 'mask', lane, lanes: 1, bytes });
  }
  return wanted;
}

/** Lays keys and rows of a table out: the widest columns first, so that all are aligned. */
export function layOutTable(table: MatchTable): TreeLayout {
  const pairs = pairsOf(table.key);
  const { places, words } = placeLanes(table.key, pairs);
  const wanted = columnsOf(table, pairs);
  const at = new Map<Wanted, number>();
  let next = 0;
  const place = (bytes: number): void => {
    for (const column of wanted.filter((one) => one.bytes === bytes)) {
      at.set(column, next);
      next += 2 * bytes;
    }
  };
  place(8);
  place(4);
  const orderAt = next;
  const actionAt = next + 4;
  next += 8;
  place(2);
  place(1);
  const columns = wanted.map((column): Column => ({ ...column, at: at.get(column) ?? 0 }));
  return { places, words, columns, orderAt, actionAt, rowBytes: Math.ceil(next / 8) * 8 };
}
