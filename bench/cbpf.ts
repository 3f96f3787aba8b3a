/**
 * Classic BPF beside libpcap's: instructions of a program, instructions executed and nanoseconds in the
 * kernel for each packet, and how long compiling takes: `npx tsx bench/cbpf.ts [--write] [--slow]`.
 * Needs root, nft, tcpdump and cc. `--slow` lets libpcap compile 2,000 hosts (a minute); `--write` puts
 * the tables into bench/RESULTS.md. Exits 1 when a program is longer than libpcap's of the same meaning.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { CBPF_DEFAULTS, type CbpfOptions, compileCbpf } from '../src/backends/cbpf/compile.ts';
import { readProgram, writeProgram } from '../src/backends/cbpf/file-formats.ts';
import type { Insn } from '../src/backends/cbpf/insn.ts';
import { loadProgram } from '../src/backends/cbpf/interpret.ts';
import { nothingKnown } from '../src/ir/facts.ts';
import { flatten } from '../src/ir/flatten.ts';
import { parsePacket } from '../src/ir/packet.ts';
import type { Ruleset } from '../src/ir/ruleset.ts';
import { readRuleset } from '../src/nft/read.ts';
import { parseIp, parseIp6 } from '../test/support/addresses.ts';
import { loadCbpfProfile } from '../test/support/cbpf-run.ts';
import { EMPTY_POOL, type FramePool } from '../test/support/frame-pool.ts';
import { buildLabHelper, packFrames } from '../test/support/lab-helper.ts';
import { unwrap } from '../test/support/pipeline.ts';
import { makeFrames } from '../test/support/random-frames.ts';
import {
  type ComparedFilter,
  FILTERS,
  makeHosts,
  source,
  writeRuleset,
  writeSoundly,
} from './cbpf-filters.ts';
import { median, writeSection } from './results.ts';

const { values } = parseArgs({
  options: {
    write: { type: 'boolean', default: false },
    slow: { type: 'boolean', default: false },
  },
});

/** Frames of each kind that answers are compared on, and that are timed. */
const COMPARED = 20_000;
const TIMED = 1000;
const ROUNDS = 15;
const FACTS = { ...nothingKnown('eth0'), groOff: true, rxVlanOff: true };
/** As tcpdump: 0 for what the filter does not select. */
const CAPTURE: CbpfOptions = { ...CBPF_DEFAULTS, returns: { drop: 262_144, continue: 0 } };

const profile = await loadCbpfProfile();
const folder = mkdtempSync(join(tmpdir(), 'nfo-bench-'));
const timer = await buildLabHelper(join(import.meta.dirname, 'cbpf-time.c'));

async function readText(text: string): Promise<Ruleset> {
  const path = join(folder, 'rules.nft');
  writeFileSync(path, text);
  return unwrap(await readRuleset({ kind: 'file', path }));
}

function compilePcap(expression: string): readonly Insn[] {
  const path = join(folder, 'filter.pcap');
  writeFileSync(path, expression);
  const text = execFileSync('tcpdump', ['-y', 'EN10MB', '-ddd', '-F', path], {
    stdio: ['ignore', 'pipe', 'ignore'],
    encoding: 'utf8',
  });
  return unwrap(readProgram(text, 'ddd'));
}

function compileRules(ruleset: Ruleset, frames: CbpfOptions['frames']): readonly Insn[] {
  const { classifier } = flatten(ruleset, FACTS);
  return unwrap(compileCbpf(classifier, profile, { ...CAPTURE, frames })).insns;
}

/** The addresses and ports that a filter names. */
function poolOf({ pcap }: ComparedFilter): FramePool {
  const dotted = pcap.match(/\b\d+\.\d+\.\d+\.\d+\b/g) ?? [];
  const colons = pcap.match(/\b[0-9a-f]+:[0-9a-f:]*:[0-9a-f]*\b/g) ?? [];
  const ports = pcap.match(/(?<=port |portrange )\d+/g) ?? [];
  return {
    ...EMPTY_POOL,
    ip: dotted.map(parseIp),
    ip6: colons.filter((text) => text.includes('::')).map(parseIp6),
    ports: ports.map(Number),
    vlans: [100],
  };
}

/** Half of the packets carry values that the filter names. */
function mixFrames(filter: ComparedFilter, count: number, odd: number): readonly Uint8Array[] {
  const mix = { odd, tagged: odd > 0 ? 0.3 : 0 };
  const named = makeFrames(1, count / 2, poolOf(filter), mix);
  return [...named, ...makeFrames(2, count / 2, EMPTY_POOL, mix)];
}

