/**
 * Compares predicted NFP instructions with what the in-tree NFP verifier and compiler really make,
 * behind a simulated card: `npx tsx scripts/nfpsim.ts RUN`. RUN is a program that runs its arguments
 * as a shell command in a kernel with the module parameter nfpsim.create (a netdev in front of
 * drivers/net/ethernet/netronome/nfp/bpf) and the current directory visible. Writes bench/NFP.md.
 * What it accepts is accepted under assumed firmware limits; no program is ever executed.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { compileXdp, isXdpProfile } from '../src/backends/ebpf-offload/compile.ts';
import { flatten } from '../src/ir/flatten.ts';
import { readJsonText } from '../src/nft/ruleset-json.ts';
import { loadProfile } from '../src/profile/load.ts';
import { formatDiagnostic, type Result } from '../src/support/diagnostics.ts';
import {
  makeCorpus,
  manyAddresses,
  manyPrefixes,
  mixedRules,
  type Sample,
} from '../test/lab/corpus.ts';

const DEVICE = 'eth0';

function need<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(result.diagnostics.map(formatDiagnostic).join('\n'));
}

const [program] = process.argv.slice(2);
if (program === undefined) {
  console.error('nfpsim: give the program that runs a command in the kernel with nfpsim');
  process.exit(2);
}
const profile = need(await loadProfile('agilio'));
if (!isXdpProfile(profile)) throw new Error('bug: agilio is no XDP profile');
const facts = {
  ...{ device: DEVICE, role: 'host' as const, localAddresses: null, mac: null },
  ...{ groOff: true, rpFilterOff: true, routed: true, rxVlanOff: true },
  ...{ conntrackFresh: false, soleDevice: false },
};

const edge: Sample = {
  name: 'examples/edge.nft',
  json: readFileSync(join(import.meta.dirname, '../examples/edge.nft.json'), 'utf8'),
};
const samples = [
  ...makeCorpus(DEVICE),
  ...[manyAddresses, manyPrefixes, mixedRules].map((make) => make(DEVICE)),
  edge,
];

interface Row {
  readonly name: string;
  readonly predicted: number;
  readonly entries: number;
}

const folder = mkdtempSync(join(process.cwd(), '.nfpsim-'));
const rows: Row[] = [];
const tooBig: string[] = [];
let said = '';
try {
  for (const { name, json } of samples) {
    const { classifier } = flatten(need(readJsonText(json, name)), facts);
    const compiled = compileXdp(classifier, profile);
    if (!compiled.ok) {
      tooBig.push(`${name}: ${compiled.diagnostics.map(({ message }) => message).join('; ')}`);
      continue;
    }
    const used = (resource: string): number =>
      compiled.value.usage.find((usage) => usage.resource === resource)?.used ?? 0;
    writeFileSync(join(folder, `${rows.length}.o`), compiled.value.elf);
    rows.push({ name, predicted: used('device-insns'), entries: used('map entries') });
  }
  const script = `
echo nfp0 > /sys/module/nfpsim/parameters/create; ip link set dev nfp0 up
n=0
while [ $n -lt ${rows.length} ]; do
  if ip -force link set dev nfp0 xdpoffload obj ${folder}/$n.o sec xdp 2>/run/said; then
    read length < /sys/kernel/debug/nfpsim/loaded_len
    echo "$n $length"
  else
    echo "$n refused $(grep -v '^$' /run/said | tail -n 4 | tr '\\n' ' ')"
  fi
  n=$((n + 1))
done`;
  said = (await execa(program, [script], { stderr: 'inherit' })).stdout;
} finally {
  rmSync(folder, { recursive: true });
}

const lines: string[] = [];
let refused = 0;
let wrong = 0;
for (const [index, { name, predicted, entries }] of rows.entries()) {
  const answer = said.split('\n').find((line) => line.startsWith(`${index} `)) ?? '';
  const real = Number(answer.split(' ')[1]);
  if (Number.isNaN(real)) {
    refused += 1;
    console.error(`${name}: ${answer}`);
  } else wrong += Math.abs(predicted - real) / real;
  const error = Number.isNaN(real)
    ? 'refused'
    : `${(((predicted - real) / real) * 100).toFixed(1)} %`;
  lines.push(`| ${name} | ${predicted} | ${real} | ${error} | ${entries} |`);
}
const accepted = rows.length - refused;
const mean = ((wrong / Math.max(1, accepted)) * 100).toFixed(2);
const text = `# NFP instructions, predicted and real

Accepted by the in-tree NFP verifier and compiler (Linux 6.1) under assumed firmware limits: ${accepted} of
${rows.length} objects; mean error of the prediction ${mean} %. Beyond the limit of the profile, so not tried: ${tooBig.length}.
Made by scripts/nfpsim.ts.

| ruleset | predicted | real | error | map entries |
|---|---|---|---|---|
${lines.join('\n')}
${tooBig.map((line) => `\nToo big, as predicted: ${line}`).join('\n')}
`;
writeFileSync(join(import.meta.dirname, '../bench/NFP.md'), text);
console.log(text);
process.exitCode = refused === 0 ? 0 : 1;
