import { type Field, META } from '../ir/fields.ts';
import type { ElementSet, Family, Operand, Step, Test } from '../ir/ruleset.ts';
import { ones } from '../support/bits.ts';
import { remember } from '../support/remember.ts';
import { isLongName, isPresence } from './bytecode-machine.ts';

/** A value of `width` bits loaded from `base` at bit `offset`: ((load & mask) ^ xor) << shift. */
interface Load {
  readonly base: string;
  readonly offset: number;
  readonly width: number;
  readonly mask: bigint;
  readonly xor: bigint;
  readonly shift: number;
}

interface Equality {
  readonly load: Load;
  readonly value: bigint;
  /** The same in words. */
  readonly text: string;
}

interface Range {
  readonly load: Load;
  /** The highest value the load can have. */
  readonly top: bigint;
  readonly lo: bigint;
  readonly hi: bigint;
}

interface Lookup {
  readonly text: string;
  readonly key: readonly Operand[];
  readonly set: ElementSet;
}

/** Tests up to the next thing that happens. Their order is of no consequence, that of segments is. */
interface Segment {
  readonly equalities: Equality[];
  /** Not negated, by their loads; several of one load are met together. */
  readonly ranges: Map<string, Range>;
  readonly others: string[];
  readonly lookups: Lookup[];
  /** Tests among them that cannot be evaluated. */
  unknown: boolean;
  /** The count, verdict, vmap or effect that ends it. */
  end: string;
  readonly effect: Extract<Step, { kind: 'effect' }> | null;
}

/** How two lists of steps differ; for reports. */
export interface Difference {
  readonly ours: readonly string[];
  readonly theirs: readonly string[];
  /** All that ours evaluates is the same, but theirs evaluates more. */
  readonly isWeaker: boolean;
}

/** Interface indices are names for us and numbers in registers, so they are left out. */
function isIndex(base: string): boolean {
  return base === META.iif.name || base === META.oif.name;
}

/** Whether the field is a device, which rules name and registers number. */
export function isDevice(field: Field): boolean {
  return field.base === 'meta' && isIndex(field.name);
}

/** The operand as a load of whole bytes, which is what the kernel loads; shifts right are undone. */
function toLoad(operand: Operand): Load {
  const { field, mask, xor } = operand;
  const width: number = field.width;
  const shift = Math.max(operand.shift, 0);
  if (field.base === 'meta') return { base: field.name, offset: 0, width, mask, xor, shift };
  const offset = Math.floor(field.offset / 8) * 8;
  const end = Math.ceil((field.offset + width) / 8) * 8;
  const pad = BigInt(end - field.offset - width);
  return {
    base: field.base,
    offset,
    width: end - offset,
    mask: mask << pad,
    xor: xor << pad,
    shift,
  };
}

/** Bits that a value of the operand has to be shifted left to be one of `toLoad`. */
function padOf({ field, shift }: Operand): number {
  const end = Math.ceil((field.offset + field.width) / 8) * 8;
  const pad = field.base === 'meta' ? 0 : end - field.offset - field.width;
  return pad + Math.max(-shift, 0);
}

function describe(load: Load, operator: string, ...values: readonly bigint[]): string {
  if (isIndex(load.base)) return `${load.base} ${operator}`;
  const { base, offset, width, mask, shift } = load;
  const isExact = operator === 'eq' || operator === 'neq';
  if (isExact && shift === 0 && width > 8 && (mask & 0xffn) === 0n) {
    // nft loads only the bytes that a prefix covers.
    const shorter = { ...load, width: width - 8, mask: mask >> 8n, xor: load.xor >> 8n };
    return describe(shorter, operator, ...values.map((value) => value >> 8n));
  }
  // An exact comparison of `x ^ c` is one of `x` with another value.
  const fold = isExact ? load.xor : 0n;
  const xor = load.xor ^ fold;
  const text = values.map((value) => (value ^ fold).toString(16));
  return `${base}@${offset}+${width}&${mask.toString(16)}^${xor.toString(16)}<<${shift} ${operator} ${text.join(' ')}`;
}

function describeKey(key: readonly Operand[]): string {
  return key.map((operand) => describe(toLoad(operand), '')).join('. ');
}

