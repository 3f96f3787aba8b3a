/**
 * Nanoseconds a packet of XDP programs on mixed traffic: `npm run bench -- xdp [MOST_RULES]`. Needs
 * root and bpftool. Rulesets are generated; ClassBench ones are added where ../shared/data/classbench
 * is there. Medians of six runs of 300,000 packets of 16,384 distinct ones; the table is also written
 * to bench/RESULTS.md.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CompileOptions, compileXdp } from '../src/backends/ebpf-offload/compile.ts';
import type { BpfObject } from '../src/backends/ebpf-offload/elf.ts';
import { exit, mov, r0, XDP } from '../src/backends/ebpf-offload/insn.ts';
import type { Classifier } from '../src/ir/classifier.ts';
import { prepare } from '../src/ir/evaluate.ts';
import { flatten } from '../src/ir/flatten.ts';
import { boxesOf } from '../src/ir/match-boxes.ts';
import { parsePacket } from '../src/ir/packet.ts';
import type { Ruleset } from '../src/ir/ruleset.ts';
import { readRuleset } from '../src/nft/read.ts';
import { readJsonText } from '../src/nft/ruleset-json.ts';
import { mixFrames } from '../test/support/rule-frames.ts';
import { writeSection } from './results.ts';
import { fillKeys, handHash, handLpm, PARSE_ONLY } from './xdp-hand.ts';
import { countAgreed, FRAMES, measure, objectOf } from './xdp-harness.ts';
import { FACTS, loadNative, need } from './xdp-native.ts';
import { KINDS, makeRules } from './xdp-rules.ts';

const CLASSBENCH = join(import.meta.dirname, '../../shared/data/classbench');
const FAMILIES = ['acl1', 'acl4', 'fw1', 'fw4', 'ipc1'];
const SIZES = [10, 100, 1_000, 10_000, 100_000];
/** Rules up to which every kind is measured; beyond, those that compile within seconds. */
const MOST_MIXED = 10_000;
/** Rules up to which asking one after the other is measured. */
const MOST_LINEAR = 1_000;
const IP4_STRIDE = 64;
const IP6_STRIDE = 128;

const profile = await loadNative();
const most = Number(process.argv[3] ?? SIZES.at(-1));

