import type { Reason } from '../support/diagnostics.ts';
import type { Facts } from './facts.ts';
import type { BaseChain, Chain, Hook, Rule, Ruleset, Table } from './ruleset.ts';

/** A base chain that frames received on the device run through. */
export interface PathChain {
  readonly table: Table;
  readonly chain: Chain;
  readonly base: BaseChain;
}

/** A chain that frames received on the device never run through, and why. */
export interface OffPath {
  readonly table: Table;
  readonly chain: Chain;
  readonly reason: Reason;
}

/** The receive path, each hook's chains in the order the kernel runs them. */
export interface HookPath {
  /** By device: the one the frames arrive on, its VLAN devices, its bridge. */
  readonly ingress: ReadonlyMap<string, readonly PathChain[]>;
  readonly bridge: {
    readonly prerouting: readonly PathChain[];
    readonly input: readonly PathChain[];
  };
  readonly prerouting: readonly PathChain[];
  readonly input: readonly PathChain[];
  readonly forward: readonly PathChain[];
  /** Chains of type nat, which only the first packet of a flow runs through. */
  readonly nat: {
    readonly prerouting: readonly PathChain[];
    readonly input: readonly PathChain[];
  };
  readonly off: readonly OffPath[];
}

const RECEIVE_HOOKS: readonly Hook[] = ['ingress', 'prerouting', 'input', 'forward'];

/** Devices whose ingress chains frames may run through, the one they arrive on first. */
function devicesOf({ device, vlans, master }: Facts): readonly string[] {
  const upper = (vlans ?? []).flatMap((vlan) => vlan.device ?? []);
  return [device, ...upper, ...(master?.kind === 'bridge' ? [master.name] : [])];
}

/** A listing without devices does not say more than that the chain matters here. */
function isOn({ devices }: BaseChain, device: string, facts: Facts): boolean {
  return devices === null ? device === facts.device : devices.includes(device);
}

function offBridge({ hook }: BaseChain, { device, master }: Facts): Reason | null {
  if (master?.kind !== 'bridge') {
    const message =
      `bridge chains run for ports of a bridge, which ${device} is not ` +
      '(if it is one, give --fact master=BRIDGE)';
    return { code: 'path/bridge', message };
  }
  if (hook === 'prerouting' || hook === 'input') return null;
  const message = 'the table of the bridge says whether and where frames leave, not the frame';
  return { code: 'path/bridge-forward', message };
}

const NAT_CHAIN = 'path/nat-chain';
/** Code of the reason why an ingress chain is not on the path. */
export const OTHER_DEVICE = 'path/other-device';

function offReason(table: Table, base: BaseChain, facts: Facts): Reason | null {
  if (table.dormant) {
    return { code: 'path/dormant', message: 'the table is dormant, its chains do not run' };
  }
  if (!RECEIVE_HOOKS.includes(base.hook)) {
    return {
      code: 'path/not-received',
      message: `hook ${base.hook} sees packets that leave, not packets that arrive`,
    };
  }
  if (table.family === 'bridge') return offBridge(base, facts);
  if (table.family === 'arp') {
    return { code: 'path/arp', message: 'arp chains are left to the kernel' };
  }
  if (base.hook === 'ingress' && !devicesOf(facts).some((device) => isOn(base, device, facts))) {
    return {
      code: OTHER_DEVICE,
      message: `the chain is on ${base.devices?.join(', ')}, not on ${facts.device}`,
    };
  }
  if (base.type === 'nat') {
    return { code: NAT_CHAIN, message: 'nat chains see only the first packet of a flow' };
  }
  return null;
}

/**
 * Base chains by priority; at equal priority the one registered last runs first (measured, and
 * nf_hook_entries_grow in net/netfilter/core.c), so the listing order is reversed.
 */
function inKernelOrder(chains: readonly PathChain[]): PathChain[] {
  return chains
    .map((item, listed) => ({ item, listed }))
    .sort((a, b) => a.item.base.priority - b.item.base.priority || b.listed - a.listed)
    .map(({ item }) => item);
}

