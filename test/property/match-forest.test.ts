import fc from 'fast-check';
import { expect, it } from 'vitest';
import { lookUpTree, readRow, writeTree } from '../../src/backends/ebpf-offload/tree-data.ts';
import type { TableNode } from '../../src/ir/decision-nodes.ts';
import { createNodeTable } from '../../src/ir/decision-nodes.ts';
import { type Field, findField, META } from '../../src/ir/fields.ts';
import { boxHolds, buildForest, lookUpForest } from '../../src/ir/match-forest.ts';
import type { KeyPart, MatchTable } from '../../src/ir/match-table.ts';

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

interface Lane {
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

type Box = readonly Lane[];

const boxes: fc.Arbitrary<readonly Box[]> = fc.array(
  fc.tuple(...WIDTHS.map((width) => laneOf(width))),
  { minLength: 1, maxLength: 60, size: 'max' },
);

function tableOf(rows: readonly Box[]): MatchTable {
  const column = (pick: (lane: Lane) => number) =>
    WIDTHS.map((_, lane) => Uint32Array.from(rows, (row) => pick(row[lane] ?? NOTHING)));
  const masks = column(({ mask }) => mask);
  const isMasked = masks.map((mask) => mask.some((bits) => bits !== 0));
  return {
    key: { parts: PARTS, presences: [], widths: WIDTHS },
    size: rows.length,
    lo: column(({ lo }) => lo),
    hi: column(({ hi }) => hi),
    value: column(({ value }) => value).map((own, lane) => (isMasked[lane] === true ? own : null)),
    mask: masks.map((own, lane) => (isMasked[lane] === true ? own : null)),
    // Two boxes a rule.
    owner: Uint32Array.from(rows, (_, index) => index >> 1),
  };
}

const NOTHING: Lane = { lo: 0, hi: 0, value: 0, mask: 0 };

/** Keys at the corners of boxes, beside them, and put together from several. */
function keysOf(rows: readonly Box[], picks: readonly number[]): number[][] {
  const at = (index: number, lane: number): Lane => rows[index % rows.length]?.[lane] ?? NOTHING;
  return picks.map((pick, number) =>
    WIDTHS.map((width, lane) => {
      const { lo, hi, value, mask } = at(pick + (number % 3 === 0 ? lane : 0), lane);
      const edge = [lo, hi, lo - 1, hi + 1, lo, hi][(pick >> (lane % 16)) % 6] ?? lo;
      return (((edge & ~mask) | value) & full(width)) >>> 0;
    }),
  );
}

function nodeOf(table: MatchTable, rules: number): TableNode | null {
  const forest = buildForest(table);
  if (forest === null) return null;
  const actions = Array.from({ length: rules }, (_, index) => ({
    target: index % 2,
    counter: index % 3 === 0 ? index : null,
    rule: null,
  }));
  const { drop, pass } = createNodeTable();
  return { kind: 'table', id: 2, table, forest, actions, targets: [pass, drop], none: 0 };
}

const picks = fc.array(fc.nat(), { minLength: 100, maxLength: 100 });

it('finds the first rule in trees, and in the trees as data', () => {
  fc.assert(
    fc.property(boxes, picks, (rows, picked) => {
      const table = tableOf(rows);
      const node = nodeOf(table, (rows.length + 1) >> 1);
      fc.pre(node !== null);
      const data = writeTree(node, (counter) => counter + 7);
      for (const key of keysOf(rows, picked)) {
        const box = rows.findIndex((_, index) => boxHolds(table, index, key));
        const first = box < 0 ? null : (table.owner[box] ?? null);
        expect(lookUpForest(table, node.forest, key)).toBe(first);
        const found = lookUpTree(data, key);
        expect(found?.order ?? null).toBe(first);
        const action = first === null ? undefined : node.actions[first];
        expect(found?.target).toBe(action?.target);
        const counter = action?.counter ?? null;
        expect(found?.slot ?? null).toBe(counter === null ? null : counter + 7);
      }
    }),
    { numRuns: 50 },
  );
});

it('reads back the rows it wrote', () => {
  fc.assert(
    fc.property(boxes, (rows) => {
      const table = tableOf(rows);
      const node = nodeOf(table, (rows.length + 1) >> 1);
      fc.pre(node !== null);
      const data = writeTree(node, (counter) => counter);
      for (const [at, box] of node.forest.boxes.entries()) {
        const { tests } = readRow(data, at);
        for (const { column, value, size } of tests) {
          const own = rows[box]?.[column.lane] ?? NOTHING;
          if (column.lanes === 2) {
            const low = rows[box]?.[column.lane + 1] ?? NOTHING;
            expect(value).toBe((BigInt(own.lo) << 32n) | BigInt(low.lo));
          } else if (column.kind === 'range') {
            expect([value, value + size]).toEqual([BigInt(own.lo), BigInt(own.hi)]);
          } else expect([value, size]).toEqual([BigInt(own.value), BigInt(own.mask)]);
        }
      }
    }),
    { numRuns: 20 },
  );
});
