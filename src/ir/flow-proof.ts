import type { Facts } from './facts.ts';
import { byVerdict, ENTRY_LIMIT, JUMP_LIMIT, restrictToStates } from './flatten-rules.ts';
import type { FlowClass } from './flows.ts';
import { filterChains, type PathChain } from './path.ts';
import type { Chain, Rule, Ruleset, Step, Table, Test, Verdict } from './ruleset.ts';
import {
  missesWrapped,
  narrowProtocols,
  type SupposedSite,
  type Supposition,
  statesAt,
  supposeLookup,
  supposeTest,
  WAYS,
  withoutLoopback,
} from './suppose.ts';
import { type Builder, bind, type Label, push, to } from './walk-builder.ts';

const CONFIRM = 0x7fffffff; // NF_IP_PRI_CONNTRACK_CONFIRM, uapi/linux/netfilter_ipv4.h

/** Where supposed packets are in a base chain, and where they go from there. */
interface Frame {
  readonly table: Table;
  readonly site: SupposedSite;
  /** Where all of them are dropped. */
  readonly dropped: Label;
  /** Where one of them may be through this base chain. */
  readonly through: Label;
  /** Behind the last rule, and for `return`. */
  readonly end: Label;
  /** Nothing but a drop can follow `end`. */
  readonly endDrops: boolean;
  readonly depth: number;
}

/** What a rule asks of the packet at hand; `sure` when all supposed packets then match the rule. */
interface Asked {
  readonly tests: readonly Test[];
  readonly sure: boolean;
  readonly label: string;
}

/**
 * Writes one rule's verdict. Only a drop that all supposed packets meet counts; a rule that some may
 * match and others not is followed both ways at once: what it lets through is through, and what it
 * would drop still has to be dropped behind it.
 */
function pushVerdict(builder: Builder, frame: Frame, verdict: Verdict, asked: Asked): void {
  const { tests, sure, label } = asked;
  const next: Label = { index: -1 };
  const write = (target: Label): void =>
    push(builder, { label, view: 'l3', tests, then: to(target), otherwise: to(next) });
  switch (verdict.kind) {
    case 'accept':
      write(frame.through);
      break;
    case 'drop':
      if (sure) write(frame.dropped);
      break;
    case 'continue':
      break;
    case 'return':
      if (sure) write(frame.end);
      else if (!frame.endDrops) write(frame.through);
      break;
    case 'jump':
    case 'goto': {
      write({ index: builder.entries.length + 1 });
      const returns = verdict.kind === 'jump';
      const past = frame.endDrops || returns ? next : frame.through;
      const end = returns ? next : sure ? frame.end : past;
      const endDrops = !returns && frame.endDrops;
      const dropped = sure ? frame.dropped : next;
      pushCalled(builder, { ...frame, dropped, end, endDrops, depth: frame.depth + 1 }, verdict);
      break;
    }
  }
  bind(builder, next);
}

function pushCalled(
  builder: Builder,
  frame: Frame,
  { chain: name }: Extract<Verdict, { readonly chain: string }>,
): void {
  const chain = frame.table.chains.find((candidate) => candidate.name === name);
  const tooMuch = frame.depth > JUMP_LIMIT || builder.entries.length > ENTRY_LIMIT;
  if (chain === undefined || tooMuch) {
    push(builder, { label: `call ${name}`, view: 'l3', then: to(frame.through) });
    return;
  }
  pushRules(builder, frame, chain);
  push(builder, { label: `flow: end of ${name}`, view: 'l3', then: to(frame.end) });
}

function pushMap(
  builder: Builder,
  frame: Frame,
  step: Extract<Step, { readonly kind: 'vmap' }>,
  asked: Asked,
): void {
  const { site } = frame;
  const { key } = step;
  const states = restrictToStates(key, step.map, statesAt(site));
  const map = withoutLoopback(key, states, site);
  const resolved = supposeLookup(key, map, site);
  if (resolved.kind === 'breaks') return;
  if (resolved.kind === 'unknown') {
    for (const { verdict } of byVerdict(map)) {
      pushVerdict(builder, frame, verdict, { ...asked, sure: false });
    }
    return;
  }
  const test = { kind: 'lookup', key: resolved.key, negated: false } as const;
  const wrapped = missesWrapped({ ...test, set: resolved.set }, site);
  for (const { verdict, set } of byVerdict(resolved.set)) {
    const tests = resolved.key.length === 0 ? asked.tests : [...asked.tests, { ...test, set }];
    pushVerdict(builder, frame, verdict, { ...asked, tests, sure: asked.sure && !wrapped });
  }
}

