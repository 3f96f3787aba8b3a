import { ones } from '../support/bits.ts';
import { chooseCut } from './choose-cut.ts';
import type { Classifier, ViewName } from './classifier.ts';
import {
  askTable,
  branch,
  count,
  createNodeTable,
  type DecisionNode,
  type NodeTable,
  type Question,
  type TableAction,
  type TableNode,
} from './decision-nodes.ts';
import { type Field, FRAME, fieldEnd, fieldKey, META } from './fields.ts';
import { buildForest } from './match-forest.ts';
import { createTableMaker, type TableMaker } from './match-table.ts';
import { plain, testedFields } from './operand.ts';
import {
  exclude,
  intervalOf,
  L4PROTO_PRESENT,
  PLENTY,
  presenceKey,
  presenceOf,
  type Region,
  restrict,
  truthOf,
} from './region.ts';
import {
  createScratch,
  DROPPED,
  enter,
  PASSED,
  type Ref,
  type Row,
  rowsOf,
  type Scratch,
  type View,
} from './residual.ts';
import type { Test } from './ruleset.ts';

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
  /**
   * false: fragments and transport protocols get no regions of their own, each rule asks for what it
   * needs. Slower to walk and without copies, so a few rules take less room. Default true.
   */
  readonly regions?: boolean;
  /**
   * So many rules that follow each other, each decided at once, become a table; null or left out: none
   * do. Regions in which there are tables are not cut by values.
   */
  readonly tableRules?: number | null;
  /** Where tables come from; they are made anew where left out. */
  readonly tableSource?: TableSource;
}

/** What a table is made of. */
export interface TableRequest {
  readonly maker: TableMaker;
  readonly rows: readonly Row[];
  /** By row. */
  readonly actions: readonly TableAction[];
  /** Boxes in a leaf that is not split for them; null: as usual. */
  readonly few: number | null;
}

/** Gives a table with its trees; null where it would be too big. */
export type TableSource = (request: TableRequest) => Pick<TableNode, 'table' | 'forest'> | null;

function newTable({ maker, rows, few }: TableRequest): ReturnType<TableSource> {
  const table = maker.make(rows);
  const forest = few === null ? buildForest(table) : buildForest(table, few);
  return forest === null ? null : { table, forest };
}

export const DEFAULT_DECISION: DecisionOptions = { leafRules: 16, copies: 2 };

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

interface Builder extends NodeTable {
  readonly options: DecisionOptions;
  readonly scratch: Scratch;
  readonly questions: Readonly<Record<ViewName, Map<Test, Question>>>;
  /** Views that became tables, with what they became. */
  readonly made: { readonly view: View; readonly node: DecisionNode }[];
}

const isLaterFragment: Question = {
  kind: 'compare',
  operand: { field: FRAME.fragment, mask: 0xffn, xor: 0n, shift: 0 },
  lo: 2n,
  hi: 2n,
  view: 'ingress',
};

/** Runs of rows that became tables, by the entry of their first row; and the entries of the others. */
interface Runs {
  readonly maker: TableMaker;
  readonly first: ReadonlyMap<number, readonly Row[]>;
  readonly inside: ReadonlySet<number>;
}

/**
 * Asks the open tests of every row one after the other, from the last row to the first; runs of rows
 * as tables. Null where a table would be too big.
 */
function askInTurn(builder: Builder, view: View, runs: Runs | null): DecisionNode | null {
  const nodes = new Map<number, DecisionNode>([
    [DROPPED, builder.drop],
    [PASSED, builder.pass],
  ]);
  const resolve = (ref: Ref, rule: string | null): DecisionNode => {
    const node = nodes.get(ref.to);
    if (node === undefined) throw new Error('bug: decision walks to a row that was not reached');
    return count(builder, ref.counts, node, rule);
  };
  for (const row of [...view.rows].reverse()) {
    const { rule } = row;
    if (runs?.inside.has(row.entry) === true) continue;
    const run = runs?.first.get(row.entry);
    if (runs !== null && run !== undefined) {
      const node = tableNode(builder, view.region, runs.maker, run, resolve);
      if (node === null) return null;
      nodes.set(row.entry, node);
      continue;
    }
    const no = row.tests.length > 0 ? resolve(row.otherwise, rule) : builder.pass;
    let node = row.handOn ? builder.pass : resolve(row.then, rule);
    for (const { test } of [...row.tests].reverse()) {
      node = ask(builder, test, row, view.region, node, no);
    }
    nodes.set(row.entry, node);
  }
  return resolve(view.start, null);
}

