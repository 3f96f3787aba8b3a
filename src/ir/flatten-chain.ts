import type { ViewName } from './classifier.ts';
import type { Condition } from './conditions.ts';
import { META } from './fields.ts';
import { type Frame, pushRules } from './flatten-rules.ts';
import { equals, within } from './operand.ts';
import type { PathChain } from './path.ts';
import {
  ANY_FLOW,
  AS_WRITTEN,
  type FlowStates,
  resolveTest,
  type Site,
  UNSEEN_FLOW,
} from './resolve-test.ts';
import type { BaseChain, Test } from './ruleset.ts';
import { type Builder, bind, type Draft, type Label, push, to } from './walk-builder.ts';

/** Writes kernel conditions; frames that meet none, or may be gone, go on behind (or `doubtful`). */
export function pushConditions(
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
export function resolveConditions(builder: Builder, tests: readonly Test[]): Test[] {
  const { facts, link, changed } = builder;
  const view = 'l3';
  const site: Site = { facts, link, view, hook: 'prerouting', changed, states: ANY_FLOW };
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

export function pushBaseChain(builder: Builder, { table, chain, base }: PathChain): void {
  const isLink = base.hook === 'ingress' || table.family === 'bridge';
  const view: ViewName = isLink ? 'ingress' : 'l3';
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
  const states = statesAt(base, builder.states);
  const frame: Frame = { table, hook, states, view, end, accepted, depth: 0, gotos: new Map() };
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
function statesAt({ hook, priority }: BaseChain, assumed: FlowStates): FlowStates {
  if (assumed === AS_WRITTEN) return assumed;
  return hook === 'prerouting' && priority < TRACKING ? UNSEEN_FLOW : assumed;
}
