import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readProgram } from '../../src/backends/cbpf/file-formats.ts';
import { loadProgram } from '../../src/backends/cbpf/interpret.ts';
import type { LinkType } from '../../src/backends/cbpf/meaning.ts';
import { parsePacket } from '../../src/ir/packet.ts';
import { sightOf } from '../support/cbpf-run.ts';
import { EMPTY_POOL } from '../support/frame-pool.ts';
import { probeKernelLab } from '../support/kernel-lab.ts';
import {
  LAB_MAC,
  type LabNamespaces,
  openLabNamespaces,
  runInside,
} from '../support/lab-network.ts';
import { unwrap } from '../support/pipeline.ts';
import { makeFrames } from '../support/random-frames.ts';
import { PROJECT, runCli } from '../support/run-cli.ts';
import { runPacketFilter } from '../support/socket-filter.ts';

const TOOLS = ['iptables', 'tc', 'tcpdump', 'python3'];

function probe(): string | null {
  const missing = TOOLS.find((tool) => spawnSync(tool, ['--version']).error !== undefined);
  return probeKernelLab() ?? (missing === undefined ? null : `needs ${missing}`);
}

const obstacle = probe();
const onKernel = it.skipIf(obstacle !== null);

let wire: LabNamespaces;
const folder = mkdtempSync(join(tmpdir(), 'nfo-places-'));
const path = join(folder, 'rules.nft');

function iptables(...args: readonly string[]): Promise<Buffer> {
  return runInside(wire.receiver, ['iptables', '-t', 'raw', ...args]);
}

beforeAll(async () => {
  if (obstacle !== null) return;
  wire = await openLabNamespaces(false);
  // Nothing is answered, so that nobody answers that.
  await iptables('-A', 'PREROUTING', '-i', 'eth0', '-j', 'DROP');
});

afterAll(async () => {
  await wire?.close();
  await rm(folder, { recursive: true });
});

