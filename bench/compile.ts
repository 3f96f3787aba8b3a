/**
 * How long a ruleset takes from JSON to an XDP object, stage by stage: `npm run bench`. Medians of
 * five runs after one that is not counted; the table is also written to bench/RESULTS.md.
 */
import { compileXdp, isXdpProfile } from '../src/backends/ebpf-offload/compile.ts';
import { buildDecision } from '../src/ir/decision.ts';
import { nothingKnown } from '../src/ir/facts.ts';
import { flatten } from '../src/ir/flatten.ts';
import { EVERYTHING, specialise } from '../src/ir/specialise.ts';
import { readJsonText } from '../src/nft/ruleset-json.ts';
import { loadProfile } from '../src/profile/load.ts';
import type { Result } from '../src/support/diagnostics.ts';
import { generateRules } from './generate.ts';
import { median, writeSection } from './results.ts';

const SIZES = [10, 100, 1_000, 10_000] as const;
const RUNS = 5;

function need<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(result.diagnostics.map(({ message }) => message).join('\n'));
}

const profile = need(await loadProfile('xdp-native'));
if (!isXdpProfile(profile)) throw new Error('xdp-native is no XDP profile');
const facts = { ...nothingKnown('eth0'), groOff: true, rxVlanOff: true };

const rows: string[] = [];
for (const size of SIZES) {
  const text = generateRules(size);
  const times: Record<string, number[]> = {};
  let insns = 0;
  let bytes = 0;
  for (let run = 0; run <= RUNS; run += 1) {
    const measure = <T>(stage: string, work: () => T): T => {
      const start = performance.now();
      const result = work();
      const list = times[stage] ?? [];
      times[stage] = list;
      if (run > 0) list.push(performance.now() - start);
      return result;
    };
    const ruleset = need(measure('read', () => readJsonText(text, 'bench.json')));
    const { classifier } = measure('flatten', () => flatten(ruleset, facts));
    const special = measure('specialise', () => specialise(classifier, EVERYTHING));
    measure('decide', () => buildDecision(special.classifier));
    const compiled = need(measure('compile', () => compileXdp(classifier, profile)));
    insns = compiled.assembly.lines.length;
    bytes = compiled.elf.length;
  }
  const stages = ['read', 'flatten', 'specialise', 'decide', 'compile'];
  const cells = stages.map((stage) => median(times[stage] ?? []).toFixed(1));
  rows.push(`| ${[size, ...cells, insns, bytes].join(' | ')} |`);
}

writeSection(
  'From JSON to an XDP object',
  `Milliseconds, medians of ${RUNS}; \`compile\` is specialise, decide, select, assemble and write together.

| rules | read | flatten | specialise | decide | compile | instructions | bytes |
|---|---|---|---|---|---|---|---|
${rows.join('\n')}`,
);
