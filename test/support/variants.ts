import type { Facts } from '../../src/ir/facts.ts';
import type { CompareOptions } from './compare.ts';
import type { LabHook } from './lab-oracle.ts';
import { labFacts } from './pipeline.ts';

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
  readonly inetIngress: boolean;
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
    inetIngress: false,
    ...rest,
  };
}

const HOST: readonly LabHook[] = ['ingress', 'prerouting', 'input'];
const ROUTER: readonly LabHook[] = ['prerouting', 'input', 'forward'];
const SIMULATED = { profile: 'netdevsim' };
const CARD = { profile: 'agilio' };
const PARTLY = { complete: false };

/** All variants; every one is sound, `complete` ones are exact as well. */
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
  variant('router, card', ROUTER, labFacts('router'), CARD),
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

/** What `compareWithKernel` has to know of a variant. */
export function optionsOf(
  { facts, unknowns, complete, profile }: Variant,
  frames: readonly Uint8Array[],
): CompareOptions {
  return { facts, unknowns, complete, profile, frames };
}