it('says why the kernel cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

const RULES = ['tcp dport { 80, 443 } counter drop', 'ip saddr 10.0.0.64/26 drop'];

function writeRules(rules: readonly string[]): void {
  const hook = 'type filter hook ingress device "eth0" priority 0; policy accept;';
  writeFileSync(path, `table netdev t {\nchain c {\n${hook}\n${rules.join('\n')}\n}\n}\n`);
}

/** What the command line writes. */
async function compile(...options: readonly string[]) {
  return runCli(['compile', path, '--dev', 'eth0', '--target', 'cbpf', ...options]);
}

const POOL = { ...EMPTY_POOL, ports: [80, 443, 81] };
/** Sent to the lab, so that no frame is for another host. */
const FRAMES = makeFrames(5, 600, POOL, { odd: 0, tagged: 0.1 }).filter((frame) =>
  LAB_MAC.every((byte, at) => frame[at] === byte),
);

/** Sends frames to the lab's eth0. */
async function sendFrames(frames: readonly Uint8Array[]): Promise<void> {
  await runPacketFilter([{ kind: 'ret', value: 0 }], frames, wire);
}

/** Frames for which our interpreter returns `value`. */
function countReturned(
  text: string,
  value: number,
  frames: readonly Uint8Array[],
  linkType: LinkType,
): number {
  const machine = loadProgram(unwrap(readProgram(text, 'bytecode')));
  return frames.filter((frame) => {
    const sight = sightOf(frame, linkType, linkType === 'RAW' ? 'portable' : 'linux');
    return sight !== null && machine(sight.packet, sight.beside).value === value;
  }).length;
}

onKernel('iptables -m bpf matches what the program returns 1 for', async () => {
  writeRules(RULES);
  const options = ['--format', 'bytecode', '--return-drop', '1', '--return-continue', '0'];
  const { stdout, stderr } = await compile(
    '--linktype',
    'RAW',
    '--concede',
    'counters',
    ...options,
  );
  expect(stderr).toBe('');
  await iptables('-I', 'PREROUTING', '-i', 'eth0', '-m', 'bpf', '--bytecode', stdout.trim());
  await iptables('-I', 'PREROUTING', '-i', 'eth0');
  const ipv4 = FRAMES.filter((frame) => {
    const { l3, tags } = parsePacket(frame);
    return tags === 0 && l3?.nfproto === 2;
  });
  await sendFrames(ipv4);
  const rows = (await iptables('-L', 'PREROUTING', '-v', '-x', '-n')).toString().split('\n');
  const [all, matched] = rows.slice(2, 4).map((row) => Number(row.trim().split(/\s+/)[0]));
  await iptables('-D', 'PREROUTING', '1');
  await iptables('-D', 'PREROUTING', '1');
  expect(all).toBe(ipv4.length);
  expect(matched).toBe(countReturned(stdout, 1, ipv4, 'RAW'));
  expect(matched).toBeGreaterThan(20);
  expect(matched).toBeLessThan(all ?? 0);
});

/** TC_ACT_SHOT and TC_ACT_UNSPEC, include/uapi/linux/pkt_cls.h. */
const TC_RETURNS = ['--return-drop', '2', '--return-continue', '0xffffffff'];

interface ClsactStatistics {
  readonly kind: string;
  readonly drops: number;
}

onKernel('tc bpf bytecode drops what the program drops', async () => {
  writeRules(RULES);
  const options = ['--dialect', 'linux', '--concede', 'counters', '--format', 'bytecode'];
  const { stdout, stderr } = await compile(...options, ...TC_RETURNS);
  expect(stderr).toBe('');
  const tc = (...args: string[]) => runInside(wire.receiver, ['tc', ...args]);
  await tc('qdisc', 'add', 'dev', 'eth0', 'clsact');
  const where = ['filter', 'add', 'dev', 'eth0', 'ingress'];
  await tc(...where, 'bpf', 'bytecode', stdout.trim(), 'direct-action');
  await sendFrames(FRAMES);
  const said = (await tc('-s', '-j', 'qdisc', 'show', 'dev', 'eth0')).toString();
  // What tc prints.
  const statistics = JSON.parse(said) as readonly ClsactStatistics[];
  await tc('qdisc', 'del', 'dev', 'eth0', 'clsact');
  const dropped = statistics.find(({ kind }) => kind === 'clsact')?.drops;
  expect(dropped).toBe(countReturned(stdout, 2, FRAMES, 'EN10MB'));
  expect(dropped).toBeGreaterThan(40);
});

onKernel('says where a program is too long for, and there it is refused', async () => {
  const hosts = Array.from({ length: 2500 }, (_, i) => `10.${i >> 8}.${i & 255}.1`);
  writeRules([`ip saddr { ${hosts.join(', ')} } drop`]);
  const { stdout, stderr, exitCode } = await compile('--format', 'bytecode', '--dialect', 'linux');
  expect(exitCode).toBe(0);
  expect(stderr).toContain('xt_bpf takes 64 insns at most');
  expect(stderr).toContain('cls_bpf takes 2039 insns at most');
  const long = stdout.trim();
  const bpf = ['-A', 'INPUT', '-m', 'bpf', '--bytecode', long];
  await expect(runInside(wire.receiver, ['iptables', ...bpf])).rejects.toThrow(/exceeds maximum/);
  const filter = ['dev', 'eth0', 'ingress', 'bpf', 'bytecode', long, 'direct-action'];
  await runInside(wire.receiver, ['tc', 'qdisc', 'add', 'dev', 'eth0', 'clsact']);
  const adding = runInside(wire.receiver, ['tc', 'filter', 'add', ...filter]);
  await expect(adding).rejects.toThrow(/exceeded bound/);
  await runInside(wire.receiver, ['tc', 'qdisc', 'del', 'dev', 'eth0', 'clsact']);
});

onKernel('captures for tcpdump what one rule matches', async () => {
  writeRules(['ip saddr 10.0.0.64/26 drop', 'tcp dport { 80, 443 } counter accept']);
  const program = join(folder, 'filter');
  const { stderr } = await compile('--dialect', 'linux', '--match', 'tcp dport', '-o', program);
  expect(stderr).toBe('');
  const text = readFileSync(program, 'utf8');
  const machine = loadProgram(unwrap(readProgram(text, 'ddd')));
  const wanted = FRAMES.filter((frame) => {
    const sight = sightOf(frame, 'EN10MB', 'linux');
    return sight !== null && machine(sight.packet, sight.beside).value > 0;
  }).length;
  expect(wanted).toBeGreaterThan(20);
  const script = join(PROJECT, 'examples/capture.py');
  const capture = ['python3', script, 'eth0', program, String(wanted)];
  const child = spawn('nsenter', [`--net=/run/netns/${wire.receiver}`, ...capture]);
  const parts: Buffer[] = [];
  // The file's head comes once the filter is in its place.
  const attached = new Promise<void>((resolve) => child.stdout.once('data', () => resolve()));
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  child.stdout.on('data', (part: Buffer) => parts.push(part));
  await attached;
  await sendFrames(FRAMES);
  expect(await ended).toBe(0);
  const seen = execFileSync('tcpdump', ['-n', '-t', '-r', '-'], {
    input: Buffer.concat(parts),
    stdio: ['pipe', 'pipe', 'ignore'],
    encoding: 'utf8',
  });
  const lines = seen.trim().split('\n');
  expect(lines).toHaveLength(wanted);
  expect(lines.filter((line) => !/\.(80|443): Flags/.test(line))).toEqual([]);
});
