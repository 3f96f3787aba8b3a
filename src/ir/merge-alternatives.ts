import type { Classifier, Entry, Target } from './classifier.ts';
import { type Field, fieldKey } from './fields.ts';
import { isPlain, joinKey, plain, splitKey } from './operand.ts';
import { intervalOf } from './region.ts';
import { formatRuleId, type Operand, type SetElements, type Test } from './ruleset.ts';

/** A classifier with fewer entries, and which rules stand behind each merged one. */
export interface Merged {
  readonly classifier: Classifier;
  /** By the rule that a merged entry goes under: all rules that are in it, that one included. */
  readonly members: ReadonlyMap<string, readonly string[]>;
}

/** Entries below this are left as they are: asking them one by one is as cheap. */
const LEAST_MERGED = 4;
/** Elements that one entry may become. */
const MOST_ELEMENTS = 100_000;

type Range = readonly [lo: bigint, hi: bigint];
/** One range a field. */
type Box = readonly Range[];

/** What an entry asks: tests that stay, and boxes of which the packet must be in one. */
interface Shape {
  readonly key: string;
  readonly common: readonly Test[];
  readonly fields: readonly Field[];
  readonly boxes: readonly Box[];
}

interface Choice {
  readonly fields: readonly Field[];
  readonly boxes: readonly Box[];
}

/** The boxes that a test asks for, or null when it is none for a set. */
function choiceOf(test: Test): Choice | null {
  if (test.kind === 'unknown' || test.negated) return null;
  if (test.kind === 'compare') {
    const interval = intervalOf(test);
    if (interval === null || interval.field.base === 'meta') return null;
    return { fields: [interval.field], boxes: [[[interval.lo, interval.hi]]] };
  }
  const { key, set } = test;
  const { parts, lo, hi } = set.elements;
  if (!key.every((operand) => isPlain(operand) && operand.field.base !== 'meta')) return null;
  const boxes = lo.map((low, index) => {
    const highs = splitKey(parts, hi[index] ?? low);
    return splitKey(parts, low).map((value, part): Range => [value, highs[part] ?? value]);
  });
  return { fields: key.map(({ field }) => field), boxes };
}

function describeOperand({ field, mask, xor, shift }: Operand): string {
  return `${fieldKey(field)}&${mask}^${xor}<${shift}`;
}

/** Two tests with the same text are the same; sets are told apart as objects. */
function describeTest(test: Test, ids: Map<object, number>): string {
  switch (test.kind) {
    case 'compare':
      return `${test.negated}${describeOperand(test.operand)}=${test.lo}-${test.hi}`;
    case 'lookup': {
      const id = ids.get(test.set.elements) ?? ids.size;
      ids.set(test.set.elements, id);
      return `${test.negated}${test.key.map(describeOperand).join('.')}@${id}`;
    }
    case 'unknown':
      return test.text;
  }
}

/** Null where nothing could be merged. */
function shapeOf({ tests }: Entry, ids: Map<object, number>): Shape | null {
  const common: Test[] = [];
  let choice: Choice = { fields: [], boxes: [[]] };
  for (const test of tests) {
    const own = choiceOf(test);
    if (own === null) {
      common.push(test);
      continue;
    }
    if (choice.boxes.length * own.boxes.length > MOST_ELEMENTS) return null;
    choice = {
      fields: [...choice.fields, ...own.fields],
      boxes: choice.boxes.flatMap((box) => own.boxes.map((other) => [...box, ...other])),
    };
  }
  const names = choice.fields.map(fieldKey);
  if (names.length === 0 || new Set(names).size < names.length) return null;
  const order = [...names.keys()].sort((a, b) => ((names[a] ?? '') < (names[b] ?? '') ? -1 : 1));
  const pick = <T>(list: readonly T[]): T[] => order.flatMap((index) => list[index] ?? []);
  const kept = common.map((test) => describeTest(test, ids)).sort();
  return {
    key: [...kept, '|', ...pick(names)].join(' '),
    common,
    fields: pick(choice.fields),
    boxes: choice.boxes.map((box) => order.map((index): Range => box[index] ?? [0n, 0n])),
  };
}

function compare(a: bigint, b: bigint): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

/** Ranges of one field without overlaps, in ascending order. */
function unite(ranges: readonly Range[]): Range[] {
  const sorted = [...ranges].sort((a, b) => compare(a[0], b[0]));
  const united: Range[] = [];
  for (const [lo, hi] of sorted) {
    const last = united.at(-1);
    if (last === undefined || lo > last[1] + 1n) united.push([lo, hi]);
    else if (hi > last[1]) united[united.length - 1] = [last[0], hi];
  }
  return united;
}

