import type { Reason } from '../support/diagnostics.ts';
import type { Classifier, Counter, Effect, Entry, Stage, Target, ViewName } from './classifier.ts';
import {
  beforeForward,
  beforeInput,
  beforePrerouting,
  type Condition,
  defragmentation,
  FLOW_TABLE,
  localDestination,
  loopedCopies,
  undecidedDestinations,
} from './conditions.ts';
import type { Facts } from './facts.ts';
import { type Field, META } from './fields.ts';
import { equals, within } from './operand.ts';
import { type FamilyState, familyState, hasFlowTable, type PathChain, selectPath } from './path.ts';
import { resolveLookup, resolveTest, type Site } from './resolve-test.ts';
import {
  type Chain,
  type ElementSet,
  formatRuleId,
  type Hook,
  type Rule,
  type RuleId,
  type Ruleset,
  type Step,
  type Table,
  type Test,
  type Verdict,
} from './ruleset.ts';

/** How frames come to the tier that the walk is for. */
export interface FlattenOptions {
  /** Copies of own multicast come without an Ethernet header (generic XDP). */
  readonly loopedCopies: boolean;
}

/** A place later in the list, known once everything before it is written. */
interface Label {
  index: number;
}

type Draft =
  | Target
  | { readonly kind: 'label'; readonly label: Label; readonly uncertain: boolean };

interface DraftEntry extends Omit<Entry, 'then' | 'otherwise'> {
  readonly then: Draft;
  readonly otherwise: Draft;
}

/** Why a rule takes no part in the walk, by `formatRuleId`. */
export type LeftOut = ReadonlyMap<string, Reason>;

export interface Flattened {
  readonly classifier: Classifier;
  /** Rules that never run on the path, or never match on the device. */
  readonly leftOut: LeftOut;
}

/** Entries at most; calls into chains are written out, so nested ones multiply. */
const ENTRY_LIMIT = 400_000;

interface Builder {
  readonly entries: DraftEntry[];
  readonly stages: Stage[];
  readonly counters: Counter[];
  readonly counterIndex: Map<string, number>;
  readonly leftOut: Map<string, Reason>;
  readonly emitted: Set<string>;
  readonly facts: Facts;
  /** What earlier statements on the path may have rewritten. */
  changed: Field[] | 'everything';
}

/** Where the entries of a chain's rules are written. */
interface Frame {
  readonly table: Table;
  readonly hook: Hook;
  readonly view: ViewName;
  /** Behind the last rule, and for `return`. */
  readonly end: Label;
  /** After `accept`: behind the whole base chain. */
  readonly accepted: Label;
  readonly depth: number;
  /** Chains reached by goto, written once behind the rules that go there. */
  readonly gotos: Map<string, Label>;
}

const JUMP_LIMIT = 16; // NFT_JUMP_STACK_SIZE, include/net/netfilter/nf_tables.h

function to(label: Label, uncertain = false): Draft {
  return { kind: 'label', label, uncertain };
}

function bind(builder: Builder, label: Label): void {
  label.index = builder.entries.length;
}

function push(builder: Builder, entry: Partial<DraftEntry> & Pick<DraftEntry, 'label' | 'view'>) {
  const next: Label = { index: builder.entries.length + 1 };
  builder.entries.push({
    rule: null,
    tests: [],
    counts: [],
    effects: [],
    then: to(next),
    otherwise: to(next),
    ...entry,
  });
}

/** Writes kernel conditions; frames that meet none, or may be gone, go on behind (or `doubtful`). */
function pushConditions(
  builder: Builder,
  view: ViewName,
  conditions: readonly Condition[],
  doubtful?: Label,
): void {
  for (const condition of conditions) {
    const { label } = condition;
    const tests = resolveConditions(builder, condition.tests);
    const next: Label = { index: builder.entries.length + 1 };
    const then: Draft =
      condition.then.kind === 'uncertain' ? to(doubtful ?? next, true) : condition.then;
    push(builder, { label, view, tests, then });
  }
}

/** The kernel's own tests on what NAT or a rule may have rewritten cannot be relied on either. */
function resolveConditions(builder: Builder, tests: readonly Test[]): Test[] {
  const site: Site = { facts: builder.facts, hook: 'prerouting', changed: builder.changed };
  return tests.map((test) => {
    const resolved = resolveTest(test, site);
    return typeof resolved === 'boolean' ? test : resolved;
  });
}

