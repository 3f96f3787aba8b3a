import type { Classifier, Target, ViewName } from './classifier.ts';
import { type Field, FRAME, fieldEnd, fieldKey, META } from './fields.ts';
import { testedFields } from './operand.ts';
import {
  exclude,
  intervalOf,
  L4PROTO_PRESENT,
  PLENTY,
  presenceKey,
  presenceOf,
  type Region,
  restrict,
  sortedElements,
  truthOf,
} from './region.ts';
import { formatRuleId, type Operand, type Test } from './ruleset.ts';

/** One question about a frame. Its loads always succeed where it is asked. */
export type Question =
  | {
      readonly kind: 'compare';
      readonly operand: Operand;
      readonly lo: bigint;
      readonly hi: bigint;
      readonly view: ViewName;
    }
  | {
      readonly kind: 'lookup';
      readonly key: readonly Operand[];
      readonly set: Extract<Test, { kind: 'lookup' }>['set'];
      readonly view: ViewName;
    }
  | {
      /** At least `end` bytes are there behind the base. */
      readonly kind: 'present';
      readonly base: Exclude<Field['base'], 'meta'>;
      readonly view: ViewName;
      readonly end: number;
    };

/**
 * A node of the decision DAG. Nodes are shared: the same object may be reached in many ways, and
 * `id` tells them apart. Children have smaller ids than their parents.
 */
export type DecisionNode =
  | { readonly kind: 'leaf'; readonly id: number; readonly verdict: 'drop' | 'continue' }
  | {
      readonly kind: 'branch';
      readonly id: number;
      readonly question: Question;
      readonly yes: DecisionNode;
      readonly no: DecisionNode;
      /** The rule that asks, or null for the builder's own cuts and the kernel's conditions. */
      readonly rule: string | null;
    }
  | {
      readonly kind: 'count';
      readonly id: number;
      /** Indices of the classifier's counters. */
      readonly counters: readonly number[];
      readonly next: DecisionNode;
      readonly rule: string | null;
    };

/** Where frames start, by the EtherType behind their tags. */
export interface Roots {
  /** IPv4 that is not odd: 20 bytes at `nh`, header length and total length hold. */
  readonly ip: DecisionNode;
  /** IPv6 that is not odd: 40 bytes at `nh`, extension headers walked. */
  readonly ip6: DecisionNode;
  /** Any other EtherType; no `meta l4proto`, no transport header. */
  readonly other: DecisionNode;
}

/** What to do with a frame, by its VLAN tags: none, one, or two and more. */
export interface Decision {
  readonly untagged: Roots;
  readonly tagged: Roots;
  /** `meta protocol` is the second tag's type, `nh` its TCI. */
  readonly stacked: DecisionNode;
  /** Distinct nodes. */
  readonly size: number;
}

export interface DecisionOptions {
  /** Rules a path may ask one after the other before the builder looks for a cut. */
  readonly leafRules: number;
  /** Copies of rules in all leaves, as a multiple of the rules; bounds what cutting costs. */
  readonly copies: number;
}

export const DEFAULT_DECISION: DecisionOptions = { leafRules: 8, copies: 4 };

const ETH_P_IP = 0x0800n;
const ETH_P_IPV6 = 0x86ddn;

/** Bytes a transport header has at least, by protocol number; a shorter one is left to the kernel. */
const SHORTEST_HEADER: ReadonlyMap<bigint, number> = new Map([
  [1n, 8], // ICMP: RFC 792
  [6n, 20], // TCP: RFC 9293
  [17n, 8], // UDP: RFC 768
  [33n, 12], // DCCP: RFC 4340 section 5.1
  [58n, 8], // ICMPv6: RFC 4443, and four bytes of body every type has
  [132n, 12], // SCTP: RFC 9260
  [136n, 8], // UDP-Lite: RFC 3828
]);

/** Where a walk goes on: the counters counted on the way, then a row (by its entry) or the end. */
interface Ref {
  readonly counts: readonly number[];
  readonly to: number | 'drop' | 'pass';
}