function elementsOf(fields: readonly Field[], boxes: readonly Box[]): SetElements {
  const parts = fields.map(({ width }) => width);
  const single = parts.length === 1;
  const ranges: Range[] = single
    ? unite(boxes.flat())
    : boxes.map((box): Range => {
        const side = (end: 0 | 1): bigint =>
          joinKey(
            parts,
            box.map((range) => range[end]),
          );
        return [side(0), side(1)];
      });
  const unique = [...new Map(ranges.map((range) => [range.join('-'), range])).values()];
  const lo = unique.map(([low]) => low);
  const isExact = unique.every(([low, high]) => low === high);
  return { parts, lo, hi: isExact ? lo : unique.map(([, high]) => high), verdicts: null };
}

/** One entry that asks what all of them ask. */
function mergeGroup(entries: readonly Entry[], shapes: readonly Shape[]): Entry {
  const [entry] = entries;
  const [shape] = shapes;
  if (entry === undefined || shape === undefined) throw new Error('bug: an empty group');
  const elements = elementsOf(
    shape.fields,
    shapes.flatMap(({ boxes }) => boxes),
  );
  const test: Test = {
    kind: 'lookup',
    key: shape.fields.map(plain),
    set: { name: null, elements, unknown: null },
    negated: false,
  };
  return { ...entry, tests: [...shape.common, test] };
}

function sameEnd(a: Target, b: Target): boolean {
  if (a.kind === 'entry') return b.kind === 'entry' && a.index === b.index;
  return a.kind === b.kind;
}

/** Entries that ask one after the other and all lead to the same place, from `first` on. */
function findRun(
  entries: readonly Entry[],
  ways: readonly number[],
  first: number,
): readonly number[] {
  const run = [first];
  const start = entries[first];
  if (start === undefined || start.counts.length > 0) return run;
  for (let last = start; last.otherwise.kind === 'entry'; ) {
    const { index } = last.otherwise;
    const next = entries[index];
    if (next === undefined || ways[index] !== 1 || next.view !== start.view) break;
    if (next.counts.length > 0 || next.tests.length === 0) break;
    if (!sameEnd(next.then, start.then)) break;
    run.push(index);
    last = next;
  }
  return run;
}

function countWays(entries: readonly Entry[]): number[] {
  const ways = entries.map((_, index): number => (index === 0 ? 1 : 0));
  for (const { tests, then, otherwise } of entries) {
    for (const target of tests.length > 0 ? [then, otherwise] : [then]) {
      if (target.kind === 'entry') ways[target.index] = (ways[target.index] ?? 0) + 1;
    }
  }
  return ways;
}

/**
 * Alternatives asked one after the other (500 rules that each drop a port) as one entry that looks
 * into a set. Needs a specialised classifier; keeps verdicts and counters of every frame, except that
 * a later fragment may be handed on. What has no way to it any more stays where it was.
 */
export function mergeAlternatives(classifier: Classifier): Merged {
  const entries = [...classifier.entries];
  const ways = countWays(entries);
  const ids = new Map<object, number>();
  const members = new Map<string, string[]>();
  const done = new Set<number>();
  for (const first of classifier.entries.keys()) {
    if (done.has(first)) continue;
    const run = findRun(entries, ways, first);
    for (const index of run) done.add(index);
    if (run.length < LEAST_MERGED) continue;
    const rows = run.flatMap((index) => {
      const entry = entries[index];
      return entry === undefined ? [] : { entry, shape: shapeOf(entry, ids) };
    });
    const groups = new Map<string, typeof rows>();
    for (const [position, row] of rows.entries()) {
      const key = row.shape?.key ?? `#${position}`;
      const group = groups.get(key);
      if (group === undefined) groups.set(key, [row]);
      else group.push(row);
    }
    const merged = [...groups.values()].flatMap((group) => {
      const shapes = group.flatMap(({ shape }) => shape ?? []);
      const own = group.map(({ entry }) => entry);
      if (group.length < LEAST_MERGED || shapes.length < group.length) return own;
      const names = own.flatMap(({ rule }) => (rule === null ? [] : formatRuleId(rule)));
      const [name] = names;
      if (name !== undefined) members.set(name, names);
      return mergeGroup(own, shapes);
    });
    const behind = rows.at(-1)?.entry.otherwise ?? { kind: 'accept' };
    for (const [position, entry] of merged.entries()) {
      const at = run[position];
      const next = run[position + 1];
      if (at === undefined) throw new Error('bug: more entries after merging');
      const isLast = position === merged.length - 1 || next === undefined;
      const otherwise: Target = isLast ? behind : { kind: 'entry', index: next, uncertain: false };
      entries[at] = { ...entry, otherwise };
    }
  }
  return { classifier: { ...classifier, entries }, members };
}