function counterOf(builder: Builder, counter: Omit<Counter, 'family' | 'table'>, frame: Frame) {
  const { family, name: table } = frame.table;
  const owner = counter.rule === null ? counter.name : formatRuleId(counter.rule);
  const key = JSON.stringify([family, table, owner, counter.rule === null, frame.view]);
  const known = builder.counterIndex.get(key);
  if (known !== undefined) return known;
  builder.counters.push({ family, table, ...counter });
  builder.counterIndex.set(key, builder.counters.length - 1);
  return builder.counters.length - 1;
}

/** A rule under construction: conditions and what happens so far, not yet written. */
interface Open {
  tests: Test[];
  counts: number[];
  effects: Effect[];
}

function sameVerdict(a: Verdict, b: Verdict): boolean {
  if ('chain' in a) return 'chain' in b && a.kind === b.kind && a.chain === b.chain;
  return a.kind === b.kind;
}

/** The map's elements by verdict, in order of first appearance. */
function byVerdict(map: ElementSet): { verdict: Verdict; set: ElementSet }[] {
  const { parts, lo, hi, verdicts } = map.elements;
  const groups: { verdict: Verdict; members: number[] }[] = [];
  const keyed = new Map<string, { verdict: Verdict; members: number[] }>();
  for (const [index, verdict] of (verdicts ?? []).entries()) {
    const key = 'chain' in verdict ? `${verdict.kind} ${verdict.chain}` : verdict.kind;
    let group = keyed.get(key);
    if (group === undefined || !sameVerdict(group.verdict, verdict)) {
      group = { verdict, members: [] };
      keyed.set(key, group);
      groups.push(group);
    }
    group.members.push(index);
  }
  return groups.map(({ verdict, members }) => {
    const pick = (column: readonly bigint[]): bigint[] => members.map((i) => column[i] ?? 0n);
    const picked = pick(lo);
    const elements = { parts, lo: picked, hi: hi === lo ? picked : pick(hi), verdicts: null };
    return { verdict, set: { ...map, elements } };
  });
}

function noteChange(builder: Builder, changes: readonly Field[] | 'everything'): void {
  if (builder.changed === 'everything' || changes === 'everything') builder.changed = 'everything';
  else builder.changed = [...builder.changed, ...changes];
}

/** Writes one rule; frames that it does not decide go on behind it. */
function pushRule(builder: Builder, frame: Frame, rule: Rule): void {
  const next: Label = { index: -1 };
  const open: Open = { tests: [], counts: [], effects: [] };
  const write = (then: Draft): void => {
    const { tests, counts, effects } = open;
    const base = { rule: rule.id, label: rule.text, view: frame.view };
    push(builder, { ...base, tests, counts, effects, then, otherwise: to(next) });
    open.tests = [];
    open.counts = [];
    open.effects = [];
  };
  const writeThrough = (): void => write(to({ index: builder.entries.length + 1 }));
  let ended = false;
  for (const step of rule.steps) {
    if (!pushStep(builder, frame, rule.id, step, { open, write, writeThrough, next })) {
      ended = true;
      break;
    }
  }
  if (!ended && (open.counts.length > 0 || open.effects.length > 0)) write(to(next));
  bind(builder, next);
}

interface Writing {
  readonly open: Open;
  /** Closes the entry with this target. */
  readonly write: (then: Draft) => void;
  /** Closes the entry; the rule goes on in the next one. */
  readonly writeThrough: () => void;
  readonly next: Label;
}

/** Takes one step into the open entry; false when nothing behind it can run. */
function pushStep(
  builder: Builder,
  frame: Frame,
  rule: RuleId,
  step: Step,
  { open, write, writeThrough, next }: Writing,
): boolean {
  const site: Site = { facts: builder.facts, hook: frame.hook, changed: builder.changed };
  switch (step.kind) {
    case 'test': {
      const test = resolveTest(step.test, site);
      if (test === true) return true;
      if (test === false) {
        if (open.counts.length > 0 || open.effects.length > 0) write(to(next));
        builder.leftOut.set(formatRuleId(rule), {
          code: 'rule/never-matches',
          message: `cannot match on ${builder.facts.device}`,
        });
        return false;
      }
      if (open.counts.length > 0 || open.effects.length > 0) writeThrough();
      if (test.kind === 'unknown' && test.stateful) {
        open.effects.push({ name: test.text, reason: test.reason, external: true });
        writeThrough();
      }
      open.tests.push(test);
      return true;
    }
    case 'count': {
      const named = step.counter.kind === 'named' ? step.counter.name : null;
      const counter = { rule: named === null ? rule : null, name: named, view: frame.view };
      open.counts.push(counterOf(builder, counter, frame));
      return true;
    }
    case 'effect': {
      open.effects.push({ name: step.name, reason: step.reason, external: step.external });
      noteChange(builder, step.changes);
      if (step.outcome === 'next') return true;
      if (step.outcome === 'accept') write(to(frame.accepted));
      else if (step.outcome === 'drop') write({ kind: 'drop' });
      else write({ kind: 'unknown', reason: step.reason });
      return false;
    }
    case 'verdict':
      if (step.verdict.kind === 'jump') {
        pushCall(builder, frame, step.verdict.chain, write, next);
      } else {
        write(verdictTarget(builder, frame, step.verdict, next));
      }
      return false;
    case 'vmap': {
      const lookup = resolveLookup(step.key, step.map, site);
      if (lookup.kind === 'unknown') {
        open.tests.push(lookup);
        const onlyDrops = step.map.elements.verdicts?.every(({ kind }) => kind === 'drop') === true;
        write(onlyDrops ? { kind: 'drop' } : { kind: 'unknown', reason: lookup.reason });
      } else if (lookup.kind === 'lookup') {
        pushMap(builder, frame, lookup, { open, write, writeThrough, next });
      } else if (open.counts.length > 0 || open.effects.length > 0) {
        write(to(next));
      }
      return false;
    }
  }
}

