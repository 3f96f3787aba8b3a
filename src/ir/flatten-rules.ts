import type { Counter, Effect, ViewName } from './classifier.ts';
import { CT_STATE, type Field, fieldKey } from './fields.ts';
import { formatTest } from './print.ts';
import {
  ANY_FLOW,
  type FlowStates,
  resolveLookup,
  resolveTest,
  type Site,
} from './resolve-test.ts';
import {
  type Chain,
  type ElementSet,
  formatRuleId,
  type Hook,
  type Operand,
  type Rule,
  type RuleId,
  type Step,
  type Table,
  type Test,
  type Verdict,
} from './ruleset.ts';
import { type Builder, bind, type Draft, type Label, push, to } from './walk-builder.ts';

/** Entries at most; calls into chains are written out, so nested ones multiply. */
export const ENTRY_LIMIT = 400_000;

/** Where the entries of a chain's rules are written. */
export interface Frame {
  readonly table: Table;
  readonly hook: Hook;
  readonly states: FlowStates;
  readonly view: ViewName;
  /** Behind the last rule, and for `return`. */
  readonly end: Label;
  /** After `accept`: behind the whole base chain. */
  readonly accepted: Label;
  readonly depth: number;
  /** Chains reached by goto, written once behind the rules that go there. */
  readonly gotos: Map<string, Label>;
}

export const JUMP_LIMIT = 16; // NFT_JUMP_STACK_SIZE, include/net/netfilter/nf_tables.h

/** The index of a counter of the classifier, which is added when it is new. */
export function counterOf(
  builder: Builder,
  counter: Omit<Counter, 'family' | 'table'>,
  frame: Pick<Frame, 'table' | 'view'>,
): number {
  const { family, name: table } = frame.table;
  const owner = counter.rule === null ? counter.name : formatRuleId(counter.rule);
  const key = JSON.stringify([family, table, owner, counter.rule === null, frame.view]);
  const known = builder.counterIndex.get(key);
  if (known !== undefined) return known;
  builder.counters.push({ family, table, ...counter });
  builder.counterIndex.set(key, builder.counters.length - 1);
  return builder.counters.length - 1;
}

/** A verdict map on `ct state` alone, without the states there cannot be. */
export function restrictToStates(
  key: readonly Operand[],
  map: ElementSet,
  states: FlowStates,
): ElementSet {
  const [only] = key;
  if (only === undefined || key.length > 1 || fieldKey(only.field) !== CT_STATE.name) return map;
  const { parts, lo, hi, verdicts } = map.elements;
  const kept = lo.flatMap((low, index) => {
    const high = hi[index] ?? low;
    return states.some((state) => state >= low && state <= high) ? [index] : [];
  });
  if (kept.length === lo.length) return map;
  const elements = {
    parts,
    lo: kept.map((index) => lo[index] ?? 0n),
    hi: kept.map((index) => hi[index] ?? 0n),
    verdicts: verdicts === null ? null : kept.flatMap((index) => verdicts[index] ?? []),
  };
  return { ...map, elements };
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
export function byVerdict(map: ElementSet): { verdict: Verdict; set: ElementSet }[] {
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

export function noteChange(builder: Builder, changes: readonly Field[] | 'everything'): void {
  if (builder.changed === 'everything' || changes === 'everything') builder.changed = 'everything';
  else builder.changed = [...builder.changed, ...changes];
}

/** Writes one rule; frames that it does not decide go on behind it. */
function pushRule(builder: Builder, frame: Frame, rule: Rule): void {
  const next: Label = { index: -1 };
  const open: Open = { tests: [], counts: [], effects: [] };
  const write = (then: Draft): void => {
    const { tests, counts, effects } = open;
    const { id, text: label } = rule;
    const otherwise = to(next);
    const { view } = frame;
    builder.entries.push({ rule: id, label, view, tests, counts, effects, then, otherwise });
    open.tests = [];
    open.counts = [];
    open.effects = [];
  };
  const writeThrough = (): void => write(to({ index: builder.entries.length + 1 }));
  const key = formatRuleId(rule.id);
  let isPossible = true;
  const never = (test: string): void => {
    isPossible = false;
    if (builder.states !== ANY_FLOW) return;
    const message = `${test}: never so on ${builder.facts.device}`;
    builder.leftOut.set(key, { code: 'rule/never-matches', message });
  };
  let ended = false;
  for (const step of rule.steps) {
    if (!pushStep(builder, frame, rule.id, step, { open, write, writeThrough, never, next })) {
      ended = true;
      break;
    }
  }
  if (isPossible) builder.possible.add(key);
  if (!ended && (open.counts.length > 0 || open.effects.length > 0)) write(to(next));
  bind(builder, next);
}

interface Writing {
  readonly open: Open;
  /** Closes the entry with this target. */
  readonly write: (then: Draft) => void;
  /** Closes the entry; the rule goes on in the next one. */
  readonly writeThrough: () => void;
  /** Says that the rule does not get further than this. */
  readonly never: (test: string) => void;
  readonly next: Label;
}

/** Takes one step into the open entry; false when nothing behind it can run. */
function pushStep(
  builder: Builder,
  frame: Frame,
  rule: RuleId,
  step: Step,
  { open, write, writeThrough, never, next }: Writing,
): boolean {
  const { facts, link, changed } = builder;
  const { hook, view, states } = frame;
  const site: Site = { facts, link, view, hook, changed, states };
  switch (step.kind) {
    case 'test': {
      const test = resolveTest(step.test, site);
      if (test === true) return true;
      if (test === false) {
        if (open.counts.length > 0 || open.effects.length > 0) write(to(next));
        never(formatTest(step.test));
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
      const map = restrictToStates(step.key, step.map, frame.states);
      if (map !== step.map && map.elements.lo.length === 0) {
        if (open.counts.length > 0 || open.effects.length > 0) write(to(next));
        return false;
      }
      const lookup = resolveLookup(step.key, map, site);
      if (lookup.kind === 'unknown') {
        open.tests.push(lookup);
        const onlyDrops = map.elements.verdicts?.every(({ kind }) => kind === 'drop') === true;
        write(onlyDrops ? { kind: 'drop' } : { kind: 'unknown', reason: lookup.reason });
      } else if (lookup.kind === 'lookup') {
        pushMap(builder, frame, lookup, { open, write, writeThrough, never, next });
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

export function pushRules(builder: Builder, frame: Frame, chain: Chain): void {
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
