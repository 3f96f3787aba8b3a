import type { Field } from '../ir/fields.ts';
import type { Test } from '../ir/ruleset.ts';

type Compare = Extract<Test, { kind: 'compare' }>;

/** Gives one object for equal comparisons, so that what is found out about one is known of all. */
export type TestPool = (test: Test) => Test;

function isSame(a: Compare, b: Compare): boolean {
  return (
    a.hi === b.hi &&
    a.negated === b.negated &&
    a.implicit === b.implicit &&
    a.operand.mask === b.operand.mask &&
    a.operand.xor === b.operand.xor &&
    a.operand.shift === b.operand.shift
  );
}

/** A pool for the tests of one ruleset; rules repeat few comparisons over and over. */
export function createTestPool(): TestPool {
  const known = new Map<Field, Map<bigint, Compare[]>>();
  return (test) => {
    if (test.kind !== 'compare') return test;
    const { field } = test.operand;
    let byValue = known.get(field);
    if (byValue === undefined) {
      byValue = new Map();
      known.set(field, byValue);
    }
    const alike = byValue.get(test.lo);
    if (alike === undefined) {
      byValue.set(test.lo, [test]);
      return test;
    }
    const same = alike.find((other) => isSame(other, test));
    if (same === undefined) alike.push(test);
    return same ?? test;
  };
}
