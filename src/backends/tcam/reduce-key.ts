import { fieldKey } from '../../ir/fields.ts';
import { applyOperand, joinKey, splitKey } from '../../ir/operand.ts';
import type { Region } from '../../ir/region.ts';
import type { Operand, Test } from '../../ir/ruleset.ts';
import { joinIntervals } from './prefixes.ts';

/** What an operand yields for all frames of a region, or null when that differs. */
function constantOf(operand: Operand, region: Region): bigint | null {
  const known = region.get(fieldKey(operand.field));
  return known !== undefined && known.lo === known.hi ? applyOperand(operand, known.lo) : null;
}

/**
 * A look-up of a concatenation without the parts that are the same for all frames of a region: a table
 * for one protocol has no key bits for it.
 */
export function reduceKey(test: Test, region: Region): Test {
  if (test.kind !== 'lookup' || test.key.length < 2) return test;
  const constants = test.key.map((operand) => constantOf(operand, region));
  const kept = constants.flatMap((constant, part) => (constant === null ? part : []));
  if (kept.length === 0 || kept.length === test.key.length) return test;
  const { parts, lo, hi } = test.set.elements;
  const pick = <T>(values: readonly T[]): T[] => kept.flatMap((part) => values[part] ?? []);
  const left = lo.flatMap((low, index): [bigint, bigint][] => {
    const from = splitKey(parts, low);
    const to = splitKey(parts, hi[index] ?? low);
    const isIn = constants.every(
      (one, part) => one === null || (one >= (from[part] ?? 0n) && one <= (to[part] ?? 0n)),
    );
    const own = pick(parts);
    return isIn ? [[joinKey(own, pick(from)), joinKey(own, pick(to))]] : [];
  });
  const sorted = kept.length === 1 ? joinIntervals(left) : left;
  const elements = {
    parts: pick(parts),
    lo: sorted.map(([low]) => low),
    hi: sorted.map(([, high]) => high),
    verdicts: null,
  };
  return { ...test, key: pick(test.key), set: { ...test.set, elements } };
}