/** How often each row is led to from others, by entry. */
function countWays({ rows, start }: View): Uint32Array {
  const ways = new Uint32Array((rows.at(-1)?.entry ?? 0) + 1);
  const add = ({ to }: Ref): void => {
    if (to >= 0) ways[to] = (ways[to] ?? 0) + 1;
  };
  add(start);
  for (const { then, otherwise } of rows) {
    add(then);
    add(otherwise);
  }
  return ways;
}

/**
 * The longest runs of rows of which each is asked when the one before does not match, and only then,
 * and that a table can hold; those of fewer than `least` rows are left out.
 */
function findRuns(view: View, least: number): Runs {
  const ways = countWays(view);
  const maker = createTableMaker(view.region);
  const byEntry = new Map(view.rows.map((row) => [row.entry, row]));
  const first = new Map<number, readonly Row[]>();
  const inside = new Set<number>();
  const seen = new Set<number>();
  for (const start of view.rows) {
    if (seen.has(start.entry)) continue;
    const run: Row[] = [];
    for (let row: Row | undefined = start; row !== undefined && maker.canTake(row); ) {
      run.push(row);
      seen.add(row.entry);
      const { to, counts }: Ref = row.otherwise;
      const isNext: boolean = counts.length === 0 && ways[to] === 1 && !seen.has(to);
      row = isNext ? byEntry.get(to) : undefined;
    }
    if (run.length < least) continue;
    first.set(start.entry, run);
    for (const row of run.slice(1)) inside.add(row.entry);
  }
  return { maker, first, inside };
}

/** Targets that one table may have. */
const MOST_TARGETS = 256;

/** Boxes in a leaf where frames are rare: trees are built in less time, and are smaller. */
const LATER_LEAF = 32;

/** What a row does when it matches: one counter that counts, or null, and where the walk goes on. */
interface Effect {
  readonly node: DecisionNode;
  readonly counter: number | null;
  readonly rule: string | null;
}

function effectOf(
  builder: Builder,
  { then, handOn, rule }: Row,
  resolve: (ref: Ref, rule: string | null) => DecisionNode,
): Effect {
  if (handOn) return { node: builder.pass, counter: null, rule };
  const [counter = null, ...others] = then.counts;
  // Where several count, a node of its own counts them.
  const node = resolve(others.length === 0 ? { ...then, counts: [] } : then, rule);
  return { node, counter: others.length === 0 && node !== builder.pass ? counter : null, rule };
}

/**
 * What is done when no row before the last ones matches, and how many rows are left to ask: a last row
 * that matches all, or does what is done without it, need not be asked.
 */
function trimRun(
  run: readonly Row[],
  effects: readonly Effect[],
  otherwise: DecisionNode,
): { readonly left: number; readonly none: DecisionNode } {
  let none = otherwise;
  let left = run.length;
  for (; left > 0; left -= 1) {
    const effect = effects[left - 1];
    if (effect === undefined || effect.counter !== null) break;
    if (run[left - 1]?.tests.length === 0) none = effect.node;
    else if (effect.node !== none) break;
  }
  return { left, none };
}

/** A run of rows as one node; null where it would be too big. */
function tableNode(
  builder: Builder,
  region: Region,
  maker: TableMaker,
  run: readonly Row[],
  resolve: (ref: Ref, rule: string | null) => DecisionNode,
): DecisionNode | null {
  const last = run.at(-1);
  if (last === undefined) throw new Error('bug: a run of no rows');
  const effects = run.map((row) => effectOf(builder, row, resolve));
  const { left, none } = trimRun(run, effects, resolve(last.otherwise, last.rule));
  if (left === 0) return none;
  // Both leaves, whether they are needed or not: then code is the same whatever rules there are.
  const ends = [none, builder.pass, builder.drop];
  const targets = [...new Set([...ends, ...effects.slice(0, left).map(({ node }) => node)])];
  if (targets.length > MOST_TARGETS) return null;
  const numbers = new Map(targets.map((node, index) => [node, index]));
  const actions = effects.slice(0, left).map(({ node, counter, rule }): TableAction => {
    return { target: numbers.get(node) ?? 0, counter, rule };
  });
  const isLater = (region.get(FRAME.fragment.name)?.lo ?? 0n) >= 2n;
  const source = builder.options.tableSource ?? newTable;
  const few = isLater ? LATER_LEAF : null;
  const made = source({ maker, rows: run.slice(0, left), actions, few });
  return made === null ? null : askTable(builder, { ...made, actions, targets, none: 0 });
}

/** The region with nothing in it that only says how many tags there are. */
function withoutTags(region: Region): string {
  const kept = [...region].filter(
    ([key]) => key !== FRAME.tags.name && key !== presenceKey('ll', 'ingress'),
  );
  const words = kept.map(([key, { lo, hi, without }]) => `${key} ${lo} ${hi} ${without.join()}`);
  return words.sort().join(';');
}