/** A key of the set as the kernel has it: every part in whole bytes. */
export function widen(key: readonly Operand[], parts: readonly number[], value: bigint): bigint {
  let rest = value;
  let at = 0n;
  let wide = 0n;
  for (let index = parts.length - 1; index >= 0; index -= 1) {
    const operand = key[index];
    const width = BigInt(parts[index] ?? 0);
    if (operand === undefined) continue;
    wide |= ((rest & ones(Number(width))) << BigInt(padOf(operand))) << at;
    at += BigInt(toLoad(operand).width);
    rest >>= width;
  }
  return wide;
}

function showSet(key: readonly Operand[], { name, elements }: ElementSet): string {
  if (name !== null) return `@${name}`;
  const { lo, hi, verdicts, parts } = elements;
  const isIndexed = key.some(({ field }) => isDevice(field));
  const items = lo.map((low, index) => {
    const verdict = verdicts?.[index];
    const chain = verdict !== undefined && 'chain' in verdict ? ` ${verdict.chain}` : '';
    const text = `${verdict?.kind ?? ''}${chain}`;
    if (isIndexed) return `* ${text}`;
    const high = hi[index] ?? low;
    return `${widen(key, parts, low).toString(16)}-${widen(key, parts, high).toString(16)} ${text}`;
  });
  return items.sort().join(', ');
}

function lookupOf(key: readonly Operand[], set: ElementSet, negated: boolean): Lookup {
  const text = `${negated ? 'not ' : ''}in ${describeKey(key)} { ${showSet(key, set)} }`;
  return { text, key, set };
}

function isReadable(set: ElementSet): boolean {
  return set.name !== null || set.unknown === null || set.unknown.code === AMBIGUOUS.code;
}

/** Of a set from bytecode that is printed alike with and without intervals. */
export const AMBIGUOUS = {
  code: 'set/ambiguous',
  message: 'its elements may be single keys or the borders of intervals',
} as const;

function newSegment(): Segment {
  return {
    equalities: [],
    ranges: new Map(),
    others: [],
    lookups: [],
    unknown: false,
    end: '',
    effect: null,
  };
}

/** The bits that all values from `lo` to `hi` share where these are all values with them, else null. */
function prefixOf(lo: bigint, hi: bigint): bigint | null {
  const free = lo ^ hi;
  return (free & (free + 1n)) === 0n && (lo & free) === 0n ? free : null;
}

function isUnchanged({ mask, xor, shift, width }: Load): boolean {
  return mask === ones(width) && xor === 0n && shift === 0;
}

type Compare = Extract<Test, { kind: 'compare' }>;

function demand(load: Load, value: bigint): Equality {
  return { load, value, text: describe(load, 'eq', value) };
}

/** What a test demands where it is a plain equality, else null. */
const equalityOf = remember((test: Compare): Equality | null => {
  if (test.lo !== test.hi || test.negated || isLongName(test)) return null;
  return demand(toLoad(test.operand), test.lo << BigInt(padOf(test.operand)));
});

function addCompare(segment: Segment, test: Compare): void {
  const equality = equalityOf(test);
  if (equality !== null) {
    segment.equalities.push(equality);
    return;
  }
  const load = toLoad(test.operand);
  const pad = BigInt(padOf(test.operand));
  const lo = test.lo << pad;
  const hi = test.hi << pad;
  if (test.lo === test.hi) {
    if (isLongName(test)) {
      segment.others.push(`${load.base} ${test.negated ? 'not ' : ''}long ${lo.toString(16)}`);
    } else segment.others.push(describe(load, 'neq', lo));
    return;
  }
  if (test.negated) {
    const free = isUnchanged(load) ? prefixOf(lo, hi) : null;
    if (free === null || free === load.mask) segment.others.push(describe(load, 'outside', lo, hi));
    else segment.others.push(describe({ ...load, mask: load.mask ^ free }, 'neq', lo));
    return;
  }
  const key = describe(load, '');
  const known = segment.ranges.get(key);
  segment.ranges.set(key, {
    load,
    top: ones(test.operand.field.width) << pad,
    lo: known !== undefined && known.lo > lo ? known.lo : lo,
    hi: known !== undefined && known.hi < hi ? known.hi : hi,
  });
}

/** Ranges are the same as equalities of leading bits where they can be. */
function closeRanges(segment: Segment): void {
  for (const { load, top, lo, hi } of segment.ranges.values()) {
    const free = isUnchanged(load) ? prefixOf(lo, hi) : null;
    if (lo === 0n && hi === top) segment.others.push(describe(load, 'present'));
    else if (free === null) segment.others.push(describe(load, 'within', lo, hi));
    else segment.equalities.push(demand({ ...load, mask: load.mask ^ free }, lo));
  }
}

