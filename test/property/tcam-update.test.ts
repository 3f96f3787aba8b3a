import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Action, TableRow, TableSet } from '../../src/backends/tcam/table.ts';
import { updateTables } from '../../src/backends/tcam/update.ts';
import { META } from '../../src/ir/fields.ts';
import { unwrap } from '../support/pipeline.ts';

const BITS = 4;
const rows = fc.uniqueArray(
  fc.record({
    value: fc.bigInt(0n, 15n),
    mask: fc.bigInt(0n, 15n),
    action: fc.constantFrom<Action>('drop', 'continue'),
  }),
  { maxLength: 8, selector: ({ value, mask }) => `${value & mask}/${mask}` },
);

function setOf(list: readonly Pick<TableRow, 'value' | 'mask' | 'action'>[]): TableSet {
  const column = { field: META.l4proto, bits: BITS, match: 'ternary', protocols: null } as const;
  const own = list.map((row): TableRow => {
    return { ...row, value: row.value & row.mask, ranges: [], rules: [] };
  });
  const served = { fixed: [], untagged: false, whole: false };
  const table = { name: 't', columns: [column], served, rows: own, default: 'continue' } as const;
  return { profile: null, tables: [table] };
}

function verdicts(list: readonly TableRow[]): readonly Action[] {
  return Array.from({ length: 2 ** BITS }, (_, key) => {
    const row = list.find(({ value, mask }) => ((BigInt(key) ^ value) & mask) === 0n);
    return row?.action ?? 'continue';
  });
}

it('goes from one table to another by verdicts that one of them has', () => {
  fc.assert(
    fc.property(rows, rows, (first, second) => {
      const [old, now] = [setOf(first), setOf(second)];
      const [update] = unwrap(updateTables(old, now));
      const [was, will] = [old, now].map(({ tables }) => tables[0]?.rows ?? []);
      if (update === undefined || was === undefined || will === undefined) throw new Error('none');
      const [before, after] = [verdicts(was), verdicts(will)];
      const state = [...was];
      for (const step of update.steps) {
        if (step.op === 'insert') state.splice(step.at, 0, step.row);
        else state.splice(step.at, 1);
        for (const [key, verdict] of verdicts(state).entries()) {
          expect([before[key], after[key]]).toContain(verdict);
        }
        expect(state.length).toBeLessThanOrEqual(update.most);
      }
      expect(state).toEqual(will);
      expect(update.steps).toHaveLength(was.length + will.length - 2 * update.kept);
    }),
    { numRuns: 500 },
  );
});

it('changes nothing when nothing has changed', () => {
  fc.assert(
    fc.property(rows, (list) => {
      const [update] = unwrap(updateTables(setOf(list), setOf(list)));
      expect(update).toMatchObject({ steps: [], kept: list.length, moved: 0 });
    }),
  );
});