/** Frames that are as libpcap takes all to be; `tagged` ones too where the filter asks for tags. */
function isPlain(frame: Uint8Array, { tagged }: ComparedFilter): boolean {
  const { odd, ingress, tags } = parsePacket(frame);
  const next = ingress.nfproto === 10 ? (frame[ingress.network + 6] ?? 0) : 6;
  const isWhole = ingress.transport === null || ingress.end - ingress.transport >= 20;
  const isExtended = [0, 43, 44, 51, 60].includes(next);
  return odd === null && isWhole && !isExtended && (tags === 0 || tagged === true);
}

/** Frames on which two programs answer differently. */
function countDifferent(one: readonly Insn[], two: readonly Insn[], frames: readonly Uint8Array[]) {
  const [first, second] = [loadProgram(one), loadProgram(two)];
  return frames.filter((frame) => first(frame).value > 0 !== second(frame).value > 0).length;
}

function countExecuted(insns: readonly Insn[], frames: readonly Uint8Array[]): number {
  const machine = loadProgram(insns);
  return frames.reduce((sum, frame) => sum + machine(frame).executed, 0) / frames.length;
}

const NOTHING: readonly Insn[] = [{ kind: 'ret', value: 0 }];

/** Nanoseconds that each program takes for a frame in the kernel. */
function timePrograms(programs: readonly (readonly Insn[])[], frames: readonly Uint8Array[]) {
  const paths = [NOTHING, ...programs].map((insns, index) => {
    const path = join(folder, `program${index}`);
    const silent = insns.map((insn) => (insn.kind === 'ret' ? { ...insn, value: 0 } : insn));
    writeFileSync(path, writeProgram(silent, 'ddd'));
    return path;
  });
  const said = execFileSync(timer, [String(ROUNDS), ...paths], {
    input: packFrames(frames),
    encoding: 'utf8',
  });
  const [nothing = 0, ...took] = said.trim().split('\n').map(Number);
  return took.map((one) => one - nothing);
}

interface Compared {
  readonly name: string;
  readonly sizes: readonly number[];
  readonly executed: readonly number[];
  readonly nanoseconds: readonly number[];
  /** On plain frames: ours and libpcap's filter as given, and like with like; then sound, on odd ones. */
  readonly different: readonly number[];
}

async function compareFilter(filter: ComparedFilter): Promise<Compared> {
  const ruleset = await readText(writeRuleset(filter));
  const programs = [
    compilePcap(filter.pcap),
    compilePcap(filter.exact ?? filter.pcap),
    compileRules(ruleset, 'well-formed'),
    compilePcap(writeSoundly(filter)),
    compileRules(ruleset, 'any'),
  ] as const;
  const [pcap, exact, plain, sound, any] = programs;
  const odd = mixFrames(filter, COMPARED, 0.6);
  const whole = odd.filter((frame) => isPlain(frame, filter));
  const timed = mixFrames(filter, TIMED, 0);
  return {
    name: filter.name,
    sizes: programs.map(({ length }) => length),
    executed: programs.map((insns) => countExecuted(insns, timed)),
    nanoseconds: timePrograms(programs, timed),
    different: [
      countDifferent(pcap, plain, odd),
      countDifferent(exact, plain, whole),
      countDifferent(sound, any, odd),
    ],
  };
}

function sums(rows: readonly Compared[], key: 'sizes' | 'executed' | 'nanoseconds'): number[] {
  return [0, 1, 2, 3, 4].map((at) => rows.reduce((sum, row) => sum + (row[key][at] ?? 0), 0));
}

function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const lines = [head, head.map(() => '---'), ...rows];
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

const HEAD = ['filter', 'libpcap', 'like for like', 'ours', 'libpcap, sound', 'ours, sound'];

function writeSizes(rows: readonly Compared[]): string {
  const cells = rows.map(({ name, sizes, different }) => [name, ...sizes, ...different]);
  const all = ['**all**', ...sums(rows, 'sizes'), '', '', ''];
  return table([...HEAD, 'differ as given', 'differ', 'differ, sound'], [...cells, all]);
}

function writeMeans(rows: readonly Compared[], key: 'executed' | 'nanoseconds'): string {
  const show = (numbers: readonly number[]): string[] => numbers.map((one) => one.toFixed(1));
  const mean = sums(rows, key).map((sum) => sum / rows.length);
  const cells = rows.map((row) => [row.name, ...show(row[key])]);
  return table(HEAD, [...cells, ['**mean**', ...show(mean)]]);
}

