import type { Reason } from '../support/diagnostics.ts';
import type { Facts, Master } from './facts.ts';
import { pushBaseChain, pushConditions } from './flatten-chain.ts';
import {
  BRIDGE_NETFILTER,
  BRIDGE_TOO_SHORT,
  BRIDGE_TRACKING,
  beforeBridge,
  beforeBridgeInput,
} from './link-conditions.ts';
import type { HookPath } from './path.ts';
import type { Ruleset } from './ruleset.ts';
import { type Builder, push } from './walk-builder.ts';

const TRACKING = -200; // NF_IP_PRI_CONNTRACK, nf_ct_bridge_pre
const BRIDGE_NETFILTER_PRIORITY = 0; // NF_BR_PRI_BRNF, include/uapi/linux/netfilter_bridge.h

function tracksInBridge({ tables }: Ruleset): boolean {
  return tables.some(
    ({ family, chains }) =>
      family === 'bridge' && chains.some(({ rules }) => rules.some(({ tracks }) => tracks)),
  );
}

/** What is missing to tell what a bridge does with a frame behind its prerouting hook, or null. */
function missingFacts(facts: Facts): Reason | null {
  const missing = [
    ...(facts.bridgePlain ? [] : ['bridge=plain']),
    ...(facts.mac === null ? ['mac=...'] : []),
    ...(facts.masterMac === null ? ['master-mac=...'] : []),
    ...(facts.rxVlanOff ? [] : ['rx-vlan=off']),
  ];
  if (missing.length === 0) return null;
  const message = `which frames the bridge hands up is not known (give the facts ${missing.join(', ')})`;
  return { code: 'fact/bridge', message };
}

/** The bridge's prerouting hook; IP packets may be gone to layer 3 where br_netfilter is on. */
function pushBridgePrerouting(builder: Builder, ruleset: Ruleset, path: HookPath): void {
  const tracks = tracksInBridge(ruleset);
  const pending = [
    ...(tracks ? [{ at: TRACKING, condition: BRIDGE_TRACKING }] : []),
    { at: BRIDGE_NETFILTER_PRIORITY, condition: BRIDGE_TOO_SHORT },
    ...(builder.facts.brNetfilter === false
      ? []
      : [{ at: BRIDGE_NETFILTER_PRIORITY, condition: BRIDGE_NETFILTER }]),
  ];
  const before = (priority: number): void => {
    while (pending[0] !== undefined && pending[0].at <= priority) {
      pushConditions(
        builder,
        'ingress',
        pending.splice(0, 1).map(({ condition }) => condition),
      );
    }
  };
  for (const chain of path.bridge.prerouting) {
    before(chain.base.priority);
    pushBaseChain(builder, chain);
  }
  before(Number.POSITIVE_INFINITY);
}

/**
 * Behind the ingress hook of a bridge's port: the bridge's prerouting hook for every frame, then for
 * unicast to the bridge itself its input hook, the ingress hook of the bridge device, and layer 3
 * with the bridge as the device. Everything else is up to the bridge's forwarding table.
 */
export function pushBridge(
  builder: Builder,
  ruleset: Ruleset,
  path: HookPath,
  master: Master,
  layer3: (() => void) | null,
): void {
  const { facts } = builder;
  const { mac, masterMac } = facts;
  const own = mac === null || masterMac === null ? null : [mac, masterMac];
  pushConditions(builder, 'ingress', beforeBridge(facts.bridgePlain));
  builder.link = { ...builder.link, hostMacs: own };
  pushBridgePrerouting(builder, ruleset, path);
  const above = path.ingress.get(master.name) ?? [];
  if (path.bridge.input.length + above.length === 0 && layer3 === null) return;
  const missing = missingFacts(facts);
  if (missing !== null || own === null) {
    const reason = missing ?? { code: 'fact/bridge', message: 'its addresses are not known' };
    builder.stopped = reason;
    push(builder, { label: 'bridge', view: 'ingress', then: { kind: 'unknown', reason } });
    return;
  }
  pushConditions(builder, 'ingress', beforeBridgeInput(own));
  builder.link = { ...builder.link, addressed: true };
  for (const chain of path.bridge.input) pushBaseChain(builder, chain);
  builder.link = { ...builder.link, device: master.name };
  for (const chain of above) pushBaseChain(builder, chain);
  layer3?.();
}
