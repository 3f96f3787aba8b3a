import type { Reason } from '../support/diagnostics.ts';
import type { Classifier, Target } from './classifier.ts';
import {
  beforeForward,
  beforeInput,
  beforePrerouting,
  defragmentation,
  FLOW_TABLE,
  GRE_MAY_DROP,
  localDestination,
  loopedCopies,
  NAT_MAY_DROP,
  translatedFields,
  undecidedDestinations,
} from './conditions.ts';
import type { Facts } from './facts.ts';
import { CT_STATE } from './fields.ts';
import { pushBaseChain, pushConditions, resolveConditions } from './flatten-chain.ts';
import { arrival, pushReceive } from './flatten-link.ts';
import { pushNatTraces } from './flatten-nat.ts';
import { noteChange } from './flatten-rules.ts';
import { pushFlows } from './flow-proof.ts';
import { type FlowClass, type FlowConcessions, flowClasses, NO_FLOW_CONCESSIONS } from './flows.ts';
import {
  type FamilyStates,
  familyStates,
  type HookPath,
  hasFlowTable,
  natMayDrop,
  type PathChain,
  selectPath,
} from './path.ts';
import { ANY_FLOW, AS_WRITTEN, type FlowStates, NO_FLOW } from './resolve-test.ts';
import {
  type Chain,
  formatRuleId,
  type Rule,
  type Ruleset,
  type Step,
  type Table,
  type Test,
  type Verdict,
} from './ruleset.ts';
import {
  type Builder,
  bind,
  type Draft,
  type Label,
  type LeftOut,
  push,
  to,
} from './walk-builder.ts';

/** How frames come to the tier that the walk is for. */
export interface FlattenOptions {
  /** Copies of own multicast come without an Ethernet header (generic XDP). */
  readonly loopedCopies: boolean;
  /** What the operator gives up so that more packets certainly belong to no known flow. */
  readonly flows: FlowConcessions;
  /**
   * The device forwards by itself and the kernel never sees the frame: only what the chains of
   * ingress, prerouting and forward say, without the kernel's own conditions between hooks.
   */
  readonly forwards?: boolean;
}

export const PLAIN: FlattenOptions = { loopedCopies: false, flows: NO_FLOW_CONCESSIONS };

export interface Flattened {
  readonly classifier: Classifier;
  /** Rules that never run on the path, or never match on the device. */
  readonly leftOut: LeftOut;
}

const DEFRAGMENTATION = -400; // NF_IP_PRI_CONNTRACK_DEFRAG, uapi/linux/netfilter_ipv4.h
const TRANSLATION = -100; // NF_IP_PRI_NAT_DST

function serves(chain: PathChain, version: 'ip' | 'ip6'): boolean {
  return chain.table.family === version || chain.table.family === 'inet';
}

/**
 * The layer-3 hooks; and once more for packets that certainly belong to no known flow, of which rules
 * on `ct state` can be decided.
 */
function pushLayer3(
  builder: Builder,
  ruleset: Ruleset,
  path: HookPath,
  states: FamilyStates,
  classes: readonly FlowClass[],
): void {
  pushConditions(builder, 'l3', beforePrerouting(builder.link));
  if (hasFlowTable(ruleset)) pushConditions(builder, 'l3', [FLOW_TABLE]);
  const noFlow: Label = { index: -1 };
  const told = pushFlows(builder, ruleset, classes, noFlow);
  const { changed } = builder;
  const walk = (): void => {
    pushPrerouting(builder, path, states);
    pushDelivery(builder, path, states);
  };
  walk();
  if (!told) return;
  push(builder, { label: 'end of the path', view: 'l3', then: { kind: 'accept' } });
  bind(builder, noFlow);
  builder.changed = changed;
  builder.states = NO_FLOW;
  walk();
  builder.states = ANY_FLOW;
}

