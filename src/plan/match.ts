import type { Entry, ViewName } from '../ir/classifier.ts';
import { fieldKey } from '../ir/fields.ts';
import { isPlain } from '../ir/operand.ts';
import { intervalOf, sortedElements } from '../ir/region.ts';
import type { ElementSet, Operand, Test } from '../ir/ruleset.ts';
import { ones } from '../support/bits.ts';
import { remember } from '../support/remember.ts';

/** Inclusive ranges in ascending order that neither overlap nor touch. */
export interface Values {
  readonly lo: readonly bigint[];
  readonly hi: readonly bigint[];
  /** Equal for two sets of values only if they are the same. */
  readonly id: string;
}

/**
 * What an entry asks of a packet, as far as it can be compared: a field by its view and place has a
 * value out of a set. Every such test also asks that the field is there, negated ones too.
 */
export interface Match {
  readonly fields: ReadonlyMap<string, Values>;
  /** Other tests, spelled so that the same text means the same test. */
  readonly others: readonly string[];
  /** It also asks what cannot be compared, so it may match less than the rest says. */
  readonly isNarrower: boolean;
  /** The tests that no packet meets together; null when there may be such packets. */
  readonly contradiction: readonly Test[] | null;
}

const LONGEST_ID = 16;
let nextId = 0;

/** Puts ranges in ascending order of `lo` together where they overlap or touch. */
export function mergeRanges(lo: readonly bigint[], hi: readonly bigint[]): Values {
  const from: bigint[] = [];
  const to: bigint[] = [];
  for (const [at, low] of lo.entries()) {
    const high = hi[at] ?? low;
    const last = to.at(-1);
    if (last === undefined || low > last + 1n) {
      from.push(low);
      to.push(high);
    } else if (high > last) to[to.length - 1] = high;
  }
  return { lo: from, hi: to, id: nameRanges(from, to) };
}

function nameRanges(lo: readonly bigint[], hi: readonly bigint[]): string {
  if (lo.length > LONGEST_ID) {
    nextId += 1;
    return `#${nextId}`;
  }
  return lo.map((low, at) => (low === hi[at] ? low : `${low}-${hi[at]}`)).join();
}

/** Everything of `width` bits that is not in `values`. */
function complement({ lo, hi }: Values, width: number): Values {
  const from: bigint[] = [];
  const to: bigint[] = [];
  let next = 0n;
  for (const [at, low] of lo.entries()) {
    if (low > next) {
      from.push(next);
      to.push(low - 1n);
    }
    next = (hi[at] ?? low) + 1n;
  }
  if (next <= ones(width)) {
    from.push(next);
    to.push(ones(width));
  }
  return { lo: from, hi: to, id: nameRanges(from, to) };
}

/** The values in both. */
export function intersect(a: Values, b: Values): Values {
  if (a.id === b.id) return a;
  const lo: bigint[] = [];
  const hi: bigint[] = [];
  for (let i = 0, j = 0; i < a.lo.length && j < b.lo.length; ) {
    const [aLo = 0n, aHi = 0n, bLo = 0n, bHi = 0n] = [a.lo[i], a.hi[i], b.lo[j], b.hi[j]];
    let low = aLo;
    if (bLo > low) low = bLo;
    let high = aHi;
    if (bHi < high) high = bHi;
    if (low <= high) {
      lo.push(low);
      hi.push(high);
    }
    if (aHi < bHi) i += 1;
    else j += 1;
  }
  return { lo, hi, id: nameRanges(lo, hi) };
}

/** The values in either. */
export function unite(a: Values, b: Values): Values {
  if (a.id === b.id) return a;
  const lo = [...a.lo, ...b.lo];
  const hi = [...a.hi, ...b.hi];
  const order = [...lo.keys()].sort((i, j) => ((lo[i] ?? 0n) < (lo[j] ?? 0n) ? -1 : 1));
  return mergeRanges(
    order.map((i) => lo[i] ?? 0n),
    order.map((i) => hi[i] ?? 0n),
  );
}

/** Index of the range that holds `low` to `high`; -1 when none does. */
export function findRange(
  { lo, hi }: Pick<Values, 'lo' | 'hi'>,
  low: bigint,
  high: bigint,
): number {
  let from = 0;
  let to = lo.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if ((lo[middle] ?? 0n) <= low) from = middle + 1;
    else to = middle;
  }
  const end = hi[from - 1];
  return end !== undefined && end >= high ? from - 1 : -1;
}

/** Whether all of `a` is in `b`. */
export function isWithin(a: Values, b: Values): boolean {
  if (a.id === b.id) return true;
  return a.lo.every((low, at) => findRange(b, low, a.hi[at] ?? low) >= 0);
}

const setValues = new WeakMap<ElementSet['elements'], Values>();

function valuesOfSet(elements: ElementSet['elements']): Values | null {
  const known = setValues.get(elements);
  if (known !== undefined) return known;
  const sorted = sortedElements(elements);
  if (sorted === null) return null;
  const values = mergeRanges(sorted.lo, sorted.hi);
  setValues.set(elements, values);
  return values;
}

interface TestedValues {
  readonly key: string;
  readonly values: Values;
}