const PASS: Ref = { counts: [], to: 'pass' };

/** An entry in a region: the tests that are still open there. */
interface Row {
  readonly entry: number;
  readonly view: ViewName;
  readonly rule: string | null;
  readonly tests: readonly Test[];
  /** All other tests hold, but one depends on a later fragment's layout: matching hands on. */
  readonly handOn: boolean;
  readonly then: Ref;
  readonly otherwise: Ref;
}

/** The walk as seen from a region: only rows that are reached and undecided. */
interface View {
  readonly region: Region;
  readonly rows: readonly Row[];
  readonly start: Ref;
}

interface Builder {
  readonly options: DecisionOptions;
  readonly interned: Map<string, DecisionNode>;
  readonly ids: Map<object, number>;
  readonly drop: DecisionNode;
  readonly pass: DecisionNode;
  copies: number;
}

function intern(builder: Builder, key: string, make: (id: number) => DecisionNode): DecisionNode {
  let node = builder.interned.get(key);
  if (node === undefined) {
    node = make(builder.interned.size);
    builder.interned.set(key, node);
  }
  return node;
}

function identity(builder: Builder, object: object): number {
  let id = builder.ids.get(object);
  if (id === undefined) {
    id = builder.ids.size;
    builder.ids.set(object, id);
  }
  return id;
}

function operandKey({ field, mask, xor, shift }: Operand): string {
  return `${fieldKey(field)}&${mask.toString(36)}^${xor.toString(36)}<${shift}`;
}

function questionKey(builder: Builder, question: Question): string {
  switch (question.kind) {
    case 'compare':
      return `c${operandKey(question.operand)}=${question.lo.toString(36)}-${question.hi.toString(36)}${question.view}`;
    case 'lookup': {
      const set = identity(builder, question.set.elements);
      return `l${question.key.map(operandKey).join('.')}@${set}${question.view}`;
    }
    case 'present':
      return `p${question.base}${question.end}${question.view}`;
  }
}

function branch(
  builder: Builder,
  question: Question,
  yes: DecisionNode,
  no: DecisionNode,
  rule: string | null,
): DecisionNode {
  if (yes === no) return yes;
  const key = `${questionKey(builder, question)}?${yes.id}:${no.id}`;
  return intern(builder, key, (id) => ({ kind: 'branch', id, question, yes, no, rule }));
}

function count(
  builder: Builder,
  counters: readonly number[],
  next: DecisionNode,
  rule: string | null,
): DecisionNode {
  if (counters.length === 0 || next === builder.pass) return next;
  const key = `n${counters.join(',')}:${next.id}`;
  return intern(builder, key, (id) => ({ kind: 'count', id, counters, next, rule }));
}

/** What is left of a row in a region, or whether it certainly matches or does not. */
function rowIn(row: Row, region: Region): Row | 'match' | 'mismatch' {
  const open: Test[] = [];
  let { handOn } = row;
  for (const test of row.tests) {
    const presence = testedFields(test).map((field) => presenceOf(field, row.view, region));
    if (presence.includes('absent')) return 'mismatch';
    const truth = truthOf(test, region);
    if (truth === 'false') return 'mismatch';
    if (presence.includes('fragment')) handOn = true;
    else if (truth === 'open' || presence.includes('open')) open.push(test);
  }
  if (open.length === 0 && !handOn) return 'match';
  return open.length === row.tests.length && handOn === row.handOn
    ? row
    : { ...row, tests: open, handOn };
}

