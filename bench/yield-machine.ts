/** A plausible machine for a ruleset, and what the ruleset says about the traffic it expects. */
import { parseFacts } from '../src/cli/facts.ts';
import type { Facts } from '../src/ir/facts.ts';
import { CT_STATE, fieldKey, META } from '../src/ir/fields.ts';
import { arrival } from '../src/ir/flatten-link.ts';
import { applyOperand, plain, splitKey, testedFields } from '../src/ir/operand.ts';
import { findElement, resolveTest } from '../src/ir/resolve-test.ts';
import type { BaseChain, Chain, Operand, Rule, Ruleset, Step, Test } from '../src/ir/ruleset.ts';
import { formatDiagnostic } from '../src/support/diagnostics.ts';
import { parseIp, parseIp6 } from '../test/support/addresses.ts';
import { LAB_MAC } from '../test/support/lab-network.ts';

/** One bit of `ct state` each (NF_CT_STATE_BIT, nf_conntrack_common.h). */
export const CT = { invalid: 1n, established: 2n, new: 8n, untracked: 64n } as const;
export type FlowState = keyof typeof CT;

/** Addresses and ports that the ruleset names, as frames carry them. */
export interface RulesetValues {
  readonly sources: readonly Uint8Array[];
  readonly sources6: readonly Uint8Array[];
  readonly destinations: readonly Uint8Array[];
  readonly ports: readonly number[];
}

export interface Machine {
  readonly facts: Facts;
  /** Networks behind a router that does not translate; null on hosts and where it translates. */
  readonly behind: { readonly ip: Uint8Array; readonly ip6: Uint8Array } | null;
  readonly values: RulesetValues;
}

const OWN_TEXT = ['203.0.113.10', '2001:db8:113::10'] as const;
/** The machine's own public addresses: documentation prefixes (RFC 5737, RFC 3849). */
export const OWN = { ip: parseIp(OWN_TEXT[0]), ip6: parseIp6(OWN_TEXT[1]) };
const LINK_LOCAL = 'fe80::ff:fe00:1';
const INSIDE = ['192.168.1.1', 'fd00:1::1'];
const BEHIND = { ip: parseIp('198.51.100.20'), ip6: parseIp6('2001:db8:100::20') };

function toBytes(value: bigint, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) =>
    Number((value >> BigInt(8 * (length - 1 - i))) & 255n),
  );
}

function chainsOf(ruleset: Ruleset): readonly Chain[] {
  return ruleset.tables.flatMap(({ chains }) => chains);
}

export function rulesOf(ruleset: Ruleset): readonly Rule[] {
  return chainsOf(ruleset).flatMap(({ rules }) => rules);
}

/** What each operand of a test or verdict map is compared with: the lowest value of every element. */
function comparedWith(step: Step): readonly (readonly [Operand, bigint])[] {
  const lookups = (
    key: readonly Operand[],
    elements: { parts: readonly number[]; lo: readonly bigint[] },
  ) =>
    // Long lists are looked at here and there.
    elements.lo
      .filter((_, i, all) => i % Math.ceil(all.length / 400) === 0)
      .flatMap((low) => {
        const parts = splitKey(elements.parts, low);
        return key.map((operand, i) => [operand, parts[i] ?? 0n] as const);
      });
  if (step.kind === 'vmap') return lookups(step.key, step.map.elements);
  if (step.kind !== 'test') return [];
  const { test } = step;
  if (test.kind === 'compare') return [[test.operand, test.lo]];
  return test.kind === 'lookup' ? lookups(test.key, test.set.elements) : [];
}

function valuesOf(ruleset: Ruleset): RulesetValues {
  const pairs = rulesOf(ruleset).flatMap(({ steps }) => steps.flatMap(comparedWith));
  const named = (...names: readonly string[]): bigint[] =>
    pairs.flatMap(([{ field }, value]) => (names.includes(field.name) ? [value] : []));
  return {
    sources: named('ip saddr').map((value) => toBytes(value, 4)),
    sources6: named('ip6 saddr').map((value) => toBytes(value, 16)),
    destinations: named('ip daddr').map((value) => toBytes(value, 4)),
    ports: [...new Set(named('tcp dport', 'udp dport', 'th dport').map(Number))],
  };
}

/** The device that traffic from outside arrives on: the chain's own, or the one whose name says so. */
function outsideDevice(ruleset: Ruleset): string {
  const bound = chainsOf(ruleset).flatMap(({ base }) =>
    base?.hook === 'ingress' ? (base.devices ?? []) : [],
  );
  const texts = rulesOf(ruleset).map(({ text }) => text);
  const names = texts.flatMap((text) =>
    [...text.matchAll(/\b[io]ifname "([^"*]+)"/g)].map(([, name]) => name ?? ''),
  );
  return bound[0] ?? names.find((name) => /wan|ppp|uplink/.test(name)) ?? 'eth0';
}