function pushPrerouting(builder: Builder, path: HookPath, states: FamilyStates): void {
  const done = new Set<'ip' | 'ip6'>();
  const defragment = (needed: (version: 'ip' | 'ip6') => boolean): void => {
    for (const version of ['ip', 'ip6'] as const) {
      if (!states[version].tracks || done.has(version) || !needed(version)) continue;
      done.add(version);
      pushConditions(builder, 'l3', [defragmentation(version)]);
    }
  };
  let isTranslated = false;
  const translate = (): void => {
    if (isTranslated) return;
    isTranslated = true;
    for (const chain of path.nat.prerouting) pushNatTraces(builder, chain);
    for (const version of ['ip', 'ip6'] as const) {
      if (states[version].nat) noteChange(builder, translatedFields(version));
    }
    if (states.ip.nat || states.ip6.nat) pushConditions(builder, 'l3', [GRE_MAY_DROP]);
    if (natMayDrop(path)) pushConditions(builder, 'l3', [NAT_MAY_DROP]);
  };
  for (const chain of path.prerouting) {
    if (chain.base.priority > DEFRAGMENTATION) defragment((version) => serves(chain, version));
    if (chain.base.priority >= TRANSLATION) translate();
    pushBaseChain(builder, chain);
  }
  defragment(() => true);
  translate();
}

const SOURCE_TRANSLATION = 100; // NF_IP_PRI_NAT_SRC

function pushInput(builder: Builder, { input, nat }: HookPath, states: FamilyStates): void {
  pushConditions(builder, 'l3', beforeInput(builder.facts));
  const translates = states.ip.nat || states.ip6.nat;
  let isTranslated = false;
  for (const chain of input) {
    if (!isTranslated && chain.base.priority >= SOURCE_TRANSLATION) {
      isTranslated = true;
      for (const own of nat.input) pushNatTraces(builder, own);
      if (translates) noteChange(builder, 'everything');
    }
    pushBaseChain(builder, chain);
  }
}

const NO_ROLE: Reason = {
  code: 'fact/role',
  message:
    'whether packets are for this machine or forwarded is not known (give --fact role=host|router)',
};