/** Splits a ruleset's chains into those on the device's receive path and the rest, with reasons. */
export function selectPath(ruleset: Ruleset, facts: Facts): HookPath {
  const on: PathChain[] = [];
  const nat: PathChain[] = [];
  const off: OffPath[] = [];
  for (const table of ruleset.tables) {
    for (const chain of table.chains) {
      if (chain.base === null) continue;
      const reason = offReason(table, chain.base, facts);
      if (reason?.code === NAT_CHAIN) nat.push({ table, chain, base: chain.base });
      if (reason === null) on.push({ table, chain, base: chain.base });
      else off.push({ table, chain, reason });
    }
  }
  const at = (hook: Hook, isBridge = false): PathChain[] =>
    inKernelOrder(
      on.filter(
        ({ table, base }) => base.hook === hook && (table.family === 'bridge') === isBridge,
      ),
    );
  const ingress = at('ingress');
  return {
    ingress: new Map(
      devicesOf(facts).map((device) => [
        device,
        ingress.filter(({ base }) => isOn(base, device, facts)),
      ]),
    ),
    bridge: { prerouting: at('prerouting', true), input: at('input', true) },
    prerouting: at('prerouting'),
    input: at('input'),
    forward: at('forward'),
    nat: {
      prerouting: nat.filter(({ base }) => base.hook === 'prerouting'),
      input: nat.filter(({ base }) => base.hook === 'input'),
    },
    off,
  };
}

/** The chains of a layer-3 hook that filter packets of one IP version, in the kernel's order. */
export function filterChains(ruleset: Ruleset, hook: Hook, version: 4 | 6): readonly PathChain[] {
  const families = ['inet', version === 4 ? 'ip' : 'ip6'];
  const tables = ruleset.tables.filter(
    ({ family, dormant }) => families.includes(family) && !dormant,
  );
  const chains = tables.flatMap((table) =>
    table.chains.flatMap((chain) =>
      chain.base === null ? [] : { table, chain, base: chain.base },
    ),
  );
  return inKernelOrder(chains.filter(({ base }) => base.hook === hook && base.type !== 'nat'));
}

/** What the whole ruleset turns on for one IP version. */
export interface FamilyState {
  /** Connection tracking, and with it defragmentation at priority -400. */
  readonly tracks: boolean;
  /** Address translation somewhere, so replies of known flows are rewritten at priority -100. */
  readonly nat: boolean;
}

/** By IP version. */
export type FamilyStates = Readonly<Record<'ip' | 'ip6', FamilyState>>;

/** Connection tracking and NAT go on per IP version, as soon as one rule of one table needs them. */
export function familyStates(ruleset: Ruleset): FamilyStates {
  return { ip: familyState(ruleset, 'ip'), ip6: familyState(ruleset, 'ip6') };
}

function familyState(ruleset: Ruleset, version: 'ip' | 'ip6'): FamilyState {
  const rules = ruleset.tables
    .filter(({ family }) => family === version || family === 'inet')
    .flatMap(({ chains }) => chains.flatMap((chain) => chain.rules));
  return { tracks: rules.some((rule) => rule.tracks), nat: rules.some((rule) => rule.nat) };
}

function canDrop({ steps }: Rule): boolean {
  return steps.some((step) => {
    if (step.kind === 'verdict') return step.verdict.kind === 'drop';
    if (step.kind === 'effect') return step.outcome === 'drop' || step.outcome === 'unknown';
    if (step.kind === 'test') return false;
    return step.kind === 'vmap' && step.map.elements.verdicts?.some(({ kind }) => kind === 'drop');
  });
}

/** Whether a nat chain may drop a packet (its table can, at least). */
export function natMayDrop({ nat }: HookPath): boolean {
  return [...nat.prerouting, ...nat.input].some(
    ({ table, base }) =>
      base.policy === 'drop' || table.chains.some(({ rules }) => rules.some(canDrop)),
  );
}

/** Whether a rule puts flows into a flow table, whose packets then skip prerouting and forward. */
export function hasFlowTable(ruleset: Ruleset): boolean {
  return ruleset.tables.some(({ chains }) =>
    chains.some(({ rules }) =>
      rules.some(({ steps }) =>
        steps.some((step) => step.kind === 'effect' && step.name === 'flow'),
      ),
    ),
  );
}