function isRouter(ruleset: Ruleset): boolean {
  const filters = chainsOf(ruleset).some(
    ({ base, rules }) => base?.hook === 'forward' && (rules.length > 0 || base.policy === 'drop'),
  );
  return filters || rulesOf(ruleset).some(({ nat }) => nat);
}

/** Facts that are all true of a machine which such a ruleset may be written for. */
export function imagineMachine(ruleset: Ruleset): Machine {
  const router = isRouter(ruleset);
  const local = [...OWN_TEXT, LINK_LOCAL, ...(router ? INSIDE : [])];
  const facts = parseFacts(outsideDevice(ruleset), [
    `role=${router ? 'router' : 'host'}`,
    ...local.map((address) => `local-address=${address}`),
    `mac=${[...LAB_MAC].map((byte) => byte.toString(16).padStart(2, '0')).join(':')}`,
    ...['gro=off', 'rp-filter=off', 'rx-vlan=off', 'routed=yes', 'conntrack=fresh'],
    ...(router ? [] : ['sole-device=yes']),
  ]);
  if (!facts.ok) throw new Error(facts.diagnostics.map(formatDiagnostic).join('\n'));
  const translates = rulesOf(ruleset).some(({ nat }) => nat);
  return {
    facts: facts.value,
    behind: router && !translates ? BEHIND : null,
    values: valuesOf(ruleset),
  };
}

const NEVER: Test = {
  kind: 'lookup',
  key: [plain(META.protocol)],
  set: {
    name: null,
    elements: { parts: [16], lo: [], hi: [], verdicts: null },
    unknown: null,
  },
  negated: false,
};

/** One step where `ct state` is known and rates are never exceeded; null where it always holds. */
function stepIn(step: Step, state: FlowState, rule: Rule, facts: Facts): Step | null {
  if (step.kind === 'vmap') {
    const [only] = step.key;
    if (only === undefined || step.key.length > 1 || fieldKey(only.field) !== CT_STATE.name)
      return step;
    const index = findElement(step.map, applyOperand(only, CT[state]));
    const verdict = index === null ? undefined : step.map.elements.verdicts?.[index];
    return verdict === undefined ? { kind: 'test', test: NEVER } : { kind: 'verdict', verdict };
  }
  if (step.kind !== 'test') return step;
  const { test } = step;
  if (test.kind === 'unknown' && test.reason.code === 'match/limit') {
    return rule.text.includes('rate over') ? { kind: 'test', test: NEVER } : null;
  }
  if (!testedFields(test).some((field) => fieldKey(field) === CT_STATE.name)) return step;
  const site = { facts, link: arrival(facts), view: 'l3', hook: 'input', changed: [] } as const;
  const resolved = resolveTest(test, { ...site, states: [CT[state]] });
  if (resolved === true) return null;
  return { kind: 'test', test: resolved === false ? NEVER : resolved };
}

const TRACKING = -200; // NF_IP_PRI_CONNTRACK

function seesState(base: BaseChain | null): boolean {
  return base === null || base.hook !== 'prerouting' || base.priority >= TRACKING;
}

/** Whether a packet that belongs to no flow may be given another destination. */
function mayRedirect(ruleset: Ruleset): boolean {
  return chainsOf(ruleset).some(
    ({ base, rules }) =>
      (base === null || base.hook === 'prerouting') &&
      rules.some(({ steps }) =>
        steps.some((step) => step.kind === 'effect' && /^(dnat|redirect)/.test(step.name)),
      ),
  );
}

/**
 * The ruleset as it is for packets with this `ct state`, which are in no flow table, and of which no
 * rate is exceeded. Source translation concerns packets of known flows and those that leave.
 */
export function rulesetFor(ruleset: Ruleset, state: FlowState, facts: Facts): Ruleset {
  const keepsNat = state === 'established' || mayRedirect(ruleset);
  const ruleOf = (rule: Rule): Rule => ({
    ...rule,
    nat: rule.nat && keepsNat,
    steps: rule.steps.flatMap((step) => {
      if (step.kind === 'effect' && step.name === 'flow') return [];
      return stepIn(step, state, rule, facts) ?? [];
    }),
  });
  return {
    tables: ruleset.tables.map((table) => ({
      ...table,
      chains: table.chains.map((chain) =>
        seesState(chain.base) ? { ...chain, rules: chain.rules.map(ruleOf) } : chain,
      ),
    })),
  };
}