/** A set that holds one thing is the same as a comparison, which nft lists instead. */
function soleCompare(test: Extract<Test, { kind: 'lookup' }>): Test | null {
  const [operand, more] = test.key;
  const { name, unknown, elements } = test.set;
  const [lo] = elements.lo;
  const [hi] = elements.hi;
  if (operand === undefined || more !== undefined || elements.lo.length !== 1) return null;
  if (name !== null || unknown !== null || lo === undefined || hi === undefined) return null;
  if (isDevice(operand.field)) return null;
  return { kind: 'compare', operand, lo, hi, negated: test.negated, implicit: false };
}

function addTest(segment: Segment, test: Test): void {
  if (test.kind === 'unknown') {
    segment.unknown = true;
  } else if (test.kind === 'lookup') {
    const sole = soleCompare(test);
    if (sole !== null) addTest(segment, sole);
    else if (!isReadable(test.set)) segment.unknown = true;
    else segment.lookups.push(lookupOf(test.key, test.set, test.negated));
  } else if (!isPresence(test)) {
    addCompare(segment, test);
  }
}

/** Without loads that only have to succeed, where another comparison of the same load sees to that. */
function withoutIdle(others: readonly string[]): string[] {
  const idle = ' present ';
  return others.filter((text) => {
    if (!text.endsWith(idle)) return true;
    const load = `${text.slice(0, -idle.length)} `;
    return !others.some((other) => other !== text && other.startsWith(load));
  });
}

/** `meta protocol ip` is always true in a table of family ip, and nft leaves it out when it lists. */
function isOwnFamily(family: Family, test: Test): boolean {
  if (test.kind !== 'compare' || test.operand.field !== META.protocol) return false;
  const own = family === 'ip' ? 0x0800n : family === 'ip6' ? 0x86ddn : null;
  return !test.negated && test.lo === own && test.hi === own;
}

function isGate(step: Step): boolean {
  return step.kind === 'test' && step.test.kind === 'unknown' && step.test.stateful;
}

/** A limit behind which nothing stands decides nothing. */
function withoutLastGates(steps: readonly Step[]): readonly Step[] {
  let end = steps.length;
  while (end > 0 && steps.slice(end - 1, end).some(isGate)) end -= 1;
  return steps.slice(0, end);
}

function toSegments(family: Family, steps: readonly Step[]): readonly Segment[] {
  const done: Segment[] = [];
  let open = newSegment();
  const finish = (end: string, effect: Segment['effect'] = null): void => {
    closeRanges(open);
    done.push({ ...open, others: withoutIdle(open.others), end, effect });
    open = newSegment();
  };
  for (const step of withoutLastGates(steps)) {
    switch (step.kind) {
      case 'test':
        if (isGate(step)) finish('gate');
        else if (!isOwnFamily(family, step.test)) addTest(open, step.test);
        break;
      case 'count':
        finish(step.counter.kind === 'named' ? `count ${step.counter.name}` : 'count');
        break;
      case 'verdict':
        finish(`${step.verdict.kind} ${'chain' in step.verdict ? step.verdict.chain : ''}`);
        break;
      case 'vmap':
        open.unknown ||= !isReadable(step.map);
        open.lookups.push(lookupOf(step.key, step.map, false));
        finish('vmap');
        break;
      case 'effect':
        finish(`effect ${step.outcome}`, step);
        break;
    }
  }
  finish('');
  return done;
}

/** The bits that equalities demand, however their loads were merged or split. */
function bitsOf(segment: Segment): readonly string[] {
  const bits = new Map<string, string>();
  const others: string[] = [];
  for (const { load, value, text } of segment.equalities) {
    if (load.shift !== 0) {
      others.push(text);
    } else if (isIndex(load.base)) {
      bits.set(load.base, '*');
    } else {
      const expected = value ^ load.xor;
      if ((expected & ~load.mask) !== 0n) others.push(`impossible ${text}`);
      for (let bit = 0; bit < load.width; bit += 1) {
        const place = BigInt(load.width - 1 - bit);
        if (((load.mask >> place) & 1n) === 0n) continue;
        const key = `${load.base}:${String(load.offset + bit).padStart(5, '0')}`;
        const wanted = String((expected >> place) & 1n);
        const known = bits.get(key);
        bits.set(key, known === undefined || known === wanted ? wanted : 'contradiction');
      }
    }
  }
  return [...[...bits].map(([key, value]) => `${key}=${value}`), ...others];
}

