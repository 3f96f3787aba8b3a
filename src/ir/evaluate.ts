import type { Reason } from '../support/diagnostics.ts';
import type { Classifier, Counter, Entry, Target } from './classifier.ts';
import { FRAME, META } from './fields.ts';
import { testedFields } from './operand.ts';
import type { Packet, View } from './packet.ts';
import { type PreparedTest, pkttypeOf, prepareTest, type Truth } from './prepare-test.ts';
import type { Test } from './ruleset.ts';

export interface EvaluateOptions {
  /**
   * kernel: what nftables does with the frame, as far as it can be told. tier: what an early-drop
   * tier may do: odd frames, and drops behind a matched effect that it cannot reproduce, are left
   * to the kernel. Default kernel.
   */
  readonly mode?: 'kernel' | 'tier';
  /** The receiving device's own address, 48 bits; without it `pkttype` host and other are one. */
  readonly mac?: bigint | null;
}

/** What one counter gained. */
export interface Count {
  readonly packets: number;
  readonly bytes: number;
}

/** What becomes of a frame. */
export interface Outcome {
  /** As of a target. `accept` is certain: a frame that may be gone by then is `unknown`. */
  readonly verdict: 'drop' | 'accept' | 'lost' | 'unknown';
  /**
   * By counter index. For drop in both modes; for accept and lost in kernel mode only (a tier hands
   * the frame on uncounted); empty for unknown.
   */
  readonly counts: ReadonlyMap<number, Count>;
  /** The entry whose target decided, or at which it became unknown; null when none was reached. */
  readonly decidedBy: number | null;
  /** Why the verdict is unknown, else null. */
  readonly reason: Reason | null;
  /** The entries that certainly matched, in order. */
  readonly trail: readonly number[];
}

/** A classifier made ready for many packets. */
export type Evaluator = (packet: Packet) => Outcome;

interface PreparedEntry {
  readonly entry: Entry;
  readonly at: number;
  readonly tests: readonly PreparedTest[];
  /** Its counters with their views, which decide the bytes. */
  readonly counters: readonly { readonly index: number; readonly view: Counter['view'] }[];
  /** Reads only what every frame has, so it can be asked of frames without a layer-3 view. */
  readonly anyFrame: boolean;
  /** A matched effect that a tier cannot reproduce. */
  readonly external: Reason | null;
  /** A test changes what later packets meet. */
  readonly stateful: boolean;
}

const ANY_FRAME: ReadonlySet<string> = new Set(
  [META.protocol, META.pkttype, FRAME.tags, FRAME.fragment, FRAME.checksum].map(
    (field) => field.name,
  ),
);

function prepareEntry(classifier: Classifier, entry: Entry, at: number): PreparedEntry {
  const fields = entry.tests.flatMap(testedFields);
  const plain = fields.length > 0 && fields.every((field) => ANY_FRAME.has(field.name));
  return {
    entry,
    at,
    tests: entry.tests.map(prepareTest),
    counters: entry.counts.map((index) => ({
      index,
      view: classifier.counters[index]?.view ?? entry.view,
    })),
    anyFrame: plain && entry.counts.length === 0,
    external: entry.effects.find((effect) => effect.external)?.reason ?? null,
    stateful: entry.tests.some((test) => test.kind === 'unknown' && test.stateful),
  };
}

/** All tests at once: false beats unknown, whatever their order. */
function matches(
  tests: readonly PreparedTest[],
  view: View,
  packet: Packet,
  pkttype: number,
): Truth {
  let result: Truth = true;
  for (const test of tests) {
    const truth = test(view, packet, pkttype);
    if (truth === false) return false;
    if (truth === 'unknown') result = 'unknown';
  }
  return result;
}

