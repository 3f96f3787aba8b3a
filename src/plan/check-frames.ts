import { frameOfKey } from '../backends/tcam/frame-of-key.ts';
import type { Column } from '../backends/tcam/layout.ts';
import type { Classifier, Entry } from '../ir/classifier.ts';
import { type Count, prepare } from '../ir/evaluate.ts';
import type { Facts } from '../ir/facts.ts';
import { type Field, FRAME, fieldKey, findField, META } from '../ir/fields.ts';
import { applyOperand, holds, splitKey } from '../ir/operand.ts';
import { parsePacket } from '../ir/packet.ts';
import type { Operand, Test } from '../ir/ruleset.ts';
import { formatRuleId } from '../ir/ruleset.ts';
import { ones } from '../support/bits.ts';
import type { PlacedTier } from './place.ts';

/** A frame, and what the tier's program must do with it. */
export interface CheckFrame {
  readonly frame: Uint8Array;
  readonly drops: boolean;
  /** What it adds to the counters, by their index in the classifier; nothing unless it is dropped. */
  readonly counts: ReadonlyMap<number, Count>;
  /** The rule that decides it, for people. */
  readonly rule: string;
}

/** Frames that try a program out. */
export interface CheckFrames {
  readonly frames: readonly CheckFrame[];
  /** Rules that some frame matches, and how many rules there are in the tier. */
  readonly met: number;
  readonly rules: number;
}

/** Entries that frames are made for; more are sampled. */
const MOST_ENTRIES = 400;

/** Values by field key. */
type Values = Map<string, readonly [field: Field, value: bigint]>;

/** What leads to an entry: tests that must hold, the latest first. */
interface Way {
  readonly tests: readonly Test[];
  readonly before: Way | null;
  readonly length: number;
}

const START: Way = { tests: [], before: null, length: 0 };

/** The way with the fewest tests to every entry; null where none leads. */
function findWays({ entries }: Classifier): readonly (Way | null)[] {
  const ways: (Way | null)[] = entries.map((_, index) => (index === 0 ? START : null));
  const lead = (target: Entry['then'], way: Way): void => {
    if (target.kind !== 'entry') return;
    const known = ways[target.index];
    if (known === undefined || (known !== null && known.length <= way.length)) return;
    ways[target.index] = way;
  };
  for (const [index, { tests, then, otherwise }] of entries.entries()) {
    const way = ways[index] ?? null;
    if (way === null) continue;
    lead(otherwise, way);
    lead(then, { tests, before: way, length: way.length + tests.length });
  }
  return ways;
}

function testsOf(way: Way | null): Test[] {
  const tests: Test[] = [];
  for (let at = way; at !== null; at = at.before) tests.push(...at.tests);
  return tests;
}

/** What a field must hold for the operand to yield `wanted`, other bits as they are. */
function invert({ field, mask, xor, shift }: Operand, wanted: bigint, before: bigint): bigint {
  const unshifted = shift >= 0 ? wanted >> BigInt(shift) : wanted << BigInt(-shift);
  return ((unshifted ^ xor) & mask) | (before & (mask ^ ones(field.width)));
}

/** Documentation addresses (RFC 5737, RFC 3849) and what else a plain frame has. */
function plainValues(facts: Facts, isIp6: boolean): Values {
  const values: Values = new Map();
  const put = (protocol: string, name: string, value: bigint): void => {
    const field = findField(protocol, name);
    if (field !== null) values.set(fieldKey(field), [field, value]);
  };
  const local = facts.localAddresses?.find(({ version }) => version === (isIp6 ? 6 : 4));
  put('ether', 'daddr', facts.mac ?? 0x020000000001n);
  put('ether', 'saddr', 0x020000000002n);
  // A SYN: other flags, and none, are what rules against scans look for.
  put('tcp', 'doff', 5n);
  put('tcp', 'flags', 2n);
  if (isIp6) {
    put('ip6', 'saddr', 0x20010db8000000000000000000000007n);
    put('ip6', 'daddr', local?.value ?? 0x20010db8000000000000000000000009n);
  } else {
    put('ip', 'saddr', 0xc6336407n);
    put('ip', 'daddr', local?.value ?? 0xcb007109n);
  }
  return values;
}

function readValue(values: Values, field: Field): bigint {
  return values.get(fieldKey(field))?.[1] ?? 0n;
}

/** How one attempt chooses where a test leaves a choice. */
interface Choice {
  readonly isHigh: boolean;
  readonly isIp6: boolean;
}

function satisfy(test: Test, values: Values, { isHigh }: Choice): void {
  if (test.kind === 'unknown') return;
  const put = (operand: Operand, wanted: bigint): void => {
    const { field } = operand;
    values.set(fieldKey(field), [field, invert(operand, wanted, readValue(values, field))]);
  };
  if (test.kind === 'compare') {
    const { operand, lo, hi, negated } = test;
    const now = applyOperand(operand, readValue(values, operand.field));
    const isIn = now >= lo && now <= hi;
    if (isIn !== negated) return;
    if (!negated) put(operand, isHigh ? hi : lo);
    else put(operand, hi < ones(operand.field.width) ? hi + 1n : lo - 1n);
    return;
  }
  const { elements } = test.set;
  const now = test.key.map((operand) => applyOperand(operand, readValue(values, operand.field)));
  const has = elements.lo.findIndex((_, index) => holds(elements, index, now));
  if (has >= 0 !== test.negated) return;
  const index = test.negated ? has : isHigh ? elements.lo.length - 1 : 0;
  const edge = test.negated || isHigh ? elements.hi[index] : elements.lo[index];
  if (edge === undefined) return;
  const wanted = splitKey(elements.parts, edge);
  for (const [part, operand] of test.key.entries()) {
    // Past the end of an element that must not match; what is behind it may be another one.
    put(operand, (wanted[part] ?? 0n) + (test.negated && part === 0 ? 1n : 0n));
  }
}

