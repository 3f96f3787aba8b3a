import type { AttachHook } from '../../src/backends/backend.ts';
import type { Facts } from '../../src/ir/facts.ts';
import type { CompareOptions } from './compare.ts';
import type { LabHook } from './lab-oracle.ts';
import { BRIDGE_MAC, LAB_VLANS, type Topology } from './lab-topology.ts';
import { labFacts } from './pipeline.ts';
import type { FrameMix } from './random-frames.ts';

/** A way to look at rulesets: where their chains stand, and what is known of the machine. */
export interface Variant {
  readonly name: string;
  readonly hooks: readonly LabHook[];
  /** The lab forwards. */
  readonly router: boolean;
  readonly facts: Facts;
  readonly unknowns: boolean;
  readonly complete: boolean;
  readonly profile: string;
  readonly hook: AttachHook;
  readonly inetIngress: boolean;
  /** See `CompareOptions`. */
  readonly share: number;
  readonly topology: Topology;
  readonly devices: readonly string[];
  /** Text in front of every ruleset. */
  readonly head: string;
  readonly mix: FrameMix;
}

function variant(
  name: string,
  hooks: readonly LabHook[],
  facts: Facts,
  rest: Partial<Variant> = {},
): Variant {
  return {
    name,
    hooks,
    facts,
    router: facts.role === 'router',
    unknowns: false,
    complete: true,
    profile: 'xdp-native',
    hook: 'xdp',
    inetIngress: false,
    share: 1,
    topology: 'plain',
    devices: ['eth0'],
    head: '',
    mix: { odd: 0.3 },
    ...rest,
  };
}

const HOST: readonly LabHook[] = ['ingress', 'prerouting', 'input'];
const ROUTER: readonly LabHook[] = ['prerouting', 'input', 'forward'];
const SIMULATED = { profile: 'netdevsim' };
const CARD = { profile: 'agilio' };
const PARTLY = { complete: false };

const VLAN = {
  topology: 'vlan',
  devices: ['eth0', 'eth0.5', 'eth0.7'],
  mix: { odd: 0.3, tagged: 0.6 },
} as const;
const vlanFacts = (role: Facts['role']): Facts => ({ ...labFacts(role), vlans: LAB_VLANS });

const BRIDGE = {
  topology: 'bridge',
  devices: ['eth0', 'br0'],
  mix: { odd: 0.3, tagged: 0.1 },
  complete: false,
} as const;
const bridgeFacts = (role: Facts['role']): Facts => ({
  ...labFacts(role),
  vlans: [],
  master: { name: 'br0', kind: 'bridge' },
  masterMac: BigInt(`0x${BRIDGE_MAC.replaceAll(':', '')}`),
  bridgePlain: true,
  brNetfilter: false,
});

const TRANSLATES = `table ip head_nat {
  chain pre {
    type nat hook prerouting priority dstnat; policy accept;
    tcp dport 80 counter dnat to 10.0.1.77:8080
    udp dport 53 redirect to :5353
    ip daddr 10.0.1.77 dnat to 10.0.0.1
  }
  chain post {
    type nat hook postrouting priority srcnat; policy accept;
    masquerade
  }
}
`;
const TRACKS = `table inet head_ct {
  chain pre {
    type filter hook prerouting priority -250; policy accept;
    ct state untracked counter
    udp dport 53 notrack
  }
  chain in {
    type filter hook input priority 50; policy accept;
    ct state invalid counter
  }
}
`;
const MANGLES = `table inet head_mangle {
  chain pre {
    type filter hook prerouting priority -310; policy accept;
    meta mark set 0x5
    ip protocol 17 ip ttl set 9
    tcp dport 22 meta mark set 0x7
  }
}
`;

