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
import type { AttachHook } from '../src/backends/backend.ts';
import {
  compileXdp,
  isXdpProfile,
  type XdpArtifact,
} from '../src/backends/ebpf-offload/compile.ts';
import { type Facts, nothingKnown } from '../src/ir/facts.ts';
import { flatten } from '../src/ir/flatten.ts';
import { readJsonText } from '../src/nft/ruleset-json.ts';
import { placeXdp } from '../src/plan/place.ts';
import { loadProfile } from '../src/profile/load.ts';
import type { XdpProfile } from '../src/profile/schema.ts';
import { formatDiagnostic, type Result } from '../src/support/diagnostics.ts';
import {
  crowdedRules,
  makeCorpus,
  manyAddresses,
  manyPrefixes,
  mixedRules,
  type Sample,
} from '../test/lab/corpus.ts';

const DEVICE = 'eth0';
/** NFP instructions of a card that is larger than any; the simulated one holds so many. */
const MOST_INSNS = 16_000;
/** More than a card has, so that its driver has to refuse what is made for so many. */
const MORE_INSNS = 40;

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
const facts: Facts = {
  ...nothingKnown(DEVICE),
  ...{ role: 'host', groOff: true, rpFilterOff: true, routed: true, rxVlanOff: true },
};

const edge: Sample = {
  name: 'examples/edge.nft',
  json: readFileSync(join(import.meta.dirname, '../examples/edge.nft.json'), 'utf8'),
};
interface Job {
  readonly sample: Sample;
  readonly title: string;
  readonly hook: AttachHook;
  readonly profile: XdpProfile;
  /** As `plan` does: what is worth most where not all fits. */
  readonly isPlaced?: boolean;
  /** NFP instructions of the card that it is loaded into, where that is not the profile's. */
  readonly room?: number;
}

const corpus = makeCorpus(DEVICE);
const jobs: readonly Job[] = [
  ...[
    ...corpus,
    ...[manyAddresses, manyPrefixes, mixedRules].map((make) => make(DEVICE)),
    edge,
  ].map((sample): Job => ({ sample, title: sample.name, hook: 'xdp', profile })),
  ...corpus
    .filter((_, index) => index % 6 === 0)
    .map((sample): Job => ({ sample, title: `${sample.name}, cls_bpf`, hook: 'tc', profile })),
  {
    sample: mixedRules(DEVICE),
    title: 'the same without maps, in a card with room',
    hook: 'xdp',
    profile: withoutMaps(profile),
  },
  {
    sample: mixedRules(DEVICE),
    title: 'the same in a card without room for it',
    hook: 'xdp',
    profile: withoutMaps(profile),
    room: roomOf(profile),
  },
  ...[0, MORE_INSNS].map((more): Job => {
    const sample = crowdedRules(DEVICE, 300);
    const title = `${sample.name}, as many as there is room for${more === 0 ? '' : ' in a larger card'}`;
    const larger = withInsns(profile, roomOf(profile) + more);
    return {
      ...{ sample, title, hook: 'xdp', profile: larger },
      ...{ isPlaced: true, room: roomOf(profile) },
    };
  }),
];

function roomOf({ limits }: XdpProfile): number {
  if (limits.deviceInsns === undefined) throw new Error('bug: a card without a limit');
  return limits.deviceInsns.value;
}

function withInsns(card: XdpProfile, value: number): XdpProfile {
  const { deviceInsns } = card.limits;
  if (deviceInsns === undefined) throw new Error('bug: a card without a limit');
  return { ...card, limits: { ...card.limits, deviceInsns: { ...deviceInsns, value } } };
}

/** What a program costs whose questions are asked one by one, in a card of any size. */
function withoutMaps(card: XdpProfile): XdpProfile {
  const { maps } = card.limits;
  const kinds = maps.kinds.filter(({ kind }) => kind !== 'hash');
  return withInsns({ ...card, limits: { ...card.limits, maps: { ...maps, kinds } } }, MOST_INSNS);
}

interface Row {
  readonly title: string;
  readonly file: string;
  readonly hook: AttachHook;
  readonly room: number;
  readonly predicted: number;
  readonly entries: number;
}

function compileJob({ sample, hook, profile: card, isPlaced }: Job): Result<XdpArtifact> {
  const ruleset = need(readJsonText(sample.json, sample.name));
  if (isPlaced !== true) return compileXdp(flatten(ruleset, facts).classifier, card, { hook });
  const placed = placeXdp({ ruleset, facts, concessions: [], replyPorts: null, hook }, card);
  if (!placed.ok) return placed;
  const { artifact, choice } = placed.value;
  console.error(`${sample.name}: ${choice?.chosen.size} chosen, ${choice?.leftOver.size} left`);
  return { ...placed, value: artifact };
}

