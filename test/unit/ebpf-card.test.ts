import { beforeAll, expect, it } from 'vitest';
import {
  compileXdp,
  isXdpProfile,
  type XdpArtifact,
} from '../../src/backends/ebpf-offload/compile.ts';
import { fillMemory } from '../../src/backends/ebpf-offload/fill.ts';
import { loadProgram } from '../../src/backends/ebpf-offload/interpret.ts';
import { createMemory } from '../../src/backends/ebpf-offload/memory.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { XdpProfile } from '../../src/profile/schema.ts';
import { makeCorpus, manyAddresses, manyPrefixes, mixedRules, type Sample } from '../lab/corpus.ts';
import { ethernet, ipv4, tcp } from '../support/frames.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';

let card: XdpProfile;

beforeAll(async () => {
  const profile = unwrap(await loadProfile('agilio'));
  if (!isXdpProfile(profile)) throw new Error('bug: agilio is no XDP profile');
  card = profile;
});

function compile({ name, json }: Sample, profile: XdpProfile = card) {
  const { classifier } = flatten(unwrap(readJsonText(json, name)), labFacts('host'));
  return compileXdp(classifier, profile);
}

function sample(name: string): Sample {
  const found = makeCorpus('eth0').find((each) => each.name === name);
  if (found === undefined) throw new Error(`bug: no sample ${name}`);
  return found;
}

function used({ usage }: XdpArtifact, resource: string): number {
  return usage.find((each) => each.resource === resource)?.used ?? Number.NaN;
}

// What the in-tree compiler makes of these: bench/NFP.md, written by scripts/nfpsim.ts.
it.each([
  ['set address 400', 146],
  ['set prefix6 40', 295],
  ['set vlan 40', 368],
  ['rules port 500', 234],
  ['counted 12', 411],
])('knows the NFP instructions of %s', (name, real) => {
  expect(used(unwrap(compile(sample(name))), 'device-insns')).toBe(real);
});

it('holds large sets in few instructions', () => {
  const samples = [manyAddresses('eth0'), manyPrefixes('eth0'), mixedRules('eth0')];
  for (const each of samples) {
    const artifact = unwrap(compile(each));
    expect(used(artifact, 'device-insns')).toBeLessThan(500);
  }
});

it('says what each rule costs, also those that became one look-up', () => {
  const artifact = unwrap(compile(mixedRules('eth0')));
  expect(artifact.costs.size).toBe(750);
  const costs = [...artifact.costs.values()].map((cost) => cost['device-insns'] ?? 0);
  expect(Math.min(...costs)).toBeGreaterThan(0);
  expect(Math.max(...costs)).toBeLessThan(20);
});

it('continues every frame until its sets are filled', () => {
  const artifact = unwrap(compile(sample('rules port 20')));
  const memory = createMemory(artifact.object.maps, []);
  const machine = loadProgram(artifact.assembly, memory);
  const frame = ethernet({}, ipv4({}, tcp({ dport: 62 })));
  const other = ethernet({}, ipv4({}, tcp({ dport: 63 })));
  expect(machine.run(frame).action).toBe(2);
  fillMemory(memory, artifact.sets);
  expect(machine.run(frame).action).toBe(1);
  expect(machine.run(other).action).toBe(2);
});

it('decides the same where cls_bpf runs it', () => {
  const { name, json } = sample('rules address 20');
  const { classifier } = flatten(unwrap(readJsonText(json, name)), labFacts('host'));
  const run = (hook: 'xdp' | 'tc') => {
    const artifact = unwrap(compileXdp(classifier, card, { hook }));
    const memory = createMemory(artifact.object.maps, []);
    fillMemory(memory, artifact.sets);
    const machine = loadProgram(artifact.assembly, memory);
    const [section] = artifact.object.programs.map((program) => program.section);
    const actions = ['1.0.0.25', '1.0.0.26', '9.9.9.9'].map(
      (saddr) => machine.run(ethernet({}, ipv4({ saddr }, tcp()))).action,
    );
    return { section, actions };
  };
  const xdp = run('xdp');
  const tc = run('tc');
  expect([xdp.section, tc.section]).toEqual(['xdp', 'tc']);
  expect(tc.actions).toEqual(xdp.actions.map((action) => (action === 1 ? 2 : 0xffffffff)));
});

it('writes what fills its sets, the ready cell last', () => {
  const { files } = unwrap(compile(sample('set pair 40')));
  expect(files.map(({ suffix }) => suffix)).toEqual(['', '.maps']);
  const lines = new TextDecoder().decode(files[1]?.content).trimEnd().split('\n');
  expect(lines[0]).toBe('# set0: an anonymous set, 40 keys');
  expect(lines[1]).toMatch(/^map update name set0 key hex( [0-9a-f]{2}){8} value hex 01 00 00 00$/);
  expect(lines.at(-1)).toBe('map update name ready key hex 00 00 00 00 value hex 01 00 00 00');
  expect(lines).toHaveLength(43);
});

type Limits = XdpProfile['limits'];

function limited(change: (limits: Limits) => Partial<Limits>): XdpProfile {
  return { ...card, limits: { ...card.limits, ...change(card.limits) } };
}

const none = { source: 'this test' } as const;

it.each<readonly [string, (limits: Limits) => Partial<Limits>]>([
  [
    'device-insns: 223 needed, agilio has 222',
    () => ({ deviceInsns: { ...none, value: 222, unit: 'device-insns' } }),
  ],
  ['stack: 32 needed, agilio has 24', () => ({ stack: { ...none, value: 24, unit: 'bytes' } })],
  [
    'maps: 3 needed, agilio has 2',
    ({ maps }) => ({ maps: { ...maps, maxMaps: { ...none, value: 2, unit: 'maps' } } }),
  ],
  [
    'map entries: 42 needed, agilio has 41',
    ({ maps }) => ({ maps: { ...maps, totalEntries: { ...none, value: 41, unit: 'entries' } } }),
  ],
])('refuses what is beyond the budget: %s', (message, change) => {
  const samples = { name: 'x', json: sample('set address 40').json };
  const refused = compile(samples, limited(change));
  expect(refused).toMatchObject({ ok: false });
  expect(refused.diagnostics.map((each) => [each.code, each.message])).toContainEqual([
    'ebpf/too-big',
    message,
  ]);
});
