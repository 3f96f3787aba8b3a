import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  compileXdp,
  isXdpProfile,
  type XdpArtifact,
} from '../../src/backends/ebpf-offload/compile.ts';
import { type BpfObject, writeElf } from '../../src/backends/ebpf-offload/elf.ts';
import { exit, mov, r0, XDP } from '../../src/backends/ebpf-offload/insn.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { XdpProfile } from '../../src/profile/schema.ts';
import { assembled } from '../support/ebpf-programs.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';
import { makeCorpus, manyAddresses6, type Sample } from './corpus.ts';
import { MAKE_DEVICE, probeLab, runInLab } from './lab.ts';

const obstacle = probeLab();
const inLab = it.skipIf(obstacle !== null);

let netdevsim: XdpProfile;
let agilio: XdpProfile;
let folder = '';

async function xdpProfile(name: string): Promise<XdpProfile> {
  const profile = unwrap(await loadProfile(name));
  if (!isXdpProfile(profile)) throw new Error(`bug: ${name} is no XDP profile`);
  return profile;
}

beforeAll(async () => {
  netdevsim = await xdpProfile('netdevsim');
  agilio = await xdpProfile('agilio');
  folder = mkdtempSync(join(tmpdir(), 'nfo-lab-'));
});

afterAll(() => rmSync(folder, { recursive: true }));

it('says why the simulated NIC cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

function classifierOf({ name, json }: Sample) {
  return flatten(unwrap(readJsonText(json, name)), labFacts('host')).classifier;
}

/** The dialect of a card, with the room that the simulator has. */
function cardDialect(): XdpProfile {
  const limits = { ...agilio.limits, maps: netdevsim.limits.maps };
  return { ...netdevsim, limits, instructions: agilio.instructions };
}

/** With room in maps that the device does not have. */
function largerMaps(profile: XdpProfile): XdpProfile {
  const { maps } = profile.limits;
  const kinds = maps.kinds.map((kind) => ({
    ...kind,
    maxEntries: { ...kind.maxEntries, value: 2 ** 31 },
  }));
  return { ...profile, limits: { ...profile.limits, maps: { ...maps, kinds } } };
}

/** With room for instructions that no kernel has. */
function longerPrograms(profile: XdpProfile): XdpProfile {
  const { insns, verifierInsns } = profile.limits;
  const limits = {
    ...profile.limits,
    insns: { ...insns, value: 10 ** 8 },
    verifierInsns: { ...verifierInsns, value: 10 ** 8 },
  };
  return { ...profile, limits };
}

/** Tries to load every object, one boot for all; what was said of each. */
async function loadAll(artifacts: readonly Pick<XdpArtifact, 'elf'>[]): Promise<readonly string[]> {
  for (const [index, { elf }] of artifacts.entries())
    writeFileSync(join(folder, `${index}.o`), elf);
  const script = `${MAKE_DEVICE}
n=0
while [ $n -lt ${artifacts.length} ]; do
  if ip -force link set dev $dev xdpoffload obj $n.o sec xdp 2>/run/said; then
    echo "$n loaded"
  else
    echo "$n $(grep -v '^$' /run/said | tr '\\n' ' ' | tail -c 300)"
  fi
  n=$((n + 1))
done`;
  const { stdout } = await runInLab(script, folder);
  const lines = stdout.split('\n');
  return artifacts.map((_, index) => {
    const line = lines.find((candidate) => candidate.startsWith(`${index} `));
    return line?.slice(`${index} `.length) ?? 'nothing was said';
  });
}

inLab('takes every object that fits, in both dialects', async () => {
  const corpus = makeCorpus('eth0');
  const compiled = [netdevsim, cardDialect()].flatMap((profile, dialect) =>
    corpus.flatMap((sample) => {
      const result = compileXdp(classifierOf(sample), profile);
      const tooBig = !result.ok && result.diagnostics.every(({ code }) => code === 'ebpf/too-big');
      if (tooBig) return [];
      return { name: `${sample.name}, dialect ${dialect}`, artifact: unwrap(result) };
    }),
  );
  expect(compiled.length).toBeGreaterThanOrEqual(60);
  const said = await loadAll(compiled.map(({ artifact }) => artifact));
  const refused = compiled.flatMap(({ name }, index) =>
    said[index] === 'loaded' ? [] : `${name}: ${said[index]}`,
  );
  expect(refused).toEqual([]);
});

inLab('takes programs for tc where XDP is taken', async () => {
  const samples = makeCorpus('eth0').filter((_, index) => index % 6 === 0);
  const files = samples.map((sample, index) => {
    const { elf } = unwrap(compileXdp(classifierOf(sample), netdevsim, { hook: 'tc' }));
    writeFileSync(join(folder, `tc${index}.o`), elf);
    return `tc${index}.o`;
  });
  const script = `${MAKE_DEVICE}
ethtool -K $dev hw-tc-offload on
tc qdisc add dev $dev clsact
for file in ${files.join(' ')}; do
  tc filter replace dev $dev ingress pref 1 handle 1 protocol all bpf da skip_sw obj $file sec tc || echo "refused $file"
done
tc filter show dev $dev ingress`;
  const { stdout, stderr } = await runInLab(script, folder);
  expect(`${stdout}${stderr}`).not.toContain('refused');
  expect(stdout).toMatch(/direct-action skip_sw in_hw/);
});

inLab('refuses what the profile says does not fit: three map entries', async () => {
  const sample = makeCorpus('eth0').find(({ name }) => name === 'counted 3');
  if (sample === undefined) throw new Error('bug: no such sample');
  const classifier = classifierOf(sample);
  const refused = compileXdp(classifier, cardDialect());
  expect(refused).toMatchObject({
    ok: false,
    diagnostics: [
      { code: 'ebpf/too-big', message: 'map counters, entries: 3 needed, netdevsim has 2' },
    ],
  });
  const [said] = await loadAll([unwrap(compileXdp(classifier, largerMaps(cardDialect())))]);
  expect(said).toContain('Cannot allocate memory');
});

/** A program of so many instructions, one after the other. */
function straight(count: number): BpfObject {
  const insns = [...Array.from({ length: count - 1 }, () => mov(r0, XDP.pass)), exit()];
  const programs = [{ section: 'xdp', name: 'filter', assembly: assembled(insns) }];
  return { programs, license: 'GPL', maps: [], data: [] };
}

inLab('takes exactly as many instructions as the profile says', async () => {
  const most = netdevsim.limits.insns.value;
  const said = await loadAll([most, most + 1].map((count) => ({ elf: writeElf(straight(count)) })));
  expect(said[0]).toBe('loaded');
  expect(said[1]).toContain('Argument list too long');
});

inLab('refuses what the profile says does not fit: too many instructions', async () => {
  const classifier = classifierOf(manyAddresses6('eth0', 80_000));
  const refused = compileXdp(classifier, netdevsim);
  const codes = refused.ok ? [] : refused.diagnostics.map(({ code }) => code);
  expect(new Set(codes)).toEqual(new Set(['ebpf/too-big']));
  const [said] = await loadAll([unwrap(compileXdp(classifier, longerPrograms(netdevsim)))]);
  expect(said).toContain('Argument list too long');
});