/** Why the first unknown test of an entry is unknown. */
function explainUnknown(entry: Entry, view: View, packet: Packet, pkttype: number): Reason {
  const test = entry.tests.find((one) => prepareTest(one)(view, packet, pkttype) === 'unknown');
  if (test === undefined) throw new Error('bug: no test is unknown');
  if (test.kind === 'unknown') return test.reason;
  if (test.kind === 'lookup' && test.set.unknown !== null) return test.set.unknown;
  const fields = testedFields(test);
  if (view.fragment === 'later' && fields.some(({ base }) => base === 'th')) {
    return {
      code: 'packet/later-fragment',
      message: 'transport loads of a later fragment depend on how the kernel holds it',
    };
  }
  const names = fields.filter(({ base }) => base === 'meta').map(({ name }) => name);
  return { code: 'packet/metadata', message: `${names.join(', ')} is not in the frame` };
}

const UNCERTAIN_ACCEPT: Reason = {
  code: 'walk/uncertain-accept',
  message: 'no later rule drops it, but it may be gone already',
};

const UNCERTAIN_COUNT: Reason = {
  code: 'walk/uncertain-count',
  message: 'a counter is reached by packets that may be gone already',
};

function sameWay(a: Target, b: Target): boolean {
  if (a.kind === 'entry' && b.kind === 'entry') return a.index === b.index;
  return a.kind === b.kind;
}

/** One walk: what has happened to the packet so far. */
interface Walk {
  readonly packet: Packet;
  readonly tier: boolean;
  readonly trail: number[];
  readonly counts: Map<number, Count>;
  uncertain: boolean;
  /** A matched effect that a tier would skip by dropping. */
  skipped: Reason | null;
}

function finish(
  walk: Walk,
  target: Target & { kind: Outcome['verdict'] },
  at: number | null,
): Outcome {
  const { trail, tier } = walk;
  if (target.kind === 'unknown') return undecided(walk, target.reason, at);
  if (target.kind === 'accept' && walk.uncertain) return undecided(walk, UNCERTAIN_ACCEPT, at);
  if (target.kind !== 'accept' && walk.skipped !== null) return undecided(walk, walk.skipped, at);
  const counted = target.kind === 'drop' || !tier;
  const counts = counted ? walk.counts : NO_COUNTS;
  return { verdict: target.kind, counts, decidedBy: at, reason: null, trail };
}

const NO_COUNTS: ReadonlyMap<number, Count> = new Map();

function undecided({ trail }: Pick<Walk, 'trail'>, reason: Reason, at: number | null): Outcome {
  return { verdict: 'unknown', counts: NO_COUNTS, decidedBy: at, reason, trail };
}

/** Frames that never get to the first entry, or null. */
function outcomeOfOdd({ odd }: Packet, tier: boolean): Outcome | null {
  if (odd === null) return null;
  const outcome = { counts: NO_COUNTS, decidedBy: null, trail: [] };
  if (!tier && odd === 'packet/cut-tag') return { ...outcome, verdict: 'lost', reason: null };
  if (!tier && odd !== 'packet/short') return null;
  const reason = { code: odd, message: 'the frame is odd, only the kernel decides it' };
  return { ...outcome, verdict: 'unknown', reason };
}

/** A layer-3 entry is reached by a frame that has no such view. */
function outcomeWithoutL3(walk: Walk, at: number): Outcome {
  const { noL3 } = walk.packet;
  if (noL3 === 'malformed' && !walk.tier) return finish(walk, { kind: 'lost' }, at);
  const reason = { code: 'packet/no-l3', message: `no layer-3 hook is sure to see it: ${noL3}` };
  return undecided(walk, reason, at);
}

/** The entry matches for certain: it counts, its effects happen, and the walk goes to `then`. */
function passMatching(walk: Walk, { entry, counters, external }: PreparedEntry): Target {
  if (walk.uncertain && counters.length > 0) return { kind: 'unknown', reason: UNCERTAIN_COUNT };
  if (walk.tier) walk.skipped ??= external;
  const { l3, ingress } = walk.packet;
  for (const { index, view } of counters) {
    const { length } = view === 'l3' && l3 !== null ? l3 : ingress;
    const before = walk.counts.get(index) ?? { packets: 0, bytes: 0 };
    walk.counts.set(index, { packets: before.packets + 1, bytes: before.bytes + length });
  }
  return entry.then;
}