/** The field that a test asks for and the values that make it hold; null when it is none such. */
const valuesOf = remember((test: Test): TestedValues | null => {
  if (test.kind === 'unknown') return null;
  const found = test.kind === 'compare' ? comparedValues(test) : lookedUpValues(test);
  if (found === null) return null;
  const { operand, values } = found;
  const key = fieldKey(operand.field);
  return { key, values: test.negated ? complement(values, operand.field.width) : values };
});

interface AskedValues {
  readonly operand: Operand;
  readonly values: Values;
}

function comparedValues(test: Extract<Test, { kind: 'compare' }>): AskedValues | null {
  const interval = intervalOf(test);
  if (interval === null || interval.lo > interval.hi) return null;
  const { lo, hi } = interval;
  const values = { lo: [lo], hi: [hi], id: lo === hi ? `${lo}` : `${lo}-${hi}` };
  return { operand: test.operand, values };
}

function lookedUpValues({ key, set }: Extract<Test, { kind: 'lookup' }>): AskedValues | null {
  const [operand] = key;
  if (operand === undefined || key.length > 1 || set.unknown !== null) return null;
  if (!isPlain(operand)) return null;
  const values = valuesOfSet(set.elements);
  return values === null ? null : { operand, values };
}

const setIds = new WeakMap<ElementSet['elements'], number>();

function spellSet(elements: ElementSet['elements']): string {
  let id = setIds.get(elements);
  if (id === undefined) {
    nextId += 1;
    id = nextId;
    setIds.set(elements, id);
  }
  return `set${id}`;
}

function spellOperand({ field, mask, xor, shift }: Operand): string {
  return `${fieldKey(field)}&${mask}^${xor}<${shift}`;
}

/** Spells tests alike that hold for the same packets; null when it cannot be said when one holds. */
export function spellTest(test: Test, view: ViewName): string | null {
  switch (test.kind) {
    case 'unknown':
      return null;
    case 'compare': {
      const { operand, lo, hi, negated } = test;
      return `${view} ${spellOperand(operand)} ${negated ? '!' : ''}${lo}-${hi}`;
    }
    case 'lookup': {
      const { key, set, negated } = test;
      if (set.unknown !== null) return null;
      const operands = key.map(spellOperand).join('.');
      return `${view} ${operands} ${negated ? '!' : ''}${spellSet(set.elements)}`;
    }
  }
}

function isEmptyLookup(test: Test): boolean {
  if (test.kind !== 'lookup' || test.negated || test.set.unknown !== null) return false;
  return test.set.elements.lo.length === 0;
}

const viewKeys: Readonly<Record<ViewName, Map<string, string>>> = {
  ingress: new Map(),
  l3: new Map(),
};

/** Where a field is, by view: its key with the view's name before it. */
function viewKey(view: ViewName, key: string): string {
  let known = viewKeys[view].get(key);
  if (known === undefined) {
    known = `${view} ${key}`;
    viewKeys[view].set(key, known);
  }
  return known;
}

const comparedIn: Readonly<Record<ViewName, (test: Test) => string | null>> = {
  ingress: remember((test) => readCompared(test, 'ingress')),
  l3: remember((test) => readCompared(test, 'l3')),
};

function readCompared(test: Test, view: ViewName): string | null {
  const asked = valuesOf(test);
  return asked === null ? null : viewKey(view, asked.key);
}

/** The name under which a match of this view has what a test asks; null where it is none of its fields. */
export function comparedField(test: Test, view: ViewName): string | null {
  return comparedIn[view](test);
}

/** Reads an entry's tests; meta fields too are compared only within one view. */
export function matchOf({ tests, view }: Pick<Entry, 'tests' | 'view'>): Match {
  const fields = new Map<string, Values>();
  const others: string[] = [];
  let isNarrower = false;
  let contradiction: readonly Test[] | null = null;
  for (const test of tests) {
    if (isEmptyLookup(test)) contradiction ??= [test];
    const asked = valuesOf(test);
    if (asked !== null) {
      const key = viewKey(view, asked.key);
      const old = fields.get(key);
      const values = old === undefined ? asked.values : intersect(old, asked.values);
      fields.set(key, values);
      if (values.lo.length > 0) continue;
      contradiction ??= tests.filter((one) => valuesOf(one)?.key === asked.key);
      continue;
    }
    const spelled = spellTest(test, view);
    if (spelled === null) isNarrower = true;
    else if (!others.includes(spelled)) others.push(spelled);
  }
  return { fields, others: others.sort(), isNarrower, contradiction };
}

/** Whether `b` certainly matches every packet that `a` matches. */
export function implies(a: Match, b: Match): boolean {
  if (b.isNarrower || !b.others.every((other) => a.others.includes(other))) return false;
  for (const [key, values] of b.fields) {
    const own = a.fields.get(key);
    if (own === undefined || !isWithin(own, values)) return false;
  }
  return true;
}

/** Whether certainly no packet matches both. */
export function isDisjoint(a: Match, b: Match): boolean {
  if (a.contradiction !== null || b.contradiction !== null) return true;
  for (const [key, values] of a.fields) {
    const other = b.fields.get(key);
    if (other !== undefined && intersect(values, other).lo.length === 0) return true;
  }
  return false;
}

/** Whether both certainly match the same packets. */
export function isSameMatch(a: Match, b: Match): boolean {
  return !a.isNarrower && implies(a, b) && implies(b, a);
}
