import fc from 'fast-check';
import { expect, it } from 'vitest';
import { lookUpTree, readRow, writeTree } from '../../src/backends/ebpf-offload/tree-data.ts';
import type { TableNode } from '../../src/ir/decision-nodes.ts';
import { createNodeTable } from '../../src/ir/decision-nodes.ts';
import { boxHolds, buildForest, lookUpForest } from '../../src/ir/match-forest.ts';
import { FOREVER, generationLane, type MatchTable } from '../../src/ir/match-table.ts';
import { boxes, keysOf, NOTHING, tableOf } from '../support/match-tables.ts';

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
      for (const lanes of keysOf(rows, picked)) {
        const key = [...lanes, 0];
        const box = rows.findIndex((_, index) => boxHolds(table, index, key));
        const first = box < 0 ? null : (table.owner[box] ?? null);
        expect(lookUpForest(table, node.forest, key) ?? -1).toBe(box);
        const found = lookUpTree(data, key);
        expect(found?.order).toBe(table.order[box]);
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
          if (column.lane === generationLane(table.key)) {
            expect([value, size]).toEqual([0n, BigInt(FOREVER)]);
          } else if (column.lanes === 2) {
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