/** Walks the rows under a region and keeps what is reached and undecided. */
function enter(rows: readonly Row[], start: Ref, region: Region): View {
  const reached = new Set<Ref['to']>([start.to]);
  const passed: { readonly row: Row; readonly left: Row | 'match' | 'mismatch' }[] = [];
  for (const row of rows) {
    if (!reached.has(row.entry)) continue;
    const left = rowIn(row, region);
    passed.push({ row, left });
    if (left !== 'mismatch') reached.add(row.then.to);
    if (left !== 'match') reached.add(row.otherwise.to);
  }
  const alias = new Map<Ref['to'], Ref>();
  const follow = (ref: Ref): Ref => {
    const known = alias.get(ref.to);
    if (known === undefined) return ref;
    return ref.counts.length === 0 ? known : { ...known, counts: [...ref.counts, ...known.counts] };
  };
  const kept: Row[] = [];
  for (const { row, left } of passed.reverse()) {
    if (left === 'match') alias.set(row.entry, follow(row.then));
    else if (left === 'mismatch') alias.set(row.entry, follow(row.otherwise));
    else kept.push({ ...left, then: follow(row.then), otherwise: follow(row.otherwise) });
  }
  return { region, rows: kept.reverse(), start: follow(start) };
}

/** Asks the open tests of every row one after the other, from the last row to the first. */
function askInTurn(builder: Builder, view: View): DecisionNode {
  const nodes = new Map<Ref['to'], DecisionNode>([
    ['drop', builder.drop],
    ['pass', builder.pass],
  ]);
  const resolve = (ref: Ref, rule: string | null): DecisionNode => {
    const node = nodes.get(ref.to);
    if (node === undefined) throw new Error('bug: decision walks to a row that was not reached');
    return count(builder, ref.counts, node, rule);
  };
  for (const row of [...view.rows].reverse()) {
    const { rule } = row;
    const no = row.tests.length > 0 ? resolve(row.otherwise, rule) : builder.pass;
    let node = row.handOn ? builder.pass : resolve(row.then, rule);
    for (const test of [...row.tests].reverse()) {
      node = ask(builder, test, row, view.region, node, no);
    }
    nodes.set(row.entry, node);
  }
  return resolve(view.start, null);
}

/** One test as questions: the bytes must be there, then the values decide. */
function ask(
  builder: Builder,
  test: Test,
  { view, rule }: Row,
  region: Region,
  yes: DecisionNode,
  no: DecisionNode,
): DecisionNode {
  if (test.kind === 'unknown') throw new Error('bug: an unknown test was not specialised away');
  const [holds, fails] = test.negated ? [no, yes] : [yes, no];
  let node =
    truthOf(test, region) === 'open' ? valueNode(builder, test, view, holds, fails, rule) : yes;
  const wanted = new Map<Exclude<Field['base'], 'meta'>, number>();
  for (const field of testedFields(test)) {
    if (field.base === 'meta' || presenceOf(field, view, region) !== 'open') continue;
    wanted.set(field.base, Math.max(wanted.get(field.base) ?? 0, fieldEnd(field)));
  }
  for (const [base, end] of wanted) {
    node = branch(builder, { kind: 'present', base, view, end }, node, no, rule);
  }
  return node;
}

function valueNode(
  builder: Builder,
  test: Exclude<Test, { kind: 'unknown' }>,
  view: ViewName,
  holds: DecisionNode,
  fails: DecisionNode,
  rule: string | null,
): DecisionNode {
  const question: Question =
    test.kind === 'compare'
      ? { kind: 'compare', operand: test.operand, lo: test.lo, hi: test.hi, view }
      : { kind: 'lookup', key: test.key, set: test.set, view };
  return branch(builder, question, holds, fails, rule);
}

interface Cut {
  readonly field: Field;
  /** The first value of the upper side. */
  readonly at: bigint;
}

const SAMPLE = 96;

