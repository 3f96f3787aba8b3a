import type { Field } from '../ir/fields.ts';
import type { SetElements, Verdict } from '../ir/ruleset.ts';
import { ones } from '../support/bits.ts';
import type { Reason } from '../support/diagnostics.ts';
import { type Interval, parseInterval } from './constants.ts';
import { isObject, member, textMember } from './json.ts';

/** Set contents, and why they cannot be relied on (null when they can). */
export interface ReadElements {
  readonly elements: SetElements;
  readonly unknown: Reason | null;
}

/** A verdict statement such as `{"drop": null}` or `{"jump": {"target": "c"}}`, or null. */
export function parseVerdict(value: unknown): Verdict | null {
  if (!isObject(value)) return null;
  for (const kind of ['accept', 'drop', 'continue', 'return'] as const) {
    if (kind in value) return { kind };
  }
  for (const kind of ['jump', 'goto'] as const) {
    const chain = textMember(value[kind], 'target');
    if (chain !== null) return { kind, chain };
  }
  return null;
}

interface Columns {
  readonly lo: bigint[];
  readonly hi: bigint[];
  readonly verdicts: Verdict[];
}

interface Catchall {
  readonly verdict: Verdict | null;
}

function unreadable(value: unknown): Reason {
  return {
    code: 'set/element',
    message: `element ${(JSON.stringify(value) ?? '?').slice(0, 80)} is of a form that is not understood`,
  };
}

/** Statements that an element carries: its own counter, limit, quota or time. */
function elementState(element: unknown): Reason | null {
  for (const key of ['timeout', 'expires', 'counter', 'limit', 'quota', 'ct count', 'last']) {
    if (member(element, key) !== undefined) {
      return { code: 'set/element-state', message: `its elements carry a ${key} of their own` };
    }
  }
  return null;
}

function parseKey(fields: readonly Field[], value: unknown): Interval | null {
  const [first] = fields;
  if (fields.length === 1 && first !== undefined) {
    const interval = parseInterval(first, value);
    return interval !== null && interval.hi <= ones(first.width) ? interval : null;
  }
  const parts = member(value, 'concat');
  if (!Array.isArray(parts) || parts.length !== fields.length) return null;
  let lo = 0n;
  let hi = 0n;
  for (const [index, field] of fields.entries()) {
    const part = parseKey([field], parts[index]);
    if (part === null) return null;
    const width = BigInt(field.width);
    lo = (lo << width) | part.lo;
    hi = (hi << width) | part.hi;
  }
  return { lo, hi };
}

/** Fills the gaps between the elements of a one-part set, for the element `*`. */
function addGaps(columns: Columns, width: number, verdict: Verdict | null): void {
  const taken = columns.lo
    .map((lo, index): Interval => ({ lo, hi: columns.hi[index] ?? lo }))
    .sort((a, b) => (a.lo < b.lo ? -1 : 1));
  let next = 0n;
  const add = (lo: bigint, hi: bigint): void => {
    if (lo > hi) return;
    columns.lo.push(lo);
    columns.hi.push(hi);
    if (verdict !== null) columns.verdicts.push(verdict);
  };
  for (const { lo, hi } of taken) {
    add(next, lo - 1n);
    next = hi + 1n;
  }
  add(next, ones(width));
}

function isDisjoint(columns: Columns): boolean {
  const { lo, hi } = columns;
  let sorted = true;
  for (let index = 1; index < lo.length && sorted; index += 1) {
    sorted = (hi[index - 1] ?? 0n) < (lo[index] ?? 0n);
  }
  if (sorted) return true;
  const order = lo
    .map((_, index) => index)
    .sort((a, b) => ((lo[a] ?? 0n) < (lo[b] ?? 0n) ? -1 : 1));
  for (let rank = 1; rank < order.length; rank += 1) {
    if ((hi[order[rank - 1] ?? 0] ?? 0n) >= (lo[order[rank] ?? 0] ?? 0n)) return false;
  }
  return true;
}

/** Joins overlapping elements of a one-part set without verdicts, as `auto-merge` does. */
function mergeOverlaps(columns: Columns): Columns {
  const merged: Columns = { lo: [], hi: [], verdicts: [] };
  const order = columns.lo
    .map((lo, index): Interval => ({ lo, hi: columns.hi[index] ?? lo }))
    .sort((a, b) => (a.lo < b.lo ? -1 : 1));
  for (const { lo, hi } of order) {
    const last = merged.hi.length - 1;
    const end = merged.hi[last];
    if (end !== undefined && lo <= end) {
      if (hi > end) merged.hi[last] = hi;
    } else {
      merged.lo.push(lo);
      merged.hi.push(hi);
    }
  }
  return merged;
}

/** What stands beside each key: nothing, data (which is left out when reading), or a verdict. */
export type SetContent = 'set' | 'data' | 'verdicts';

/** Reads the elements of a set or map whose key parts are compared with `fields`. */
export function readElements(
  fields: readonly Field[],
  list: readonly unknown[],
  content: SetContent,
): ReadElements {
  const verdicts = content === 'verdicts';
  let columns: Columns = { lo: [], hi: [], verdicts: [] };
  let unknown: Reason | null = null;
  let catchall: Catchall | null = null;
  for (const item of list) {
    const pair = content !== 'set' && Array.isArray(item) && item.length === 2;
    const wrapped = pair ? item[0] : item;
    const inner = member(wrapped, 'elem');
    if (inner !== undefined) unknown ??= elementState(inner);
    const value = inner === undefined ? wrapped : member(inner, 'val');
    const verdict = verdicts && pair ? parseVerdict(item[1]) : null;
    if (verdicts && verdict === null) {
      unknown = unreadable(item);
    } else if (value === '*') {
      catchall = { verdict };
    } else {
      const key = parseKey(fields, value);
      if (key === null) {
        unknown = unreadable(value);
      } else {
        columns.lo.push(key.lo);
        columns.hi.push(key.hi);
        if (verdict !== null) columns.verdicts.push(verdict);
      }
    }
  }
  const [only] = fields;
  if (fields.length === 1 && !isDisjoint(columns)) {
    if (verdicts) unknown = { code: 'set/overlap', message: 'its elements overlap' };
    else columns = mergeOverlaps(columns);
  }
  if (catchall !== null) {
    if (fields.length === 1 && only !== undefined && unknown === null) {
      addGaps(columns, only.width, catchall.verdict);
    } else {
      unknown ??= { code: 'set/catchall', message: 'it has the element * beside concatenations' };
    }
  }
  const exact = columns.lo.every((lo, index) => lo === columns.hi[index]);
  return {
    elements: {
      parts: fields.map(({ width }) => width),
      lo: columns.lo,
      hi: exact ? columns.lo : columns.hi,
      verdicts: verdicts ? columns.verdicts : null,
    },
    unknown,
  };
}