/** Milliseconds of processor time from ruleset to program, median of 9 after 3, and instructions. */
function timeCompile(ruleset: Ruleset): readonly [time: string, size: string] {
  const times: number[] = [];
  let size = '';
  for (let run = 0; run < 12; run += 1) {
    const start = process.cpuUsage();
    const { classifier } = flatten(ruleset, FACTS);
    const compiled = compileCbpf(classifier, profile, CAPTURE);
    const { user, system } = process.cpuUsage(start);
    if (run >= 3) times.push((user + system) / 1000);
    size = compiled.ok ? String(compiled.value.insns.length) : 'too many';
  }
  return [median(times).toFixed(0), size];
}

async function compareCompiling(count: number): Promise<readonly (string | number)[]> {
  const hosts = makeHosts(count, 8);
  const oneByOne = hosts.map((host) => `ip saddr ${host}`);
  const filter: ComparedFilter = {
    name: `${count} hosts`,
    pcap: hosts.map((host) => `src host ${host}`).join(' or '),
    rules: source(`{ ${hosts.join(', ')} }`),
  };
  const rules = timeCompile(await readText(writeRuleset({ ...filter, rules: oneByOne })));
  const set = timeCompile(await readText(writeRuleset(filter)));
  if (count > (values.slow ? 2000 : 1000)) return [count, ...rules, ...set, '-', '-'];
  const start = performance.now();
  const { length } = compilePcap(filter.pcap);
  return [count, ...rules, ...set, (performance.now() - start).toFixed(0), length];
}

const rows: Compared[] = [];
for (const filter of FILTERS) {
  rows.push(await compareFilter(filter));
  console.error(
    rows.at(-1)?.name,
    ...(rows.at(-1)?.sizes ?? []),
    ...(rows.at(-1)?.different ?? []),
  );
}
const compiling: (readonly (string | number)[])[] = [];
for (const count of [250, 500, 1000, 2000, 3000]) compiling.push(await compareCompiling(count));
rmSync(folder, { recursive: true });

const [pcap = 0, exact = 0, ours = 0, soundPcap = 0, sound = 0] = sums(rows, 'sizes');
const less = (one: number, other: number): string => `${((1 - one / other) * 100).toFixed(1)} %`;
const longer = rows.filter(({ sizes: [given = 0, like = 0, mine = 0, given2 = 0, mine2 = 0] }) => {
  return mine > given || mine > like || mine2 > given2;
});
const body = `Instructions of programs for ${FILTERS.length} filters (bench/cbpf-filters.ts), by \`npx tsx bench/cbpf.ts\`.

- \`libpcap\`: \`tcpdump -ddd\` of the filter as one writes it. \`like for like\`: the same narrowed to what the
  nft rules mean (no look behind IPv6 fragment headers, no EtherType 0x9100). \`ours\`: \`--frames well-formed\`, which
  takes headers for whole and true as libpcap does.
- \`sound\`: what may stand in front of a firewall, both ways: headers are checked as nft checks them, one VLAN tag
  makes no difference. libpcap is told so in its own language.
- \`differ\`: of ${COMPARED} frames (60 of 100 odd, half with values of the filter), those that libpcap's filter as given and
  ours answer differently; of the well-formed ones among them, like for like; and of all, sound against sound. What is left
  there: frames with a length for EtherType and transport headers that are cut are handed on by ours and matched by libpcap, and
  IPv4 headers that are cut behind the address asked for are matched by ours, as nft does.

${writeSizes(rows)}

Ours is ${less(ours, pcap)} below libpcap, ${less(ours, exact)} like for like, ${less(sound, soundPcap)} where both are sound; longer on ${longer.length} of ${rows.length}.

Instructions executed for a packet (${TIMED} well-formed ones, half with values of the filter):

${writeMeans(rows, 'executed')}

Nanoseconds for a packet in the kernel (the same packets shown to packet sockets, less what an empty program takes):

${writeMeans(rows, 'nanoseconds')}

Milliseconds of processor time from a ruleset in memory to the program, medians of 9, for source hosts: \`ip saddr A drop\` for
each, and a set that is asked for the source of ARP too, as \`src host A or ...\` is; that is what tcpdump, a process, is given.

${table(['hosts', 'rules: ms', 'insns', 'set: ms', 'insns', 'libpcap: ms', 'insns'], compiling)}
`;
if (values.write) writeSection('Classic BPF beside libpcap', body);
else console.log(body);
if (longer.length > 0) {
  console.error(`longer than libpcap's: ${longer.map(({ name }) => name).join(', ')}`);
  process.exitCode = 1;
}