/** The value cut that splits the rows best, or null when none is worth its copies. */
function chooseCut(builder: Builder, view: View): Cut | null {
  const { rows, region } = view;
  if (rows.length <= builder.options.leafRules) return null;
  const step = Math.max(1, Math.floor(rows.length / SAMPLE));
  const sample = rows.filter((_, index) => index % step === 0);
  const byField = new Map<string, { field: Field; spans: (readonly [bigint, bigint] | null)[] }>();
  for (const [index, row] of sample.entries()) {
    for (const test of row.tests) {
      if (test.kind === 'unknown' || test.negated) continue;
      const interval = spanOf(test);
      if (interval === null || isCostly(interval.field)) continue;
      if (presenceOf(interval.field, row.view, region) !== 'present') continue;
      let known = byField.get(interval.key);
      if (known === undefined) {
        known = { field: interval.field, spans: sample.map(() => null) };
        byField.set(interval.key, known);
      }
      known.spans[index] = [interval.lo, interval.hi];
    }
  }
  let best: { cut: Cut; cost: number } | null = null;
  for (const [key, { field, spans }] of byField) {
    for (const at of cutPoints(spans, region.get(key)?.lo ?? 0n)) {
      let low = 0;
      let high = 0;
      for (const span of spans) {
        if (span === null || span[0] < at) low += 1;
        if (span === null || span[1] >= at) high += 1;
      }
      const cost = Math.max(low, high) + 0.5 * (low + high - spans.length);
      if (best === null || cost < best.cost) best = { cut: { field, at }, cost };
    }
  }
  return best !== null && best.cost <= 0.8 * sample.length ? best.cut : null;
}

/** The least and greatest value a test's field may have for it to hold. */
function spanOf(test: Test): ReturnType<typeof intervalOf> {
  if (test.kind === 'compare') return intervalOf(test);
  if (test.kind !== 'lookup' || test.key.length !== 1) return null;
  const [operand] = test.key;
  const sorted = sortedElements(test.set.elements);
  if (operand === undefined || sorted === null || operand.shift !== 0 || operand.xor !== 0n)
    return null;
  const lo = sorted.lo[0];
  const hi = sorted.hi.at(-1);
  if (lo === undefined || hi === undefined) return null;
  return { key: fieldKey(operand.field), field: operand.field, lo, hi };
}

/** Cutting on these would make every frame pay for them. */
function isCostly(field: Field): boolean {
  return field.name.startsWith('frame ') || fieldKey(field) === META.length.name;
}

const POINTS = 12;

function cutPoints(spans: readonly (readonly [bigint, bigint] | null)[], lowest: bigint): bigint[] {
  const ends = spans.flatMap((span) => (span === null ? [] : [span[0], span[1] + 1n]));
  const points = [...new Set(ends)].filter((at) => at > lowest).sort((a, b) => (a < b ? -1 : 1));
  if (points.length <= POINTS) return points;
  return Array.from({ length: POINTS }, (_, i) => {
    const at = Math.floor(((i + 0.5) * points.length) / POINTS);
    return points[at] ?? 0n;
  });
}

function lessThan(field: Field, at: bigint, view: ViewName): Question {
  const operand = { field, mask: (1n << BigInt(field.width)) - 1n, xor: 0n, shift: 0 };
  return { kind: 'compare', operand, lo: 0n, hi: at - 1n, view };
}

/** Cuts values into smaller regions while that pays, then asks in turn. */
function cutValues(builder: Builder, view: View): DecisionNode {
  const cut = chooseCut(builder, view);
  if (cut === null) return askInTurn(builder, view);
  const key = fieldKey(cut.field);
  const top = (1n << BigInt(cut.field.width)) - 1n;
  const below = restrict(view.region, key, 0n, cut.at - 1n);
  const above = restrict(view.region, key, cut.at, top);
  const low = enter(view.rows, view.start, below);
  const high = enter(view.rows, view.start, above);
  const extra = low.rows.length + high.rows.length - view.rows.length;
  if (extra > builder.copies || Math.max(low.rows.length, high.rows.length) >= view.rows.length) {
    return askInTurn(builder, view);
  }
  builder.copies -= Math.max(0, extra);
  const yes = cutValues(builder, low);
  const no = cutValues(builder, high);
  const anyView = view.rows[0]?.view ?? 'ingress';
  return branch(builder, lessThan(cut.field, cut.at, anyView), yes, no, null);
}

const VIEWS: readonly ViewName[] = ['ingress', 'l3'];