function isSameRef(a: Ref, b: Ref): boolean {
  return a.to === b.to && a.counts.join() === b.counts.join();
}

/** Whether two views ask the same, so that what became of one will do for the other. */
function isSameView(a: View, b: View): boolean {
  if (a.rows.length !== b.rows.length || !isSameRef(a.start, b.start)) return false;
  if (withoutTags(a.region) !== withoutTags(b.region)) return false;
  return a.rows.every((row, index) => {
    const other = b.rows[index];
    return (
      other !== undefined &&
      row.entry === other.entry &&
      row.handOn === other.handOn &&
      isSameRef(row.then, other.then) &&
      isSameRef(row.otherwise, other.otherwise) &&
      row.tests.length === other.tests.length &&
      row.tests.every(
        ({ test, fields }, at) =>
          test === other.tests[at]?.test && fields.every(({ base }) => base !== 'll'),
      )
    );
  });
}

/** A region with tables in it; null where none of its runs is long enough, or one is too big. */
function askTables(builder: Builder, view: View): DecisionNode | null {
  const least = builder.options.tableRules ?? null;
  if (least === null || view.rows.length < least) return null;
  const known = builder.made.find(({ view: other }) => isSameView(other, view));
  if (known !== undefined) return known.node;
  const runs = findRuns(view, least);
  if (runs.first.size === 0) return null;
  const node = askInTurn(builder, view, runs);
  if (node !== null) builder.made.push({ view, node });
  return node;
}

function askRows(builder: Builder, view: View): DecisionNode {
  const node = askInTurn(builder, view, null);
  if (node === null) throw new Error('bug: rows without a table are too big');
  return node;
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
    if (base === 'th') node = askFragment(builder, region, node);
  }
  return node;
}

/** Later fragments go on, where it is still open whether the frame is one. */
function askFragment(builder: Builder, region: Region, node: DecisionNode): DecisionNode {
  const known = region.get(FRAME.fragment.name);
  return known !== undefined && known.hi < 2n
    ? node
    : branch(builder, isLaterFragment, builder.pass, node, null);
}

/** One object for each test at hooks of one view. */
function questionOf(
  builder: Builder,
  test: Exclude<Test, { kind: 'unknown' }>,
  view: ViewName,
): Question {
  const known = builder.questions[view].get(test);
  if (known !== undefined) return known;
  const question: Question =
    test.kind === 'compare'
      ? { kind: 'compare', operand: test.operand, lo: test.lo, hi: test.hi, view }
      : { kind: 'lookup', key: test.key, set: test.set, view };
  builder.questions[view].set(test, question);
  return question;
}

function valueNode(
  builder: Builder,
  test: Exclude<Test, { kind: 'unknown' }>,
  view: ViewName,
  holds: DecisionNode,
  fails: DecisionNode,
  rule: string | null,
): DecisionNode {
  const question = questionOf(builder, test, view);
  return branch(builder, question, holds, fails, rule);
}

function lessThan(field: Field, at: bigint, view: ViewName): Question {
  return { kind: 'compare', operand: plain(field), lo: 0n, hi: at - 1n, view };
}

/**
 * Cuts values into smaller regions while that pays, then asks in turn. `budget` is how many copies
 * of rows the cuts may make; each side gets its share of what is left.
 */
function cutValues(builder: Builder, view: View, budget: number): DecisionNode {
  const { rows, start, region } = view;
  const cut = rows.length > builder.options.leafRules ? chooseCut(view) : null;
  if (cut === null) return askRows(builder, view);
  const key = fieldKey(cut.field);
  const top = ones(cut.field.width);
  const low = enter(builder.scratch, rows, start, restrict(region, key, 0n, cut.at - 1n), key);
  const high = enter(builder.scratch, rows, start, restrict(region, key, cut.at, top), key);
  const sum = low.rows.length + high.rows.length;
  const left = budget - Math.max(0, sum - rows.length);
  if (left < 0 || Math.max(low.rows.length, high.rows.length) >= rows.length) {
    return askRows(builder, view);
  }
  const yes = cutValues(builder, low, (left * low.rows.length) / sum);
  const no = cutValues(builder, high, (left * high.rows.length) / sum);
  return branch(builder, lessThan(cut.field, cut.at, rows[0]?.view ?? 'ingress'), yes, no, null);
}

/** Value cuts with as many copies as the options allow for this many rows. */
function cutRows(builder: Builder, view: View): DecisionNode {
  const node = askTables(builder, view);
  if (node !== null) return node;
  return cutValues(builder, view, Math.max(500, view.rows.length * builder.options.copies));
}

const VIEWS: readonly ViewName[] = ['ingress', 'l3'];

