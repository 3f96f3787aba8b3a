import fc from 'fast-check';
import { type Field, findField, META } from '../../src/ir/fields.ts';
import {
  FOREVER,
  GENERATION_BITS,
  type KeyPart,
  type MatchTable,
} from '../../src/ir/match-table.ts';

function field(protocol: string, name: string): Field {
  const found = findField(protocol, name);
  if (found === null) throw new Error(`bug: no field ${protocol} ${name}`);
  return found;
}

const FIELDS: readonly Field[] = [
  field('ip', 'saddr'),
  field('ip6', 'daddr'),
  field('ether', 'saddr'),
  field('tcp', 'dport'),
  META.l4proto,
  field('tcp', 'flags'),
];

const PARTS: KeyPart[] = [];
const WIDTHS: number[] = [];
for (const each of FIELDS) {
  const head = each.width % 32;
  const widths = [
    ...(head > 0 ? [head] : []),
    ...Array.from({ length: each.width >> 5 }, () => 32),
  ];
  const view = 'ingress' as const;
  PARTS.push({ field: each, view, guard: null, lane: WIDTHS.length, lanes: widths.length });
  WIDTHS.push(...widths);
}

function full(width: number): number {
  return width === 32 ? 0xffffffff : 2 ** width - 1;
}

export interface Lane {
  readonly lo: number;
  readonly hi: number;
  readonly value: number;
  readonly mask: number;
}

/** All, one value, a prefix, a range or bits under a mask; from few values, so that boxes overlap. */
function laneOf(width: number): fc.Arbitrary<Lane> {
  const top = full(width);
  const few = fc.constantFrom(0, 1, 2, 5, 0x2a, 0x155, 0xc0a8, 0x0a000001, 0xffff0000, 0xffffffff);
  const value = few.map((one) => (one & top) >>> 0);
  const whole = { lo: 0, hi: top, value: 0, mask: 0 };
  return fc.oneof(
    { weight: 20, arbitrary: fc.constant(whole) },
    { weight: 3, arbitrary: value.map((lo) => ({ ...whole, lo, hi: lo })) },
    {
      weight: 3,
      arbitrary: fc.tuple(value, fc.integer({ min: 0, max: width - 1 })).map(([at, open]) => {
        const span = 2 ** open - 1;
        const lo = (at & ~span) >>> 0;
        return { ...whole, lo, hi: lo + span };
      }),
    },
    {
      weight: 2,
      arbitrary: fc.tuple(value, value).map(([a, b]) => ({
        ...whole,
        lo: Math.min(a, b),
        hi: Math.max(a, b),
      })),
    },
    {
      weight: 1,
      arbitrary: fc.tuple(value, value).map(([at, mask]) => ({
        ...whole,
        mask,
        value: (at & mask) >>> 0,
      })),
    },
  );
}

export type Box = readonly Lane[];

export const boxes: fc.Arbitrary<readonly Box[]> = fc.array(
  fc.tuple(...WIDTHS.map((width) => laneOf(width))),
  { minLength: 1, maxLength: 60, size: 'max' },
);

/** A table of boxes, two of them a rule; `gap` is between the numbers of rules. */
export function tableOf(rows: readonly Box[], gap = 64): MatchTable {
  const column = (pick: (lane: Lane) => number) =>
    WIDTHS.map((_, lane) => Uint32Array.from(rows, (row) => pick(row[lane] ?? NOTHING)));
  const masks = column(({ mask }) => mask);
  const isMasked = masks.map((mask) => mask.some((bits) => bits !== 0));
  const pick = (columns: Uint32Array[]) => [
    ...columns.map((own, lane) => (isMasked[lane] === true ? own : null)),
    null,
  ];
  return {
    key: { parts: PARTS, presences: [], widths: [...WIDTHS, GENERATION_BITS] },
    size: rows.length,
    lo: [...column(({ lo }) => lo), new Uint32Array(rows.length)],
    hi: [...column(({ hi }) => hi), new Uint32Array(rows.length).fill(FOREVER)],
    value: pick(column(({ value }) => value)),
    mask: pick(masks),
    // Two boxes a rule.
    owner: Uint32Array.from(rows, (_, index) => index >> 1),
    order: Uint32Array.from(rows, (_, index) => ((index >> 1) + 1) * gap),
  };
}

export const NOTHING: Lane = { lo: 0, hi: 0, value: 0, mask: 0 };

/** Keys at the corners of boxes, beside them, and put together from several; without a generation. */
export function keysOf(rows: readonly Box[], picks: readonly number[]): number[][] {
  const at = (index: number, lane: number): Lane => rows[index % rows.length]?.[lane] ?? NOTHING;
  return picks.map((pick, number) =>
    WIDTHS.map((width, lane) => {
      const { lo, hi, value, mask } = at(pick + (number % 3 === 0 ? lane : 0), lane);
      const edge = [lo, hi, lo - 1, hi + 1, lo, hi][(pick >> (lane % 16)) % 6] ?? lo;
      return (((edge & ~mask) | value) & full(width)) >>> 0;
    }),
  );
}