function pushRule(builder: Builder, base: Frame, rule: Rule): void {
  let frame = base;
  let asked: Asked = { tests: [], sure: true, label: `flow: ${rule.text}` };
  for (const step of rule.steps) {
    switch (step.kind) {
      case 'test': {
        const test = supposeTest(step.test, frame.site);
        if (test === true) break;
        if (test === false) return;
        const known = test.kind !== 'unknown';
        const tests = known ? [...asked.tests, test] : asked.tests;
        const sure = asked.sure && known && !missesWrapped(test, frame.site);
        asked = { ...asked, tests, sure };
        const protocols = narrowProtocols(step.test, frame.site.protocols);
        frame = { ...frame, site: { ...frame.site, protocols } };
        break;
      }
      case 'count':
        break;
      case 'effect':
        if (step.outcome === 'next') break;
        pushVerdict(builder, frame, { kind: step.outcome === 'drop' ? 'drop' : 'accept' }, asked);
        return;
      case 'verdict':
        pushVerdict(builder, frame, step.verdict, asked);
        return;
      case 'vmap':
        pushMap(builder, frame, step, asked);
        return;
    }
  }
}

function pushRules(builder: Builder, frame: Frame, chain: Chain): void {
  const site: SupposedSite = { ...frame.site, protocols: null };
  for (const rule of chain.rules) pushRule(builder, { ...frame, site }, rule);
}

function pushChain(
  builder: Builder,
  { table, chain, base }: PathChain,
  site: SupposedSite,
  dropped: Label,
) {
  const through: Label = { index: -1 };
  const end: Label = { index: -1 };
  const endDrops = base.policy === 'drop';
  pushRules(builder, { table, site, dropped, through, end, endDrops, depth: 0 }, chain);
  bind(builder, end);
  if (endDrops) {
    const label = `flow: policy drop of ${chain.name}`;
    push(builder, { label, view: 'l3', then: to(dropped) });
  }
  bind(builder, through);
}

/**
 * Writes the walk of all packets of a supposition at once, without counters or effects: packets at
 * hand go to `dropped` when the ruleset drops every one of those, else on behind the walk.
 */
function pushSupposition(
  builder: Builder,
  ruleset: Ruleset,
  facts: Facts,
  supposition: Supposition,
  dropped: Label,
): void {
  for (const hook of WAYS[supposition.way]) {
    for (const chain of filterChains(ruleset, hook, supposition.version)) {
      const { priority } = chain.base;
      // One that was registered before connection tracking runs behind the hook that confirms.
      if (priority === CONFIRM) continue;
      pushChain(
        builder,
        chain,
        { ...supposition, facts, hook, priority, protocols: null },
        dropped,
      );
    }
  }
}

/** A class of packets that can be told by their flow, as far as the ruleset decides it. */
interface Told extends FlowClass {
  /** Where the walk for the rest of the chain begins; the last is behind it. */
  readonly starts: readonly Label[];
}

/** Leaves out of a class what comes before the last supposition that the ruleset never drops. */
function usable(builder: Builder, ruleset: Ruleset, given: FlowClass): Told {
  const { chain, ways } = given;
  const useless = chain.findLastIndex((supposition) => {
    const dropped: Label = { index: -1 };
    const trial: Builder = { ...builder, entries: [] };
    pushSupposition(trial, ruleset, builder.facts, supposition, dropped);
    return !trial.entries.some(({ then }) => then.kind === 'label' && then.label === dropped);
  });
  const cut = useless + 1;
  const rest = chain.slice(cut);
  return {
    ...given,
    chain: rest,
    ways: ways
      .filter(({ without }) => without >= cut)
      .map(({ tests, without }) => ({ tests, without: without - cut })),
    starts: [...rest, null].map(() => ({ index: -1 })),
  };
}

/**
 * Sends packets that certainly belong to no known flow to `noFlow`: by concession, or where the
 * ruleset drops everything that their flow can have begun with. The others go on behind it. False,
 * and nothing written, when there are none.
 */
export function pushFlows(
  builder: Builder,
  ruleset: Ruleset,
  classes: readonly FlowClass[],
  noFlow: Label,
): boolean {
  const main: Label = { index: -1 };
  const told = classes
    .map((one) => usable(builder, ruleset, one))
    .filter(({ ways }) => ways.length > 0);
  if (told.length === 0) return false;
  for (const { label, ways, starts } of told) {
    for (const { tests, without } of ways) {
      const start = starts[without];
      if (start === undefined) throw new Error(`bug: ${label} has a way past its chain`);
      const target = without === starts.length - 1 ? noFlow : start;
      push(builder, { label, view: 'l3', tests, then: to(target) });
    }
  }
  push(builder, { label: 'any flow', view: 'l3', then: to(main) });
  for (const { label, chain, starts } of told) {
    for (const [index, supposition] of chain.entries()) {
      const [start, next] = [starts[index], starts[index + 1]];
      if (start === undefined || next === undefined) throw new Error('bug: a chain too short');
      const proven = index === chain.length - 1 ? noFlow : next;
      bind(builder, start);
      pushSupposition(builder, ruleset, builder.facts, supposition, proven);
      push(builder, { label: `${label}: may be known`, view: 'l3', then: to(main) });
    }
  }
  bind(builder, main);
  return true;
}