/** Ends of the transport loads still open, by view. */
function transportEnds(view: View, name: ViewName): number[] {
  const ends = new Set<number>();
  for (const row of view.rows) {
    if (row.view !== name) continue;
    for (const test of row.tests) {
      for (const field of testedFields(test)) {
        if (field.base === 'th' && presenceOf(field, name, view.region) === 'open') {
          ends.add(fieldEnd(field));
        }
      }
    }
  }
  return [...ends].sort((a, b) => a - b);
}

/**
 * Makes sure that the transport header is there before it is asked. A header shorter than its
 * protocol's shortest is left to the kernel; beyond that, every length is told apart.
 */
function cutTransport(builder: Builder, view: View, protocol: bigint | null): DecisionNode {
  for (const name of VIEWS) {
    const ends = transportEnds(view, name);
    const last = ends.at(-1);
    if (last === undefined) continue;
    const shortest = protocol === null ? 0 : (SHORTEST_HEADER.get(protocol) ?? 0);
    const end = Math.max(last, shortest);
    const key = presenceKey('th', name);
    const longRegion = restrict(view.region, key, BigInt(end), PLENTY);
    const long = enter(view.rows, view.start, longRegion);
    const yes = cutTransport(builder, long, protocol);
    const shortRegion = restrict(view.region, key, 0n, BigInt(end - 1));
    const no =
      last <= shortest
        ? builder.pass
        : cutTransport(builder, enter(view.rows, view.start, shortRegion), protocol);
    return branch(builder, { kind: 'present', base: 'th', view: name, end }, yes, no, null);
  }
  return cutValues(builder, view);
}

/** Protocol numbers that rows ask for by name, most often asked first. */
function askedProtocols(view: View): bigint[] {
  const asked = new Map<bigint, number>();
  for (const row of view.rows) {
    for (const test of row.tests) {
      const interval = intervalOf(test);
      if (interval?.key !== META.l4proto.name || interval.lo !== interval.hi) continue;
      asked.set(interval.lo, (asked.get(interval.lo) ?? 0) + 1);
    }
  }
  return [...asked].sort((a, b) => b[1] - a[1] || Number(a[0] - b[0])).map(([value]) => value);
}

const PROTOCOLS = 12;

function hasTransport(view: View): boolean {
  return view.rows.some((row) =>
    row.tests.some((test) => testedFields(test).some((field) => field.base === 'th')),
  );
}

/** One region for each transport protocol that the rules name, and one for the rest. */
function cutProtocol(builder: Builder, view: View): DecisionNode {
  const protocols = askedProtocols(view).slice(0, PROTOCOLS);
  if (protocols.length === 0 || (view.rows.length < 3 && !hasTransport(view))) {
    return cutTransport(builder, view, null);
  }
  const key = META.l4proto.name;
  const known = view.region.get(key);
  if (known !== undefined && known.lo === known.hi) {
    return cutTransport(builder, view, known.lo);
  }
  const rest = protocols.reduce((region, value) => exclude(region, key, value), view.region);
  let node = cutTransport(builder, enter(view.rows, view.start, rest), null);
  for (const value of [...protocols].reverse()) {
    const region = restrict(view.region, key, value, value);
    const own = enter(view.rows, view.start, region);
    const operand = { field: META.l4proto, mask: 0xffn, xor: 0n, shift: 0 };
    const question: Question = { kind: 'compare', operand, lo: value, hi: value, view: 'ingress' };
    node = branch(builder, question, cutTransport(builder, own, value), node, null);
  }
  return node;
}

/** Later IPv4 fragments have no transport header that anybody could rely on. */
function cutFragments(builder: Builder, view: View): DecisionNode {
  if (!hasTransport(view)) return cutProtocol(builder, view);
  const key = FRAME.fragment.name;
  const later = enter(view.rows, view.start, restrict(view.region, key, 2n, 2n));
  const other = enter(view.rows, view.start, restrict(view.region, key, 0n, 1n));
  const operand = { field: FRAME.fragment, mask: 0xffn, xor: 0n, shift: 0 };
  const question: Question = { kind: 'compare', operand, lo: 2n, hi: 2n, view: 'ingress' };
  return branch(builder, question, cutProtocol(builder, later), cutProtocol(builder, other), null);
}

