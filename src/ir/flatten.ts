import type { Reason } from '../support/diagnostics.ts';
import type { Classifier, Target, ViewName } from './classifier.ts';
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
import { META } from './fields.ts';
import { type Frame, noteChange, pushRules } from './flatten-rules.ts';
import { type FlowConcessions, flowKinds, NO_FLOW_CONCESSIONS } from './flows.ts';
import { equals, within } from './operand.ts';
import {
  type FamilyStates,
  familyState,
  type HookPath,
  hasFlowTable,
  type PathChain,
  selectPath,
} from './path.ts';
import { ANY_FLOW, resolveTest, type Site, type Tracking, UNSEEN_FLOW } from './resolve-test.ts';
import { type BaseChain, type Chain, formatRuleId, type Ruleset, type Test } from './ruleset.ts';
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
  const { facts, changed } = builder;
  const site: Site = { facts, hook: 'prerouting', changed, tracking: ANY_FLOW };
  return tests.map((test) => {
    const resolved = resolveTest(test, site);
    return typeof resolved === 'boolean' ? test : resolved;
  });
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
  const tracking = trackingAt(base, builder.tracking);
  const frame: Frame = { table, hook, tracking, view, end, accepted, depth: 0, gotos: new Map() };
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

const TRACKING = -200; // NF_IP_PRI_CONNTRACK

/** What is assumed at a chain: connection tracking has seen the packet from its own priority on. */
function trackingAt({ hook, priority }: BaseChain, assumed: Tracking): Tracking {
  if (hook !== 'prerouting' || priority >= TRACKING) return assumed;
  return { ...UNSEEN_FLOW, tupleOnly: assumed.tupleOnly };
}

const DEFRAGMENTATION = -400; // NF_IP_PRI_CONNTRACK_DEFRAG, uapi/linux/netfilter_ipv4.h
const TRANSLATION = -100; // NF_IP_PRI_NAT_DST

function serves(chain: PathChain, version: 'ip' | 'ip6'): boolean {
  return chain.table.family === version || chain.table.family === 'inet';
}

/**
 * The layer-3 hooks, once for every kind of flow that is told apart: where connection tracking
 * certainly knows no flow of a packet, rules on `ct state` can be decided.
 */
function pushLayer3(
  builder: Builder,
  ruleset: Ruleset,
  path: HookPath,
  concessions: FlowConcessions,
): void {
  pushConditions(builder, 'l3', beforePrerouting(builder.facts));
  if (hasFlowTable(ruleset)) pushConditions(builder, 'l3', [FLOW_TABLE]);
  const states = { ip: familyState(ruleset, 'ip'), ip6: familyState(ruleset, 'ip6') };
  const kinds = flowKinds(ruleset, states, builder.facts, concessions).map((kind) => ({
    ...kind,
    start: { index: -1 },
  }));
  for (const { label, conditions, start } of kinds) {
    for (const tests of conditions) push(builder, { label, view: 'l3', tests, then: to(start) });
  }
  const { changed } = builder;
  const walk = (): void => {
    pushPrerouting(builder, path.prerouting, states);
    pushDelivery(builder, path.input, path.forward);
  };
  walk();
  for (const { start, tracking } of kinds) {
    push(builder, { label: 'end of the path', view: 'l3', then: { kind: 'accept' } });
    bind(builder, start);
    builder.changed = changed;
    builder.tracking = tracking;
    walk();
  }
}

function pushPrerouting(
  builder: Builder,
  chains: readonly PathChain[],
  states: FamilyStates,
): void {
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
  options: FlattenOptions = PLAIN,
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
    tracking: ANY_FLOW,
  };
  if (options.loopedCopies) pushConditions(builder, 'ingress', loopedCopies(facts));
  for (const chain of path.ingress) pushBaseChain(builder, chain);
  const layer3 = path.prerouting.length + path.input.length + path.forward.length;
  if (options.forwards === true) {
    for (const chain of [...path.prerouting, ...path.forward]) pushBaseChain(builder, chain);
  } else if (layer3 > 0) pushLayer3(builder, ruleset, path, options.flows);
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
