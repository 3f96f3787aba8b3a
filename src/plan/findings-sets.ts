import { plain } from '../ir/operand.ts';
import { formatTest } from '../ir/print.ts';
import { sortedElements } from '../ir/region.ts';
import type { ElementSet, Operand, Table } from '../ir/ruleset.ts';
import { mergeRanges } from './match.ts';
import type { Finding } from './report.ts';

/** What rules look up in each named set, to print its elements with. */
function keysOf({ chains }: Table): ReadonlyMap<string | null, Operand> {
  const steps = chains.flatMap(({ rules }) => rules.flatMap((rule) => rule.steps));
  return new Map(
    steps.flatMap((step) => {
      if (step.kind !== 'test' || step.test.kind !== 'lookup') return [];
      const [only] = step.test.key;
      return only === undefined ? [] : [[step.test.set.name, only] as const];
    }),
  );
}

function describeRange(lo: bigint, hi: bigint, key: Operand | undefined): string {
  if (key === undefined) return lo === hi ? `${lo}` : `${lo}-${hi}`;
  const operand = plain(key.field);
  return formatTest({ kind: 'compare', operand, lo, hi, negated: false, implicit: false });
}

/** Ranges that overlap or touch; a set without ranges cannot hold merged ones. */
function explainElements(
  { elements, unknown }: ElementSet,
  key: Operand | undefined,
): Pick<Finding, 'code' | 'message'> | null {
  if (unknown !== null || elements.verdicts !== null) return null;
  const sorted = sortedElements(elements);
  if (sorted === null || sorted.lo.every((low, at) => low === sorted.hi[at])) return null;
  const merged = mergeRanges(sorted.lo, sorted.hi).lo.length;
  if (merged === sorted.lo.length) return null;
  const overlap = sorted.lo.findIndex((low, i) => i > 0 && low <= (sorted.hi[i - 1] ?? -1n));
  const touch = sorted.lo.findIndex((low, i) => i > 0 && low === (sorted.hi[i - 1] ?? -2n) + 1n);
  const at = overlap > 0 ? overlap : touch;
  const pair = [at - 1, at].map((i) => {
    const low = sorted.lo[i] ?? 0n;
    return describeRange(low, sorted.hi[i] ?? low, key);
  });
  const counts = `${sorted.lo.length} elements can be written as ${merged}`;
  const how = overlap > 0 ? 'overlap' : 'touch';
  const code = overlap > 0 ? 'finding/overlapping-elements' : 'finding/mergeable-elements';
  return { code, message: `${counts}: ${pair.join(' and ')} ${how}` };
}

/** Named sets of a table whose ranges overlap or touch; nft itself merges those that stand in rules. */
export function explainSets(table: Table): readonly Finding[] {
  const keys = keysOf(table);
  return table.sets.flatMap((set): readonly Finding[] => {
    const found = explainElements(set, keys.get(set.name));
    if (found === null) return [];
    const message = `set ${table.family} ${table.name} ${set.name}: ${found.message}`;
    return [{ ...found, rule: null, by: [], message }];
  });
}