function pushMap(
  builder: Builder,
  frame: Frame,
  {
    key,
    set,
  }: { readonly key: Extract<Test, { kind: 'lookup' }>['key']; readonly set: ElementSet },
  { open, write, writeThrough, next }: Writing,
): void {
  const groups = byVerdict(set).filter(({ verdict }) => verdict.kind !== 'continue');
  if (open.counts.length > 0 || open.effects.length > 0 || groups.length > 1) writeThrough();
  for (const { verdict, set: subset } of groups) {
    const past: Label = { index: -1 };
    const test: Test = { kind: 'lookup', key, set: subset, negated: false };
    if (key.length > 0) open.tests.push(test);
    // The next verdict is tried where this one's keys do not match, so `write` must go there.
    const at = builder.entries.length;
    if (verdict.kind === 'jump') pushCall(builder, frame, verdict.chain, write, next);
    else write(verdictTarget(builder, frame, verdict, next));
    const entry = builder.entries[at];
    if (entry !== undefined) builder.entries[at] = { ...entry, otherwise: to(past) };
    bind(builder, past);
  }
}

function verdictTarget(builder: Builder, frame: Frame, verdict: Verdict, next: Label): Draft {
  switch (verdict.kind) {
    case 'accept':
      return to(frame.accepted);
    case 'drop':
      return { kind: 'drop' };
    case 'continue':
      return to(next);
    case 'return':
      return to(frame.end);
    case 'goto': {
      const known = frame.gotos.get(verdict.chain);
      if (known !== undefined) return to(known);
      const label: Label = { index: -1 };
      frame.gotos.set(verdict.chain, label);
      return to(label);
    }
    case 'jump':
      throw new Error(`bug: jump to ${verdict.chain} in ${builder.facts.device} is no target`);
  }
}

function pushCall(
  builder: Builder,
  frame: Frame,
  name: string,
  write: (then: Draft) => void,
  next: Label,
): void {
  const body: Label = { index: builder.entries.length + 1 };
  write(to(body));
  pushCalled(builder, { ...frame, end: next, depth: frame.depth + 1, gotos: new Map() }, name);
}

/** Writes a called chain's rules in place; its end goes to the frame's end. */
function pushCalled(builder: Builder, frame: Frame, name: string): void {
  const chain = frame.table.chains.find((candidate) => candidate.name === name);
  if (chain === undefined || frame.depth > JUMP_LIMIT || builder.entries.length > ENTRY_LIMIT) {
    const message =
      chain === undefined ? `chain ${name} does not exist` : `chain ${name} is called too deep`;
    const reason = { code: 'path/call', message };
    push(builder, { label: `call ${name}`, view: frame.view, then: { kind: 'unknown', reason } });
    return;
  }
  pushRules(builder, frame, chain);
}

function pushRules(builder: Builder, frame: Frame, chain: Chain): void {
  for (const rule of chain.rules) {
    builder.emitted.add(formatRuleId(rule.id));
    pushRule(builder, frame, rule);
  }
  if (frame.gotos.size === 0) return;
  push(builder, { label: `end of ${chain.name}`, view: frame.view, then: to(frame.end) });
  const written = new Set<string>();
  for (;;) {
    const pending = [...frame.gotos].find(([name]) => !written.has(name));
    if (pending === undefined) return;
    const [name, label] = pending;
    written.add(name);
    bind(builder, label);
    pushGoto(builder, { ...frame, depth: frame.depth + 1 }, name);
  }
}