/** A shell script that loads objects into a new card and prints what its compiler made of each. */
function loadingScript(own: readonly Row[]): string {
  const tries = own.map(({ file, hook }) => {
    const where =
      hook === 'xdp'
        ? `ip -force link set dev nfp0 xdpoffload obj ${file} sec xdp`
        : `tc filter replace dev nfp0 ingress pref 1 handle 1 protocol all bpf da skip_sw obj ${file} sec tc`;
    return `
${hook === 'xdp' ? 'tc qdisc del dev nfp0 clsact 2>/dev/null' : 'ip link set dev nfp0 xdpoffload off; tc qdisc replace dev nfp0 clsact'}
if ${where} 2>/run/said; then
  read length < /sys/kernel/debug/nfpsim/loaded_len; echo "${file} $length"
else
  echo "${file} refused $(grep -v '^$' /run/said | tail -n 4 | tr '\\n' ' ')"
fi`;
  });
  return `
echo ${own[0]?.room ?? 0} > /sys/module/nfpsim/parameters/max_len
echo nfp0 > /sys/module/nfpsim/parameters/create; ip link set dev nfp0 up
${tries.join('')}`;
}

const folder = mkdtempSync(join(process.cwd(), '.nfpsim-'));
const rows: Row[] = [];
const tooBig: string[] = [];
const said: string[] = [];
try {
  for (const job of jobs) {
    const { title, hook, profile: card } = job;
    const compiled = compileJob(job);
    if (!compiled.ok) {
      tooBig.push(`${title}: ${compiled.diagnostics.map(({ message }) => message).join('; ')}`);
      continue;
    }
    const used = (resource: string): number =>
      compiled.value.usage.find((usage) => usage.resource === resource)?.used ?? 0;
    const file = join(folder, `${rows.length}.o`);
    writeFileSync(file, compiled.value.elf);
    const room = job.room ?? roomOf(card);
    const [predicted, entries] = [used('device-insns'), used('map entries')];
    rows.push({ title, file, hook, room, predicted, entries });
  }
  for (const room of new Set(rows.map((row) => row.room))) {
    const script = loadingScript(rows.filter((row) => row.room === room));
    const { stdout } = await execa(program, [script], { stderr: 'inherit' });
    said.push(...stdout.split('\n'));
  }
} finally {
  rmSync(folder, { recursive: true });
}

const lines: string[] = [];
let refused = 0;
let wrong = 0;
let beyond = 0;
for (const { title, file, predicted, entries, room } of rows) {
  const answer = said.find((line) => line.startsWith(`${file} `)) ?? '';
  const real = Number(answer.split(' ')[1]);
  if (predicted > room) {
    beyond += 1;
    // By the driver, not by what is attached already or by a file that is not there.
    if (!Number.isNaN(real) || !answer.includes('failed to load: -22')) {
      refused += 1;
      console.error(`${title}: should be refused by the driver: ${answer}`);
    }
  } else if (Number.isNaN(real)) {
    refused += 1;
    console.error(`${title}: ${answer}`);
  } else wrong += Math.abs(predicted - real) / real;
  const error = Number.isNaN(real)
    ? predicted > room
      ? 'refused, as predicted'
      : 'refused'
    : `${(((predicted - real) / real) * 100).toFixed(1)} %`;
  lines.push(
    `| ${title} | ${predicted} | ${Number.isNaN(real) ? '-' : real} | ${error} | ${entries} |`,
  );
}
const within = rows.length - beyond;
const accepted = within - refused;
const mean = ((wrong / Math.max(1, accepted)) * 100).toFixed(2);
const text = `# NFP instructions, predicted and real

Accepted by the in-tree NFP verifier and compiler (Linux 6.1) under assumed firmware limits: ${accepted} of
${within} objects; mean error of the prediction ${mean} %. Made for a larger card and refused, as predicted: ${beyond}.
Made by scripts/nfpsim.ts.

| ruleset | predicted | real | error | map entries |
|---|---|---|---|---|
${lines.join('\n')}
${tooBig.map((line) => `\nToo big, as predicted: ${line}`).join('\n')}
`;
writeFileSync(join(import.meta.dirname, '../bench/NFP.md'), text);
console.log(text);
process.exitCode = refused === 0 ? 0 : 1;