/** The entry may match. Null when that leaves open how the walk goes on. */
function passDoubtful(walk: Walk, prepared: PreparedEntry): Target | null {
  const { then, otherwise } = prepared.entry;
  if (prepared.counters.length > 0) return null;
  if (walk.tier && (prepared.stateful || prepared.external !== null)) return null;
  if (sameWay(then, otherwise)) {
    walk.uncertain ||= then.kind === 'entry' && then.uncertain;
    return otherwise;
  }
  if (then.kind !== 'drop' && then.kind !== 'lost') return null;
  walk.uncertain = true;
  return otherwise;
}

function passEntry(walk: Walk, prepared: PreparedEntry, view: View, pkttype: number): Target {
  const { entry, tests, at } = prepared;
  const truth = matches(tests, view, walk.packet, pkttype);
  if (truth === false) return entry.otherwise;
  if (truth === true) {
    walk.trail.push(at);
    return passMatching(walk, prepared);
  }
  const onward = passDoubtful(walk, prepared);
  if (onward !== null) return onward;
  return { kind: 'unknown', reason: explainUnknown(entry, view, walk.packet, pkttype) };
}

/** The view an entry reads of this packet; null when the frame does not have it. */
function viewOf({ entry, anyFrame }: PreparedEntry, packet: Packet): View | null {
  if (entry.view === 'ingress') return packet.ingress;
  return packet.l3 ?? (anyFrame ? packet.ingress : null);
}

function walkEntries(
  entries: readonly PreparedEntry[],
  packet: Packet,
  tier: boolean,
  mac: bigint | null,
): Outcome {
  const pkttype = pkttypeOf(packet, mac);
  const counts = new Map<number, Count>();
  const walk: Walk = { packet, tier, trail: [], counts, uncertain: false, skipped: null };
  let at = 0;
  let last: number | null = null;
  for (;;) {
    const prepared = entries[at];
    if (prepared === undefined) return finish(walk, { kind: 'accept' }, last);
    const view = viewOf(prepared, packet);
    if (view === null) return outcomeWithoutL3(walk, at);
    const target = passEntry(walk, prepared, view, pkttype);
    if (target.kind !== 'entry') return finish(walk, target, at);
    walk.uncertain ||= target.uncertain;
    last = at;
    at = target.index;
  }
}

const preparedClassifiers = new WeakMap<Classifier, readonly PreparedEntry[]>();

/** The classifier as a function, for many packets; what is prepared is kept with the classifier. */
export function prepare(classifier: Classifier, options: EvaluateOptions = {}): Evaluator {
  const known = preparedClassifiers.get(classifier);
  const entries =
    known ?? classifier.entries.map((entry, at) => prepareEntry(classifier, entry, at));
  if (known === undefined) preparedClassifiers.set(classifier, entries);
  const tier = options.mode === 'tier';
  const mac = options.mac ?? null;
  return (packet) => outcomeOfOdd(packet, tier) ?? walkEntries(entries, packet, tier, mac);
}

/**
 * The reference meaning of a classifier for one packet. Every test is true, false or unknown. An
 * entry whose known tests all hold but that has an unknown one may match: if it would drop, the walk
 * goes on as if it had not, and the packet may be gone from there on; anything else is unknown.
 */
export function evaluate(
  classifier: Classifier,
  packet: Packet,
  options: EvaluateOptions = {},
): Outcome {
  return prepare(classifier, options)(packet);
}

/** One test on one view of a packet; a load beyond the view makes it false, negated or not. */
export function evaluateTest(
  test: Test,
  view: View,
  packet: Packet,
  mac: bigint | null = null,
): Truth {
  return prepareTest(test)(view, packet, pkttypeOf(packet, mac));
}