function pushGoto(builder: Builder, frame: Frame, name: string): void {
  const chain = frame.table.chains.find((candidate) => candidate.name === name);
  if (chain === undefined) {
    pushCalled(builder, frame, name);
    return;
  }
  // Chains it goes to in turn stay behind everything that may go there: written in its own place.
  pushRules(builder, { ...frame, gotos: new Map() }, chain);
  push(builder, { label: `end of ${name}`, view: frame.view, then: to(frame.end) });
}

/**
 * Any inet chain at ingress, even an empty one, lets pass what is not IP and drops what is malformed
 * (nft_do_chain_inet_ingress, net/netfilter/nft_chain_filter.c).
 */
function pushInetIngress(builder: Builder, accepted: Label): void {
  const view = 'ingress';
  const notIp = equals(META.nfproto, NFPROTO_NETDEV);
  push(builder, { label: 'not IP', view, tests: [notIp], then: to(accepted) });
  // The kernel fails to find the protocol number exactly when it finds the headers malformed.
  const wellFormed = within(META.l4proto, 0n, 0xffn);
  const drop = { kind: 'drop' } as const;
  push(builder, { label: 'well-formed IP', view, tests: [wellFormed], otherwise: drop });
}

const NFPROTO_NETDEV = 5n; // include/uapi/linux/netfilter.h

function pushBaseChain(builder: Builder, { table, chain, base }: PathChain): void {
  const view: ViewName = base.hook === 'ingress' ? 'ingress' : 'l3';
  const from = builder.entries.length;
  const accepted: Label = { index: -1 };
  const end: Label = { index: -1 };
  const version = table.family === 'ip' ? 2n : table.family === 'ip6' ? 10n : null;
  if (version !== null) {
    const tests = [equals(META.nfproto, version)];
    const next: Label = { index: from + 1 };
    push(builder, {
      label: `family ${table.family}`,
      view,
      tests,
      then: to(next),
      otherwise: to(accepted),
    });
  }
  if (table.family === 'inet' && base.hook === 'ingress') pushInetIngress(builder, accepted);
  const { hook } = base;
  const frame: Frame = { table, hook, view, end, accepted, depth: 0, gotos: new Map() };
  pushRules(builder, frame, chain);
  bind(builder, end);
  if (base.policy === 'drop') {
    push(builder, { label: `policy drop of ${chain.name}`, view, then: { kind: 'drop' } });
  }
  bind(builder, accepted);
  const { family, name } = table;
  const { priority } = base;
  const to_ = builder.entries.length;
  builder.stages.push({ family, table: name, chain: chain.name, hook, priority, from, to: to_ });
}

const DEFRAGMENTATION = -400; // NF_IP_PRI_CONNTRACK_DEFRAG, uapi/linux/netfilter_ipv4.h
const TRANSLATION = -100; // NF_IP_PRI_NAT_DST

function serves(chain: PathChain, version: 'ip' | 'ip6'): boolean {
  return chain.table.family === version || chain.table.family === 'inet';
}

function pushPrerouting(
  builder: Builder,
  chains: readonly PathChain[],
  states: Record<'ip' | 'ip6', FamilyState>,
  hasFlows: boolean,
): void {
  pushConditions(builder, 'l3', beforePrerouting(builder.facts));
  if (hasFlows) pushConditions(builder, 'l3', [FLOW_TABLE]);
  const done = new Set<'ip' | 'ip6'>();
  const defragment = (needed: (version: 'ip' | 'ip6') => boolean): void => {
    for (const version of ['ip', 'ip6'] as const) {
      if (!states[version].tracks || done.has(version) || !needed(version)) continue;
      done.add(version);
      pushConditions(builder, 'l3', [defragmentation(version)]);
    }
  };
  const translates = states.ip.nat || states.ip6.nat;
  for (const chain of chains) {
    if (chain.base.priority > DEFRAGMENTATION) defragment((version) => serves(chain, version));
    if (translates && chain.base.priority >= TRANSLATION) noteChange(builder, 'everything');
    pushBaseChain(builder, chain);
  }
  defragment(() => true);
  if (translates) noteChange(builder, 'everything');
}

function pushInput(builder: Builder, chains: readonly PathChain[]): void {
  pushConditions(builder, 'l3', beforeInput(builder.facts));
  for (const chain of chains) pushBaseChain(builder, chain);
}

const NO_ROLE: Reason = {
  code: 'fact/role',
  message:
    'whether packets are for this machine or forwarded is not known (give --fact role=host|router)',
};