function otherTokens({ others, lookups }: Segment): readonly string[] {
  return [...others, ...lookups.map(({ text }) => text)];
}

function isSubset(part: readonly string[], whole: readonly string[]): boolean {
  if (part.every((token, at) => token === whole[at])) return true;
  const known = new Set(whole);
  return part.every((token) => known.has(token));
}

/** Whether two readings of one named set, each for its key, hold the same. */
export type SameSet = (ours: KeyedSet, theirs: KeyedSet) => boolean;

/** A set with the key that is looked up in it. */
export type KeyedSet = Pick<Lookup, 'key' | 'set'>;

function haveSameSets(ours: Segment, theirs: Segment, sameSet: SameSet): boolean {
  return ours.lookups.every((own) => {
    if (own.set.name === null || own.set.unknown !== null) return true;
    const pairs = theirs.lookups.filter(({ text }) => text === own.text);
    return pairs.every((other) => sameSet(own, other));
  });
}

/** What an effect says it rewrites must be within what it really rewrites. */
function haveSameChanges(ours: Segment['effect'], theirs: Segment['effect']): boolean {
  if (ours === null || theirs === null) return ours === theirs;
  if (ours.changes === 'everything') return true;
  if (theirs.changes === 'everything') return false;
  const [real] = theirs.changes;
  const [said] = ours.changes;
  if (real === undefined || said === undefined) return real === said;
  if (real.base === 'meta') return real === said;
  const isInside =
    said.offset >= real.offset && said.offset + said.width <= real.offset + real.width;
  return said.base === real.base && isInside;
}

type Agreement = 'same' | 'weaker' | 'different';

function compareTokens(
  ours: Segment,
  theirs: Segment,
  tokens: (segment: Segment) => readonly string[],
): Agreement {
  const own = tokens(ours);
  const real = tokens(theirs);
  if (!isSubset(own, real)) return 'different';
  if (!ours.unknown) return !theirs.unknown && isSubset(real, own) ? 'same' : 'different';
  return theirs.unknown && isSubset(real, own) ? 'same' : 'weaker';
}

function compareSegments(ours: Segment, theirs: Segment, sameSet: SameSet): Agreement {
  if (ours.end !== theirs.end || !haveSameChanges(ours.effect, theirs.effect)) return 'different';
  if (!haveSameSets(ours, theirs, sameSet)) return 'different';
  // Cheap and enough for almost all rules; merged or split loads show only bit by bit.
  const cheap = compareTokens(ours, theirs, (segment) => [
    ...segment.equalities.map(({ text }) => text),
    ...otherTokens(segment),
  ]);
  if (cheap === 'same') return cheap;
  return compareTokens(ours, theirs, (segment) => [...bitsOf(segment), ...otherTokens(segment)]);
}

function show(segments: readonly Segment[]): readonly string[] {
  return segments.flatMap((segment) => [
    ...bitsOf(segment),
    ...otherTokens(segment),
    ...(segment.unknown ? ['unknown'] : []),
    ...(segment.end === '' ? [] : [segment.end]),
  ]);
}

/** The steps of a rule, made ready to be compared. */
export interface ComparedSteps {
  readonly steps: readonly Step[];
  readonly segments: readonly Segment[];
}

/** Makes the steps of a rule in a table of this family ready to be compared. */
export function prepareSteps(family: Family, steps: readonly Step[]): ComparedSteps {
  return { steps, segments: toSegments(family, steps) };
}

/**
 * Compares steps read from a listing with those of the bytecode: null when everything that ours
 * evaluates, counts and decides is what theirs does, in the same order. `sameSet` compares the contents
 * of two readings of a named set.
 */
export function compareSteps(
  { segments: own }: ComparedSteps,
  { segments: real }: ComparedSteps,
  sameSet: SameSet,
): Difference | null {
  const agreements = own.map((segment, index) => {
    const other = real[index];
    return other === undefined ? 'different' : compareSegments(segment, other, sameSet);
  });
  const isDifferent = own.length !== real.length || agreements.includes('different');
  if (!isDifferent && !agreements.includes('weaker')) return null;
  const said = show(own);
  const done = show(real);
  return {
    ours: said.filter((token) => !done.includes(token)),
    theirs: done.filter((token) => !said.includes(token)),
    isWeaker: !isDifferent,
  };
}