/** A ClassBench file as rules at ingress of eth0; null where there is none. */
async function readClassbench(name: string): Promise<Ruleset | null> {
  const path = join(CLASSBENCH, `${name}.nft`);
  if (!existsSync(path)) return null;
  const text = readFileSync(path, 'utf8')
    .replace(/table \w+ cb/, 'table netdev cb')
    .replace('hook forward priority 0', 'hook ingress device "eth0" priority 0');
  const directory = mkdtempSync(join(tmpdir(), 'nft-offload-bench-'));
  try {
    writeFileSync(join(directory, 'rules.nft'), text);
    return need(await readRuleset({ kind: 'file', path: join(directory, 'rules.nft') }));
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const STRUCTURES: Readonly<Record<string, CompileOptions>> = {
  tree: { structure: 'tree' },
  code: { structure: 'code' },
  linear: { structure: 'code', decision: { leafRules: Number.MAX_SAFE_INTEGER, copies: 0 } },
};

const rows: string[] = [];

function report(cells: readonly (string | number)[]): void {
  rows.push(`| ${cells.join(' | ')} |`);
  console.log(cells.join('  '));
}

/** A program's line; `base` is the bare harness in the same run. */
function line(
  name: string,
  rules: number,
  structure: string,
  { ns: [median, least, top], load }: ReturnType<typeof measure>,
  base: number,
  rest: readonly (string | number)[],
): void {
  report([
    name,
    rules,
    structure,
    median,
    median - base,
    `${least}-${top}`,
    load.toFixed(0),
    ...rest,
  ]);
}

function keysOf({ entries }: Classifier, kind: string): number[][] {
  return entries.flatMap(({ tests, rule }) => {
    if (rule === null) return [];
    const asked = tests.flatMap((test) => boxesOf(test)?.[0] ?? []);
    const source = asked.find(({ field }) => field.name === 'ip saddr');
    const port = asked.find(({ field }) => field.name === 'tcp dport');
    if (source === undefined) return [];
    const bytes = [24, 16, 8, 0].map((shift) => Number((source.lo >> BigInt(shift)) & 0xffn));
    if (kind === 'prefix') {
      const length = 32 - (source.hi - source.lo).toString(2).replace(/^0$/, '').length;
      return [[length, 0, 0, 0, ...bytes]];
    }
    const value = Number(port?.lo ?? 0n);
    return [[...bytes, value >> 8, value & 0xff, 0, 0]];
  });
}

function benchRules(name: string, ruleset: Ruleset, isIp6: boolean): void {
  const { classifier } = flatten(ruleset, FACTS);
  const count = classifier.entries.filter(({ rule }) => rule !== null).length;
  const frames = mixFrames(classifier, FRAMES, isIp6);
  const stride = isIp6 ? IP6_STRIDE : IP4_STRIDE;
  const reference = prepare(classifier, { mode: 'kernel', mac: null });
  const dropped = (frame: Uint8Array): boolean => reference(parsePacket(frame)).verdict === 'drop';
  const agree = (object: BpfObject, fill: string | null = null): string => {
    const { agreed, dropped: drops, looked } = countAgreed(object, frames, dropped, fill);
    return `${agreed} of ${looked} (${drops})`;
  };
  const bare = measure(objectOf([mov(r0, XDP.pass), exit()]), frames, stride);
  const base = bare.ns[0];
  line(name, count, 'bare', bare, base, [2, '', '', '']);
  if (!isIp6)
    line(name, count, 'parse', measure(PARSE_ONLY, frames, stride), base, ['', '', '', '']);
  if (name === 'exact' || name === 'prefix') {
    const keys = keysOf(classifier, name);
    const hand = (name === 'exact' ? handHash : handLpm)(keys.length);
    const measured = measure(hand, frames, stride, fillKeys(keys));
    const agreed = agree(hand, fillKeys(keys));
    line(name, count, name === 'exact' ? 'hand hash' : 'hand LPM', measured, base, [
      '',
      '',
      '',
      agreed,
    ]);
  }
  for (const [structure, options] of Object.entries(STRUCTURES)) {
    if (structure !== 'tree' && count > MOST_LINEAR) continue;
    const start = process.cpuUsage();
    const { assembly, object } = need(compileXdp(classifier, profile, options));
    const { user, system } = process.cpuUsage(start);
    const bytes = object.data.reduce((sum, { content }) => sum + content.length, 0);
    const measured = measure(object, frames, stride);
    const build = ((user + system) / 1000).toFixed(0);
    line(name, count, structure, measured, base, [
      assembly.lines.length,
      build,
      bytes,
      agree(object),
    ]);
  }
}

for (const size of SIZES.filter((one) => one <= most)) {
  for (const kind of KINDS) {
    if (kind === 'mixed' && size > MOST_MIXED) continue;
    benchRules(kind, need(readJsonText(makeRules(kind, size), 'bench.json')), false);
  }
  if (size > MOST_MIXED) continue;
  benchRules('mixed, IPv6', need(readJsonText(makeRules('mixed', size, true), 'bench.json')), true);
  for (const family of FAMILIES) {
    const ruleset = await readClassbench(`${family}_${size}`);
    if (ruleset !== null) benchRules(family, ruleset, false);
  }
}

writeSection(
  'XDP, nanoseconds a packet',
  `By \`npm run bench -- xdp\`: BPF_PROG_TEST_RUN on mixed traffic (four frames in five meet a random rule, \`net\` is
without the bare harness of the same ruleset), medians of six runs. \`build\` is processor time from a classifier to an object, \`load\` bpftool's wall time.
Generated rules count, ClassBench's do not. \`as the reference\`: of the first frames, how many the measured program (without the harness)
decides as the evaluator of rules does, and how many it drops. A hand-written program keeps one rule a key, so it may differ where rules overlap.

| rules | number | program | ns | net | range | load ms | instructions | build ms | data bytes | as the reference |
|---|---|---|---|---|---|---|---|---|---|---|
${rows.join('\n')}`,
);