/** Behind prerouting: packets for this machine go to input, the others to forward. */
function pushDelivery(
  builder: Builder,
  input: readonly PathChain[],
  forward: readonly PathChain[],
) {
  if (input.length === 0 && forward.length === 0) return;
  const { facts } = builder;
  const route = (conditions: readonly (readonly Test[])[], label: string, target: Label): void => {
    for (const tests of conditions) {
      const resolved = resolveConditions(builder, tests);
      push(builder, { label, view: 'l3', tests: resolved, then: to(target) });
    }
  };
  const end: Label = { index: -1 };
  if (facts.role === null || (facts.role === 'router' && facts.localAddresses === null)) {
    push(builder, { label: 'routing', view: 'l3', then: { kind: 'unknown', reason: NO_ROLE } });
    return;
  }
  const local: Label = { index: -1 };
  if (facts.localAddresses !== null) {
    route(localDestination(facts), 'destination is local', local);
  }
  pushConditions(builder, 'l3', undecidedDestinations(facts), local);
  if (facts.role === 'host') {
    if (facts.localAddresses === null) {
      const next: Label = { index: builder.entries.length + 1 };
      push(builder, { label: 'may not be for this machine', view: 'l3', then: to(next, true) });
    } else {
      push(builder, { label: 'not for this machine', view: 'l3', then: { kind: 'lost' } });
    }
  } else {
    pushConditions(builder, 'l3', beforeForward(facts));
    for (const chain of forward) pushBaseChain(builder, chain);
    push(builder, { label: 'forwarded', view: 'l3', then: to(end) });
  }
  bind(builder, local);
  pushInput(builder, input);
  bind(builder, end);
}

function resolveTarget(draft: Draft, length: number): Target {
  if (draft.kind !== 'label') return draft;
  const { index } = draft.label;
  if (index < 0) throw new Error('bug: a target was never placed');
  return index >= length
    ? { kind: 'accept' }
    : { kind: 'entry', index, uncertain: draft.uncertain };
}

/**
 * Lowers a ruleset to the walk that frames received on `facts.device` take: the base chains of
 * netdev ingress, prerouting and input or forward in the kernel's order, jumps written out, the
 * device's constants folded, the kernel's own conditions between hooks as entries without a rule.
 */
export function flatten(
  ruleset: Ruleset,
  facts: Facts,
  options: FlattenOptions = { loopedCopies: false },
): Flattened {
  const path = selectPath(ruleset, facts);
  const builder: Builder = {
    entries: [],
    stages: [],
    counters: [],
    counterIndex: new Map(),
    leftOut: new Map(),
    emitted: new Set(),
    facts,
    changed: [],
  };
  if (options.loopedCopies) pushConditions(builder, 'ingress', loopedCopies(facts));
  for (const chain of path.ingress) pushBaseChain(builder, chain);
  const layer3 = path.prerouting.length + path.input.length + path.forward.length;
  if (layer3 > 0) {
    const states = { ip: familyState(ruleset, 'ip'), ip6: familyState(ruleset, 'ip6') };
    pushPrerouting(builder, path.prerouting, states, hasFlowTable(ruleset));
    pushDelivery(builder, path.input, path.forward);
  }
  const { length } = builder.entries;
  const entries = builder.entries.map((entry) => ({
    ...entry,
    then: resolveTarget(entry.then, length),
    otherwise: resolveTarget(entry.otherwise, length),
  }));
  const { stages, counters } = builder;
  const classifier = { device: facts.device, entries, stages, counters };
  return { classifier, leftOut: explainLeftOut(ruleset, path, builder) };
}

function notRun(chain: Chain, facts: Facts): Reason {
  const { device, role } = facts;
  if (chain.base === null) {
    const message = `no chain that runs for ${device} calls ${chain.name}`;
    return { code: 'path/not-called', message };
  }
  if (role === 'host') {
    return { code: 'path/not-forwarding', message: 'a host forwards nothing (fact role=host)' };
  }
  return NO_ROLE;
}

function explainLeftOut(
  ruleset: Ruleset,
  path: ReturnType<typeof selectPath>,
  builder: Builder,
): LeftOut {
  const reasons = new Map(builder.leftOut);
  const off = new Map(path.off.map(({ chain, reason }) => [chain, reason]));
  for (const table of ruleset.tables) {
    for (const chain of table.chains) {
      for (const rule of chain.rules) {
        const key = formatRuleId(rule.id);
        if (builder.emitted.has(key) || reasons.has(key)) continue;
        const uncalled = notRun(chain, builder.facts);
        reasons.set(key, off.get(chain) ?? uncalled);
      }
    }
  }
  return reasons;
}
