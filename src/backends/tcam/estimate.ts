import type { Entry } from '../../ir/classifier.ts';
import type { Test } from '../../ir/ruleset.ts';
import type { TcamProfile } from '../../profile/schema.ts';
import type { Estimates } from '../backend.ts';
import { testsIn } from './capabilities.ts';
import { deviceLimits } from './capacity.ts';
import { planProfileTables } from './plan-tables.ts';
import { prefixesOf } from './prefixes.ts';

/** Rows that a range takes at most in the end: two around a hole and one beside it. */
const RANGE_ROWS = 3;
/** More than any device has. */
const MOST_ROWS = 250_000;

function countBits(mask: bigint): number {
  return mask.toString(2).replaceAll('0', '').length;
}

function rowsOfTest(test: Test): number {
  if (test.kind === 'unknown') return 1;
  if (test.kind === 'lookup') return test.set.elements.lo.length + (test.negated ? 1 : 0);
  const { lo, hi, operand, negated } = test;
  if (lo === hi) return negated ? Math.max(1, countBits(operand.mask)) : 1;
  return Math.min(RANGE_ROWS, prefixesOf(lo, hi, operand.field.width).length);
}

/** What entries take of a device's rows, about: nothing is minimised, and ranges come out small. */
export function estimateRows(profile: TcamProfile): Estimates {
  const plans = planProfileTables(profile);
  const limits = deviceLimits(profile);
  const rowsIn = (entry: Entry): readonly number[] =>
    plans.map((plan) => {
      const tests = testsIn(entry, plan);
      if (tests === null) return 0;
      return Math.min(
        MOST_ROWS,
        tests.reduce((product, test) => product * rowsOfTest(test), 1),
      );
    });
  return {
    room: limits.map(({ resource, limit }) => ({ resource, limit })),
    costOf: (entry) => {
      const rows = rowsIn(entry);
      return limits.map(({ shareOf }) =>
        rows.reduce((sum, own, at) => sum + own * shareOf(plans[at]?.name ?? ''), 0),
      );
    },
    isExact: false,
  };
}