function knownFrom(facts: Readonly<Record<string, readonly [bigint, bigint]>>): Region {
  const known = Object.entries(facts).map(
    ([key, [lo, hi]]) => [key, { lo, hi, without: [] }] as const,
  );
  return new Map(known);
}

function ipRegion(tags: bigint, etherType: bigint, nfproto: bigint, header: bigint): Region {
  return knownFrom({
    [FRAME.tags.name]: [tags, tags],
    [META.protocol.name]: [etherType, etherType],
    [META.nfproto.name]: [nfproto, nfproto],
    [FRAME.fragment.name]: [0n, etherType === ETH_P_IP ? 2n : 1n],
    [presenceKey('ll', 'ingress')]: [14n + 4n * tags + header, PLENTY],
    [presenceKey('nh', 'ingress')]: [header, PLENTY],
    [presenceKey('nh', 'l3')]: [header, PLENTY],
  });
}

function otherRegion(tags: bigint): Region {
  const region = knownFrom({
    [FRAME.tags.name]: [tags, tags],
    [META.nfproto.name]: [5n, 5n], // NFPROTO_NETDEV
    [FRAME.fragment.name]: [0n, 0n],
    [FRAME.checksum.name]: [1n, 1n],
    [presenceKey('ll', 'ingress')]: [tags === 0n ? 14n : 20n, PLENTY],
    [presenceKey('th', 'ingress')]: [0n, 0n],
    [presenceKey('th', 'l3')]: [0n, 0n],
    [L4PROTO_PRESENT]: [0n, 0n],
  });
  return exclude(exclude(region, META.protocol.name, ETH_P_IP), META.protocol.name, ETH_P_IPV6);
}

function rowsOf({ entries }: Classifier): Row[] {
  const ref = (target: Target, counts: readonly number[]): Ref => {
    if (target.kind === 'entry') return { counts, to: target.index };
    return target.kind === 'drop' ? { counts, to: 'drop' } : PASS;
  };
  return entries.map((entry, index) => ({
    entry: index,
    view: entry.view,
    rule: entry.rule === null ? null : formatRuleId(entry.rule),
    tests: entry.tests,
    handOn: false,
    then: ref(entry.then, entry.counts),
    otherwise: ref(entry.otherwise, []),
  }));
}

/**
 * The decision that a specialised classifier makes, as a DAG of single questions: first the kind of
 * packet, then the transport protocol, then values where that splits the rules, then rule by rule.
 * Needs a classifier without unknown tests; keeps its verdict and counters for every frame that is
 * not odd, except that a transport header shorter than its protocol allows continues.
 */
export function buildDecision(
  classifier: Classifier,
  options: DecisionOptions = DEFAULT_DECISION,
): Decision {
  const interned = new Map<string, DecisionNode>();
  const pass: DecisionNode = { kind: 'leaf', id: 0, verdict: 'continue' };
  const drop: DecisionNode = { kind: 'leaf', id: 1, verdict: 'drop' };
  interned.set('continue', pass).set('drop', drop);
  const rows = rowsOf(classifier);
  const ids = new Map<object, number>();
  const root = (region: Region, cut: typeof cutFragments): DecisionNode => {
    const [first] = rows;
    if (first === undefined) return pass;
    const copies = Math.max(2_000, rows.length * options.copies);
    const builder: Builder = { options, interned, ids, drop, pass, copies };
    return cut(builder, enter(rows, { counts: [], to: first.entry }, region));
  };
  const roots = (tags: bigint): Roots => ({
    ip: root(ipRegion(tags, ETH_P_IP, 2n, 20n), cutFragments),
    ip6: root(ipRegion(tags, ETH_P_IPV6, 10n, 40n), cutProtocol),
    other: root(otherRegion(tags), cutValues),
  });
  const untagged = roots(0n);
  const tagged = roots(1n);
  const stacked = root(otherRegion(2n), cutValues);
  return { untagged, tagged, stacked, size: interned.size };
}