const ETHER_TYPE = findField('ether', 'type');
const FRAGMENT_OFFSET = findField('ip', 'frag-off');

/** Makes the kernel's words about a frame true of its bytes. */
function spellOut(values: Values, { isIp6 }: Choice): void {
  const nfproto = readValue(values, META.nfproto);
  const named = [...values.values()].map(([{ name }]) => name);
  const protocol =
    nfproto === 10n || (nfproto === 0n && isIp6 && !named.includes('ip frag-off'))
      ? 0x86ddn
      : 0x0800n;
  if (!values.has(META.protocol.name)) values.set(META.protocol.name, [META.protocol, protocol]);
  if (readValue(values, FRAME.tags) > 0n && ETHER_TYPE !== null) {
    values.set(fieldKey(ETHER_TYPE), [ETHER_TYPE, 0x8100n]);
  }
  const part = readValue(values, FRAME.fragment);
  if (part > 0n && FRAGMENT_OFFSET !== null && !isIp6) {
    // RFC 791 section 3.1: more fragments, or an offset.
    values.set(fieldKey(FRAGMENT_OFFSET), [FRAGMENT_OFFSET, part === 1n ? 0x2000n : 1n]);
  }
}

function makeFrame(tests: readonly Test[], facts: Facts, choice: Choice): Uint8Array {
  const values = plainValues(facts, choice.isIp6);
  // Twice: what a later test changes may have been asked before.
  for (let round = 0; round < 2; round += 1) {
    for (const test of tests) satisfy(test, values, choice);
  }
  spellOut(values, choice);
  const all = [...values.values()];
  const columns = all.map(([field]): Column => {
    return { field, bits: field.width, match: 'ternary', protocols: null };
  });
  const bits = all.map(([, value]) => value);
  return frameOfKey(columns, bits, { fixed: [], untagged: false, whole: false });
}

const CHOICES: readonly Choice[] = [
  { isHigh: false, isIp6: false },
  { isHigh: false, isIp6: true },
  { isHigh: true, isIp6: false },
  { isHigh: true, isIp6: true },
];

/** At most `most` of the items, evenly spread. */
function sample<T>(items: readonly T[], most: number): readonly T[] {
  if (items.length <= most) return items;
  return items.filter(
    (_, at) =>
      Math.floor((at * most) / items.length) !== Math.floor(((at - 1) * most) / items.length),
  );
}

/**
 * Frames for a program that was placed: for every rule in it one that the rule matches, as far as one
 * can be found, and some that no rule matches. What the program has to do with them is what its
 * interpreter does; what it has to count is what the reference counts.
 */
export function makeCheckFrames(placed: PlacedTier, facts: Facts): CheckFrames {
  const { classifier } = placed.artifact;
  const run = placed.compiled.interpret();
  const walk = prepare(classifier, { mode: 'tier', mac: facts.mac });
  const reference = prepare(placed.flattened.classifier, { mode: 'kernel', mac: facts.mac });
  const ways = findWays(classifier);
  const met = new Set<number>();
  const frames: CheckFrame[] = [];
  const keep = (frame: Uint8Array, trail: readonly number[]): void => {
    for (const at of trail) met.add(at);
    const drops = run(frame) === 'drop';
    const truth = reference(parsePacket(frame));
    // What the kernel loses anyway may be dropped before.
    if (drops && truth.verdict === 'accept') {
      throw new Error('bug: the program drops what the ruleset accepts');
    }
    // Without the whole packet the reference does not know, where a choice of rules may.
    if (drops && truth.verdict === 'unknown') return;
    const rule =
      truth.decidedBy === null ? null : placed.flattened.classifier.entries[truth.decidedBy];
    const name = rule?.rule ? formatRuleId(rule.rule) : (rule?.label ?? 'no rule');
    frames.push({ frame, drops, counts: drops ? truth.counts : new Map(), rule: name });
  };
  for (const choice of CHOICES.slice(0, 2)) {
    const frame = makeFrame([], facts, choice);
    keep(frame, walk(parsePacket(frame)).trail);
  }
  const isRule = (at: number): boolean => (classifier.entries[at]?.rule ?? null) !== null;
  const all = [...classifier.entries.keys()].filter(isRule);
  for (const at of sample(all, MOST_ENTRIES)) {
    if (met.has(at)) continue;
    const tests = [...(classifier.entries[at]?.tests ?? []), ...testsOf(ways[at] ?? null)];
    for (const choice of CHOICES) {
      const frame = makeFrame(tests, facts, choice);
      const { trail } = walk(parsePacket(frame));
      if (!trail.includes(at)) continue;
      keep(frame, trail);
      break;
    }
  }
  return { frames, met: all.filter((at) => met.has(at)).length, rules: all.length };
}
