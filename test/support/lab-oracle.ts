import type { Family } from '../../src/ir/ruleset.ts';

/** Table that holds the lab's own chains, in netdev, inet and bridge. */
export const ORACLE_TABLE = 'nfo_oracle';

/**
 * Hooks the oracle watches, in the order of the bits the helper reports. `upper` is the ingress hook
 * of the VLAN devices or the bridge on top of `eth0`, `bridge` the prerouting hook of the bridge.
 */
export const LAB_HOOKS = [
  ...(['ingress', 'prerouting', 'input', 'forward'] as const),
  ...(['upper', 'bridge', 'bridge_input'] as const),
] as const;

export type LabHook = (typeof LAB_HOOKS)[number];

/** Hooks that every lab has. */
export const PLAIN_HOOKS: readonly LabHook[] = ['ingress', 'prerouting', 'input', 'forward'];

// Chain priorities are signed 32-bit integers (struct nf_hook_ops, include/linux/netfilter.h).
const FIRST = -2147483648;
const LAST = 2147483647;

// The kernel sizes the hash table for it (roundup_pow_of_two(size * 4 / 3), lib/rhashtable.c), and every
// dump walks the whole table: small sets, several batches. 20000 frames never make it grow (at 75 %).
const SET = 'type ether_addr; flags dynamic; size 24576;';

/** What stands on top of `eth0` in a lab. */
export interface OracleTopology {
  /** Devices of the hook `upper`. */
  readonly upper: readonly string[];
  readonly isBridge: boolean;
  /** Rules behind all others at the ingress hook of `eth0`. */
  readonly lastAtIngress: readonly string[];
}

/** The hook as nft writes it; null where there is none. */
function hookText(hook: LabHook, { upper, isBridge }: OracleTopology): string | null {
  switch (hook) {
    case 'ingress':
      return 'ingress device "eth0"';
    case 'upper':
      return upper.length === 0 ? null : `ingress devices = { ${upper.join(', ')} }`;
    case 'bridge':
      return isBridge ? 'prerouting' : null;
    case 'bridge_input':
      return isBridge ? 'input' : null;
    case 'prerouting':
    case 'input':
    case 'forward':
      return hook;
  }
}

function watchHook(hook: LabHook, topology: OracleTopology): string {
  const text = hookText(hook, topology);
  const sets = `  set reached_${hook} { ${SET} }
  set seen_${hook} { ${SET} }
`;
  if (text === null) return sets;
  const last = hook === 'ingress' ? topology.lastAtIngress : [];
  const chain = (name: string, priority: number, set: string, rules: readonly string[]): string =>
    `  chain ${name}_${hook} { type filter hook ${text} priority ${priority}; policy accept;
    add @${set}_${hook} { ether saddr }
${rules.map((rule) => `    ${rule}\n`).join('')}  }`;
  return `${sets}${chain('first', FIRST, 'reached', [])}
${chain('last', LAST, 'seen', last)}`;
}

// The kernel's own answers would come back: what it sends to a broadcast address (an answer to a frame
// from there, as often as the ICMP rate limit allows) is looped to ingress, and counted.
const MUTE = `  chain mute {
    type filter hook output priority ${LAST}; policy drop;
  }`;

/**
 * Chains before and after all others at every hook that note each packet's source MAC; and, unless
 * it `speaks`, one that keeps the receiver from sending anything of its own.
 */
export function oracleRuleset(topology: OracleTopology, speaks: boolean): string {
  const watch = (...hooks: readonly LabHook[]): string =>
    hooks.map((hook) => watchHook(hook, topology)).join('\n');
  return `table netdev ${ORACLE_TABLE} {
${watch('ingress', 'upper')}
}
table inet ${ORACLE_TABLE} {
${watch('prerouting', 'input', 'forward')}
${speaks ? '' : MUTE}
}
table bridge ${ORACLE_TABLE} {
${watch('bridge', 'bridge_input')}
}
`;
}

/** A counter of the ruleset under test as the kernel has it now. */
export interface CounterReading {
  readonly family: Family;
  readonly table: string;
  /** Null for a named counter. */
  readonly chain: string | null;
  /** The rule's handle, or the named counter's. */
  readonly handle: number;
  /** The rule's place in its chain from 0; null for a named counter. */
  readonly index: number | null;
  /** Which counter of the rule, from 0; null for a named counter. */
  readonly position: number | null;
  readonly name: string | null;
  readonly packets: number;
  readonly bytes: number;
}

interface Listed {
  readonly family: Family;
  readonly table: string;
  readonly chain: string;
  readonly name: string;
  readonly handle: number;
  readonly packets: number;
  readonly bytes: number;
  readonly expr: readonly Readonly<Record<string, unknown>>[];
}

interface Amount {
  readonly packets: number;
  readonly bytes: number;
}

function isAmount(value: unknown): value is Amount {
  return typeof value === 'object' && value !== null && 'packets' in value && 'bytes' in value;
}

/** All counters in the output of `nft -j list ruleset`, the oracle's table left out. */
export function readCounters(json: string): readonly CounterReading[] {
  // Our own nft printed it: libnftables-json(5) gives the shape.
  const listing = JSON.parse(json) as {
    readonly nftables: readonly { readonly rule?: Listed; readonly counter?: Listed }[];
  };
  const readings: CounterReading[] = [];
  const rulesSeen = new Map<string, number>();
  for (const { rule, counter } of listing.nftables) {
    const item = rule ?? counter;
    if (item === undefined || item.table === ORACLE_TABLE) continue;
    const { family, table, handle } = item;
    if (counter !== undefined) {
      const { name, packets, bytes } = counter;
      readings.push({
        ...{ family, table, chain: null, handle, index: null, position: null },
        ...{ name, packets, bytes },
      });
      continue;
    }
    const key = `${family} ${table} ${item.chain}`;
    const index = rulesSeen.get(key) ?? 0;
    rulesSeen.set(key, index + 1);
    const amounts = item.expr.map(({ counter: amount }) => amount).filter(isAmount);
    for (const [position, { packets, bytes }] of amounts.entries()) {
      readings.push({
        ...{ family, table, chain: item.chain, handle, index, position },
        ...{ name: null, packets, bytes },
      });
    }
  }
  return readings;
}