/** Ends of the transport loads still open, by view. */
function transportEnds(view: View, name: ViewName): number[] {
  const ends = new Set<number>();
  for (const row of view.rows) {
    if (row.view !== name) continue;
    for (const { fields } of row.tests) {
      for (const field of fields) {
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
    const least = protocol === null ? 0 : shortest(protocol);
    const end = Math.max(last, least);
    const key = presenceKey('th', name);
    const longRegion = restrict(view.region, key, BigInt(end), PLENTY);
    const long = enter(builder.scratch, view.rows, view.start, longRegion, key);
    const yes = cutTransport(builder, long, protocol);
    const shortRegion = restrict(view.region, key, 0n, BigInt(end - 1));
    const no =
      last <= least
        ? builder.pass
        : cutTransport(
            builder,
            enter(builder.scratch, view.rows, view.start, shortRegion, key),
            protocol,
          );
    return branch(builder, { kind: 'present', base: 'th', view: name, end }, yes, no, null);
  }
  return cutRows(builder, view);
}

/** One row in so many must ask for a protocol for it to get a region of its own. */
const PROTOCOL_SHARE = 40;

function shortest(protocol: bigint): number {
  return SHORTEST_HEADER.get(protocol) ?? 0;
}

/**
 * Protocol numbers that enough rows ask for by name: long headers first, then those asked most
 * often. (What follows a long header knows most, and a verifier should see that last.)
 */
function askedProtocols(view: View): bigint[] {
  const asked = new Map<bigint, number>();
  for (const row of view.rows) {
    for (const { test } of row.tests) {
      const interval = intervalOf(test);
      if (interval?.key !== META.l4proto.name || interval.lo !== interval.hi) continue;
      asked.set(interval.lo, (asked.get(interval.lo) ?? 0) + 1);
    }
  }
  return [...asked]
    .filter(([, rows]) => rows * PROTOCOL_SHARE >= view.rows.length)
    .sort((a, b) => shortest(b[0]) - shortest(a[0]) || b[1] - a[1] || Number(a[0] - b[0]))
    .map(([value]) => value);
}

const PROTOCOLS = 12;

function hasTransport(view: View): boolean {
  return view.rows.some((row) =>
    row.tests.some(({ fields }) => fields.some((field) => field.base === 'th')),
  );
}

/** One region for each transport protocol that the rules name, and one for the rest. */
function cutProtocol(builder: Builder, view: View): DecisionNode {
  const protocols = askedProtocols(view).slice(0, PROTOCOLS);
  const whole = askTables(builder, view);
  if (whole !== null) return whole;
  if (protocols.length === 0 || (view.rows.length < 3 && !hasTransport(view))) {
    return cutTransport(builder, view, null);
  }
  const key = META.l4proto.name;
  const known = view.region.get(key);
  if (known !== undefined && known.lo === known.hi) {
    return cutTransport(builder, view, known.lo);
  }
  const rest = protocols.reduce((region, value) => exclude(region, key, value), view.region);
  let node = cutTransport(builder, enter(builder.scratch, view.rows, view.start, rest, key), null);
  for (const value of [...protocols].reverse()) {
    const region = restrict(view.region, key, value, value);
    const own = enter(builder.scratch, view.rows, view.start, region, key);
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
  const later = enter(
    builder.scratch,
    view.rows,
    view.start,
    restrict(view.region, key, 2n, 2n),
    key,
  );
  const other = enter(
    builder.scratch,
    view.rows,
    view.start,
    restrict(view.region, key, 0n, 1n),
    key,
  );
  const yes = cutProtocol(builder, later);
  return branch(builder, isLaterFragment, yes, cutProtocol(builder, other), null);
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
  const rows = rowsOf(classifier);
  const scratch = createScratch(rows.length);
  const questions = { ingress: new Map(), l3: new Map() };
  const builder: Builder = { ...createNodeTable(), options, scratch, questions, made: [] };
  const root = (region: Region, cut: typeof cutFragments): DecisionNode => {
    const [first] = rows;
    if (first === undefined) return builder.pass;
    return (options.regions === false ? cutRows : cut)(
      builder,
      enter(builder.scratch, rows, { counts: [], to: first.entry }, region, null),
    );
  };
  const roots = (tags: bigint): Roots => ({
    ip: root(ipRegion(tags, ETH_P_IP, 2n, 20n), cutFragments),
    ip6: root(ipRegion(tags, ETH_P_IPV6, 10n, 40n), cutProtocol),
    other: root(otherRegion(tags), cutRows),
  });
  const untagged = roots(0n);
  const tagged = roots(1n);
  const stacked = root(otherRegion(2n), cutRows);
  return { untagged, tagged, stacked, size: builder.interned.size };
}