/** Frames that go straight to the rules; every variant is sound, `complete` ones are exact as well. */
export const VARIANTS: readonly Variant[] = [
  variant('ingress', ['ingress'], labFacts(null)),
  variant('inet ingress', ['ingress'], labFacts(null), { inetIngress: true }),
  variant('ingress, simulated card', ['ingress'], labFacts(null), SIMULATED),
  variant('ingress, card', ['ingress'], labFacts(null), CARD),
  variant('prerouting', ['prerouting'], labFacts(null)),
  variant('host, input', ['input'], labFacts('host')),
  variant('host, all hooks', HOST, labFacts('host'), { inetIngress: true }),
  variant('host, simulated card', HOST, labFacts('host'), SIMULATED),
  variant('host, card', HOST, labFacts('host'), CARD),
  variant('router, forward', ['forward'], labFacts('router')),
  variant('router, input and forward', ['input', 'forward'], labFacts('router')),
  variant('router, all hooks', ROUTER, labFacts('router')),
  variant('router, simulated card', ROUTER, labFacts('router'), SIMULATED),
  variant('tier too small', HOST, labFacts('host'), { ...PARTLY, share: 0.5, inetIngress: true }),
  variant('router, card', ROUTER, labFacts('router'), CARD),
  variant('host, card, cls_bpf', HOST, labFacts('host'), { ...CARD, hook: 'tc' }),
  variant('no role', HOST, labFacts(null), PARTLY),
  variant('no mac', HOST, { ...labFacts('host'), mac: null }, PARTLY),
  variant('no addresses', HOST, { ...labFacts('host'), localAddresses: null }, PARTLY),
  variant('gro unknown', HOST, { ...labFacts('host'), groOff: false }, PARTLY),
  variant('rp_filter unknown', HOST, { ...labFacts('host'), rpFilterOff: false }, PARTLY),
  variant('routes unknown', ROUTER, { ...labFacts('router'), routed: false }, PARTLY),
  variant('tags unknown', HOST, { ...labFacts('host'), rxVlanOff: false }, PARTLY),
  variant(
    'nothing known',
    HOST,
    {
      ...labFacts(null),
      ...{ localAddresses: null, mac: null, groOff: false, rpFilterOff: false },
      ...{ routed: false, rxVlanOff: false },
    },
    PARTLY,
  ),
  variant('unknowns, host', HOST, labFacts('host'), { unknowns: true, inetIngress: true }),
  variant('unknowns, router', ROUTER, labFacts('router'), { unknowns: true }),
  variant('unknowns, simulated card', HOST, labFacts('host'), { unknowns: true, ...SIMULATED }),
  variant('unknowns, card', HOST, labFacts('host'), { unknowns: true, ...CARD }),
  variant('unknowns, no role', HOST, labFacts(null), { unknowns: true, complete: false }),
];

/** What stands between the wire and the rules: VLAN devices, bridges, translation, tracking. */
export const PATH_VARIANTS: readonly Variant[] = [
  variant('vlan, host', [...HOST, 'upper'], vlanFacts('host'), VLAN),
  variant('vlan, host, input', ['input', 'upper'], vlanFacts('host'), VLAN),
  variant('vlan, router', [...ROUTER, 'upper'], vlanFacts('router'), VLAN),
  variant('vlan, no role', [...HOST, 'upper'], vlanFacts(null), { ...VLAN, ...PARTLY }),
  variant(
    'vlan, one of them odd',
    [...HOST, 'upper'],
    {
      ...vlanFacts('host'),
      vlans: LAB_VLANS.map((vlan, i) => (i > 0 ? vlan : { ...vlan, device: null })),
    },
    { ...VLAN, ...PARTLY },
  ),
  variant(
    'vlan, tags unknown',
    HOST,
    { ...vlanFacts('host'), rxVlanOff: false },
    { ...VLAN, ...PARTLY },
  ),
  variant('vlan, unknowns', [...HOST, 'upper'], vlanFacts('host'), { ...VLAN, unknowns: true }),
  variant('bridge, prerouting', ['ingress', 'bridge'], bridgeFacts(null), BRIDGE),
  variant(
    'bridge, host',
    [...HOST, 'upper', 'bridge', 'bridge_input'],
    bridgeFacts('host'),
    BRIDGE,
  ),
  variant('bridge, router', [...ROUTER, 'bridge', 'bridge_input'], bridgeFacts('router'), BRIDGE),
  variant(
    'bridge, little known',
    [...HOST, 'upper', 'bridge', 'bridge_input'],
    { ...bridgeFacts('host'), bridgePlain: false, brNetfilter: null, masterMac: null },
    BRIDGE,
  ),
  variant('bridge, unknowns', [...HOST, 'bridge'], bridgeFacts('host'), {
    ...BRIDGE,
    unknowns: true,
  }),
  variant('host, behind NAT', HOST, labFacts('host'), { head: TRANSLATES, ...PARTLY }),
  variant('router, behind NAT', ROUTER, labFacts('router'), { head: TRANSLATES, ...PARTLY }),
  variant('host, tracked', HOST, labFacts('host'), { head: TRACKS, ...PARTLY }),
  variant('router, tracked', ROUTER, labFacts('router'), { head: TRACKS, ...PARTLY }),
  variant('host, mangled', HOST, labFacts('host'), { head: MANGLES, ...PARTLY }),
  variant('router, mangled', ROUTER, labFacts('router'), { head: MANGLES, ...PARTLY }),
];

/** What `compareWithKernel` has to know of a variant. */
export function optionsOf(
  { facts, unknowns, complete, profile, hook, share }: Variant,
  frames: readonly Uint8Array[],
): CompareOptions {
  return { facts, unknowns, complete, profile, hook, share, frames };
}
