import { expect, it } from 'vitest';
import { evaluate } from '../../src/ir/evaluate.ts';
import { type Facts, nothingKnown } from '../../src/ir/facts.ts';
import { META } from '../../src/ir/fields.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { equals } from '../../src/ir/operand.ts';
import { parsePacket } from '../../src/ir/packet.ts';
import { nameValue } from '../../src/ir/resolve-test.ts';
import type { BaseChain, Family, Ruleset, Step, Table } from '../../src/ir/ruleset.ts';
import { ethernet, ipv4, type Tag, tcp } from '../support/frames.ts';
import { labFacts } from '../support/pipeline.ts';

const DROP: Step = { kind: 'verdict', verdict: { kind: 'drop' } };

function table(family: Family, hook: BaseChain['hook'], steps: readonly Step[], more = {}): Table {
  const id = { family, table: 't', chain: 'c', handle: 1, index: 0 };
  const rule = { id, text: 'rule', comment: null, steps, tracks: false, nat: false };
  const base = { type: 'filter', hook, priority: 0, policy: 'accept', devices: null } as const;
  const chain = { name: 'c', handle: 1, base: { ...base, ...more }, rules: [rule] };
  return { family, name: 't', handle: 1, dormant: false, chains: [chain], sets: [], counters: [] };
}

function on(device: string): Step {
  return { kind: 'test', test: equals(META.iifname, nameValue(device)) };
}

function verdict(ruleset: Ruleset, facts: Facts, tags: readonly Tag[] = []): string {
  const { classifier } = flatten(ruleset, facts);
  const frame = ethernet({ tags }, ipv4({}, tcp({ dport: 80 })));
  const outcome = evaluate(classifier, parsePacket(frame), { mac: facts.mac });
  return outcome.reason === null ? outcome.verdict : outcome.reason.code;
}

function reasons(ruleset: Ruleset, facts: Facts): string[] {
  return [...flatten(ruleset, facts).leftOut.values()].map(({ code }) => code);
}

const VLANS: Facts['vlans'] = [
  { protocol: 0x8100, id: 5, device: 'eth0.5' },
  { protocol: 0x88a8, id: 7, device: 'eth0.7' },
  { protocol: 0x8100, id: 9, device: null },
];
const PORT: Facts = { ...labFacts('host'), vlans: VLANS };
const ON_VLAN = { tables: [table('inet', 'input', [on('eth0.5'), DROP])] };

it.each<[string, string, readonly Tag[]]>([
  ['drop', 'its tag', [{ vid: 5 }]],
  ['accept', 'no tag', []],
  ['accept', 'a priority tag', [{ vid: 0 }]],
  ['accept', 'the tag of another device', [{ vid: 7, protocol: 0x88a8 }]],
  ['path/vlan-unknown', 'another kind of tag', [{ vid: 5, protocol: 0x88a8 }]],
  ['path/vlan-unknown', 'a tag without a device', [{ vid: 6 }]],
  ['path/vlan-device', 'the tag of something odd', [{ vid: 9 }]],
  ['path/vlan-stacked', 'two tags', [{ vid: 5 }, { vid: 5 }]],
])('a rule on a VLAN device: %s for a frame with %s', (expected, _, tags) => {
  expect(verdict(ON_VLAN, PORT, tags)).toBe(expected);
});

it('ingress chains of a VLAN device see its frames', () => {
  const ruleset = { tables: [table('netdev', 'ingress', [DROP], { devices: ['eth0.7'] })] };
  expect(verdict(ruleset, PORT, [{ vid: 7, protocol: 0x88a8 }])).toBe('drop');
  expect(verdict(ruleset, PORT, [{ vid: 5 }])).toBe('accept');
  expect(verdict(ruleset, PORT)).toBe('accept');
  expect(reasons(ruleset, { ...PORT, vlans: [] })).toEqual(['path/other-device']);
});

it('a rule that matches on one of the devices is not left out', () => {
  expect(reasons(ON_VLAN, PORT)).toEqual([]);
  expect(reasons(ON_VLAN, { ...PORT, vlans: [] })).toEqual(['rule/never-matches']);
});

it('devices that no rule tells apart share one walk', () => {
  const many = Array.from({ length: 200 }, (_, id) => {
    return { protocol: 0x8100, id: id + 1, device: `v${id + 1}` } as const;
  });
  const ruleset = { tables: [table('inet', 'input', [on('v7'), DROP])] };
  const { classifier } = flatten(ruleset, { ...PORT, vlans: many });
  expect(classifier.entries.filter(({ rule }) => rule !== null)).toHaveLength(1);
});

it('tags that may be hidden leave the device open', () => {
  const facts = { ...PORT, vlans: VLANS?.slice(0, 2) ?? null, rxVlanOff: false };
  // It may be dropped, which nobody can tell from here.
  expect(verdict(ON_VLAN, facts)).toBe('walk/uncertain-accept');
  expect(verdict({ tables: [table('inet', 'input', [DROP])] }, facts)).toBe('drop');
  expect(verdict({ tables: [table('inet', 'input', [DROP])] }, { ...facts, vlans: VLANS })).toBe(
    'fact/rx-vlan',
  );
});

it('a master that is no bridge is named', () => {
  const facts = { ...PORT, vlans: [], master: { name: 'bond0', kind: 'bond' } };
  const ruleset = { tables: [table('inet', 'input', [DROP])] };
  expect(verdict(ruleset, facts)).toBe('path/master');
  expect(reasons(ruleset, facts)).toEqual(['path/master']);
  const ingress = { tables: [table('netdev', 'ingress', [DROP], { devices: ['eth0'] })] };
  expect(verdict(ingress, facts)).toBe('drop');
});

const BRIDGED: Facts = {
  ...labFacts('host'),
  vlans: [],
  master: { name: 'br0', kind: 'bridge' },
  masterMac: 0x020000000301n,
  bridgePlain: true,
  brNetfilter: false,
};

it.each<[string, Table, Partial<Facts>]>([
  ['drop', table('bridge', 'prerouting', [DROP]), {}],
  ['drop', table('bridge', 'prerouting', [DROP], { priority: -300 }), { brNetfilter: null }],
  ['fact/br-nf', table('bridge', 'prerouting', [DROP]), { brNetfilter: true }],
  ['fact/br-nf', table('bridge', 'prerouting', [DROP]), { brNetfilter: null }],
  ['drop', table('bridge', 'input', [on('eth0'), DROP]), {}],
  ['drop', table('inet', 'input', [on('br0'), DROP]), {}],
  ['accept', table('inet', 'input', [on('eth0'), DROP]), {}],
  ['fact/bridge', table('inet', 'input', [DROP]), { bridgePlain: false }],
  ['fact/bridge', table('inet', 'input', [DROP]), { masterMac: null }],
  ['path/bridge-forward', table('inet', 'input', [DROP]), { mac: 1n }],
])('the port of a bridge: %s', (expected, one, facts) => {
  expect(verdict({ tables: [one] }, { ...BRIDGED, ...facts })).toBe(expected);
});

it('bridge chains say why they are left out', () => {
  const ruleset = { tables: [table('bridge', 'forward', [DROP])] };
  expect(reasons(ruleset, BRIDGED)).toEqual(['path/bridge-forward']);
  expect(reasons(ruleset, nothingKnown('eth0'))).toEqual(['path/bridge']);
});