/** Behind prerouting: packets for this machine go to input, the others to forward. */
function pushDelivery(builder: Builder, path: HookPath, states: FamilyStates): void {
  const { input, forward } = path;
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
  // A host delivers what it does not discard, so a destination that is not known does not matter.
  const isOpen = facts.role === 'host' && (states.ip.nat || states.ip6.nat);
  if (facts.localAddresses !== null && !isOpen) {
    route(localDestination(facts), 'destination is local', local);
  }
  if (!isOpen) pushConditions(builder, 'l3', undecidedDestinations(facts), local);
  if (facts.role === 'host') {
    if (facts.localAddresses === null || isOpen) {
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
  pushInput(builder, path, states);
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

function createBuilder(facts: Facts, states: FlowStates): Builder {
  return {
    entries: [],
    stages: [],
    counters: [],
    counterIndex: new Map(),
    leftOut: new Map(),
    emitted: new Set(),
    possible: new Set(),
    stopped: null,
    facts,
    link: arrival(facts),
    changed: [],
    states,
  };
}

function classifierOf({ entries, stages, counters, facts }: Builder): Classifier {
  const { length } = entries;
  const resolved = entries.map(({ rule, label, view, tests, counts, effects, ...ways }) => {
    const then = resolveTarget(ways.then, length);
    const otherwise = resolveTarget(ways.otherwise, length);
    return { rule, label, view, tests, counts, effects, then, otherwise };
  });
  return { device: facts.device, entries: resolved, stages, counters };
}

const NOT_TRANSLATED: Reason = {
  code: 'path/translation',
  message: 'a device that forwards by itself translates no addresses',
};

/** What the chains alone say, where the kernel never sees the frame. */
function pushForwarding(builder: Builder, { ingress, prerouting, forward, nat }: HookPath): void {
  for (const { chain } of nat.prerouting) {
    for (const { id, text } of chain.rules) {
      const then = { kind: 'unknown', reason: NOT_TRANSLATED } as const;
      push(builder, { rule: id, label: text, view: 'l3', then });
    }
  }
  const first = ingress.get(builder.facts.device) ?? [];
  for (const chain of [...first, ...prerouting, ...forward]) pushBaseChain(builder, chain);
}

/** An end that is reached by packets which may be gone is an entry, so that this is not forgotten. */
function pushEnd(builder: Builder): void {
  const { length } = builder.entries;
  const isDoubtful = builder.entries.some(({ then, otherwise }) =>
    [then, otherwise].some((draft) => {
      return draft.kind === 'label' && draft.uncertain && draft.label.index >= length;
    }),
  );
  if (isDoubtful)
    push(builder, { label: 'end of the path', view: 'ingress', then: { kind: 'accept' } });
}

/**
 * Lowers a ruleset to the walk that frames received on `facts.device` take: the base chains of
 * netdev ingress, prerouting and input or forward in the kernel's order, jumps written out, the
 * device's constants folded, the kernel's own conditions between hooks as entries without a rule.
 */
export function flatten(
  ruleset: Ruleset,
  facts: Facts,
  options: FlattenOptions = PLAIN,
): Flattened {
  const path = selectPath(ruleset, facts);
  const builder = createBuilder(facts, ANY_FLOW);
  if (options.forwards === true) {
    pushForwarding(builder, path);
    return { classifier: classifierOf(builder), leftOut: explainLeftOut(ruleset, path, builder) };
  }
  if (options.loopedCopies) pushConditions(builder, 'ingress', loopedCopies(facts));
  const layer3 = path.prerouting.length + path.input.length + path.forward.length;
  const states = familyStates(ruleset);
  const classes = flowClasses(ruleset, states, facts, options.flows);
  const pushUpper = (): void => pushLayer3(builder, ruleset, path, states, classes);
  // Connection tracking alone can take packets.
  const tracks = states.ip.tracks || states.ip6.tracks;
  pushReceive(builder, ruleset, path, layer3 === 0 && !tracks ? null : pushUpper);
  pushEnd(builder);
  return { classifier: classifierOf(builder), leftOut: explainLeftOut(ruleset, path, builder) };
}

/** Whether statements of a table change what `ct state` says of a packet on its way. */
function changesTracking({ chains }: Table): boolean {
  const isTracking = (step: Step): boolean =>
    step.kind === 'effect' && /^(notrack|ct |synproxy)/.test(step.name);
  return chains.some(({ rules }) => rules.some(({ steps }) => steps.some(isTracking)));
}

/**
 * One base chain alone with all it calls, as it is written: what is true of this walk is true of every
 * packet that gets to the chain, whatever device it comes from.
 */
export function flattenChain(chain: PathChain, facts: Facts): Classifier {
  const builder = createBuilder(facts, AS_WRITTEN);
  if (changesTracking(chain.table)) builder.changed = [CT_STATE];
  pushBaseChain(builder, chain);
  return classifierOf(builder);
}

/** A rule that calls the chain; null when there is none. */
function callerOf({ chains }: Table, name: string): Rule | null {
  const calls = (verdict: Verdict): boolean => 'chain' in verdict && verdict.chain === name;
  const rules = chains.flatMap((chain) => chain.rules);
  const caller = rules.find(({ steps }) =>
    steps.some((step) => {
      if (step.kind === 'verdict') return calls(step.verdict);
      return step.kind === 'vmap' && step.map.elements.verdicts?.some(calls) === true;
    }),
  );
  return caller ?? null;
}

function notRun(table: Table, chain: Chain, { facts, stopped }: Builder): Reason {
  const { device, role } = facts;
  if (chain.base === null) {
    const caller = callerOf(table, chain.name);
    if (caller === null) return { code: 'path/not-called', message: `nothing calls ${chain.name}` };
    const by = `${caller.id.chain} (${caller.text})`;
    const message = `its chain is called by ${by}, where no packet received on ${device} gets through`;
    return { code: 'path/not-called', message };
  }
  if (stopped !== null) return stopped;
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
  const reasons = new Map([...builder.leftOut].filter(([key]) => !builder.possible.has(key)));
  const off = new Map(path.off.map(({ chain, reason }) => [chain, reason]));
  for (const table of ruleset.tables) {
    for (const chain of table.chains) {
      let reason = off.get(chain) ?? null;
      for (const rule of chain.rules) {
        const key = formatRuleId(rule.id);
        if (builder.emitted.has(key) || reasons.has(key)) continue;
        reason ??= notRun(table, chain, builder);
        reasons.set(key, reason);
      }
    }
  }
  return reasons;
}
