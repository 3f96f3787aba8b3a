import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { arp, ethernet, icmp, ipv4, ipv6, tcp, udp } from '../support/frames.ts';
import {
  type HookVerdict,
  hookVerdict,
  type KernelLab,
  openKernelLab,
  probeKernelLab,
} from '../support/kernel-lab.ts';
import { type LabHook, PLAIN_HOOKS } from '../support/lab-oracle.ts';
import { minimalXdpObject } from '../support/minimal-elf.ts';
import { makeFrames } from '../support/random-frames.ts';
import { makeRuleset } from '../support/rulesets.ts';
import { runCommand } from '../support/run-command.ts';

const obstacle = probeKernelLab();
const onKernel = it.skipIf(obstacle !== null);

let lab: KernelLab;

beforeAll(async () => {
  if (obstacle === null) lab = await openKernelLab({ router: true });
});

afterAll(async () => {
  await lab?.close();
});

it('says why the kernel cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

function chainOn(hook: LabHook, ...rules: readonly string[]): string {
  const family = hook === 'ingress' ? 'netdev' : 'inet';
  const device = hook === 'ingress' ? ' device "eth0"' : '';
  return `table ${family} t {
  counter named { }
  chain c {
    type filter hook ${hook}${device} priority 0; policy accept;
    ${rules.join('\n    ')}
  }
}`;
}

const web = ethernet({}, ipv4({}, tcp({ dport: 80 })));
const other = ethernet({}, ipv4({}, tcp({ dport: 81 })));
const web6 = ethernet({}, ipv6({}, tcp({ dport: 80 })));
const webBehind = ethernet({}, ipv4({ daddr: '10.0.1.77' }, tcp({ dport: 80 })));
const otherBehind = ethernet({}, ipv4({ daddr: '10.0.1.77' }, tcp({ dport: 81 })));

onKernel.each<readonly [LabHook, readonly HookVerdict[]]>([
  ['ingress', ['dropped', 'accepted', 'dropped', 'dropped', 'accepted', 'accepted']],
  ['prerouting', ['dropped', 'accepted', 'dropped', 'dropped', 'accepted', 'unreached']],
  ['input', ['dropped', 'accepted', 'dropped', 'unreached', 'unreached', 'unreached']],
  ['forward', ['unreached', 'unreached', 'unreached', 'dropped', 'accepted', 'unreached']],
])('sees what a rule drops at %s', async (hook, expected) => {
  await lab.loadRuleset(chainOn(hook, 'tcp dport 80 drop'));
  const frames = [web, other, web6, webBehind, otherBehind, ethernet({}, arp())];
  expect(await lab.nftVerdicts(frames, hook)).toEqual(expected);
});

onKernel('tells a drop at one hook from one at another', async () => {
  await lab.loadRuleset(chainOn('prerouting', 'tcp dport 80 drop'));
  const seen = await lab.observe([web]);
  expect(hookVerdict(seen, 0, 'ingress')).toBe('accepted');
  expect(hookVerdict(seen, 0, 'prerouting')).toBe('dropped');
  expect(hookVerdict(seen, 0, 'input')).toBe('unreached');
});

onKernel('refuses frames that AF_PACKET refuses', async () => {
  await lab.loadRuleset('');
  const frames = [new Uint8Array(13), new Uint8Array(2000), web];
  expect(await lab.nftVerdicts(frames, 'ingress')).toEqual(['unsent', 'unsent', 'accepted']);
});

onKernel('forwards nothing unless it is a router', async () => {
  const host = await openKernelLab();
  try {
    await host.loadRuleset('');
    const seen = await host.observe([webBehind, web]);
    expect(hookVerdict(seen, 0, 'prerouting')).toBe('accepted');
    expect(hookVerdict(seen, 0, 'forward')).toBe('unreached');
    expect(hookVerdict(seen, 1, 'input')).toBe('accepted');
  } finally {
    await host.close();
  }
});

onKernel('forgets connections with the ruleset that tracked them', async () => {
  const frame = ethernet({}, ipv4({}, udp({ dport: 4000 })));
  for (let round = 0; round < 2; round += 1) {
    await lab.loadRuleset(chainOn('input', 'ct mark 7 counter accept', 'ct mark set 7'));
    await lab.observe([frame, frame]);
    // Only the second frame finds an entry, the first one's.
    expect((await lab.counters()).map((reading) => reading.packets)).toEqual([0, 1]);
  }
});

onKernel('gives the same observation and counters twice', async () => {
  const { text, pool } = makeRuleset(42, { hooks: PLAIN_HOOKS });
  const frames = makeFrames(42, 5000, pool);
  const results = [];
  for (let round = 0; round < 2; round += 1) {
    await lab.loadRuleset(text);
    results.push({ observation: await lab.observe(frames), counters: await lab.counters() });
  }
  expect(results[1]).toEqual(results[0]);
});

// One line for each kind of row in the kernel facts: what ingress matches and which hooks it reaches.
onKernel.each<readonly [string, Uint8Array, string, HookVerdict, HookVerdict, HookVerdict]>([
  [
    'ihl 4',
    ethernet({}, ipv4({ ihl: 4 }, tcp())),
    'ip saddr 10.0.0.2',
    'dropped',
    'unreached',
    'unreached',
  ],
  [
    'ihl 4, L4',
    ethernet({}, ipv4({ ihl: 4 }, tcp())),
    'meta l4proto tcp',
    'accepted',
    'unreached',
    'unreached',
  ],
  [
    'version 5',
    ethernet({}, ipv4({ version: 5 }, tcp())),
    'meta l4proto tcp',
    'accepted',
    'unreached',
    'unreached',
  ],
  [
    'bad checksum',
    ethernet({}, ipv4({ checksum: 1 }, tcp())),
    'tcp dport 80',
    'dropped',
    'unreached',
    'unreached',
  ],
  [
    'vid 5',
    ethernet({ tags: [{ vid: 5 }] }, ipv4({}, tcp())),
    'vlan id 5 tcp dport 80',
    'dropped',
    'unreached',
    'unreached',
  ],
  [
    'vid 5, ether type',
    ethernet({ tags: [{ vid: 5 }] }, ipv4({}, tcp())),
    'ether type ip',
    'accepted',
    'unreached',
    'unreached',
  ],
  [
    'vid 0',
    ethernet({ tags: [{ vid: 0 }] }, ipv4({}, tcp())),
    'tcp dport 81',
    'accepted',
    'accepted',
    'accepted',
  ],
  [
    'QinQ',
    ethernet({ tags: [{ vid: 5 }, { vid: 6 }] }, ipv4({}, tcp())),
    'ip saddr 10.0.0.2',
    'accepted',
    'unreached',
    'unreached',
  ],
  [
    'RR option',
    ethernet({}, ipv4({ options: Uint8Array.of(7, 7, 4, 0, 0, 0, 0, 0) }, tcp())),
    'tcp dport 81',
    'accepted',
    'accepted',
    'accepted',
  ],
  [
    'LSRR option',
    ethernet({}, ipv4({ options: Uint8Array.of(131, 7, 4, 10, 0, 0, 9, 0) }, tcp())),
    'tcp dport 81',
    'accepted',
    'accepted',
    'unreached',
  ],
  [
    'later fragment',
    ethernet({}, ipv4({ fragmentOffset: 4 }, tcp())),
    'tcp dport 80',
    'dropped',
    'accepted',
    'unreached',
  ],
  [
    'foreign MAC',
    ethernet({ daddr: '02:11:11:11:11:11' }, ipv4({}, tcp())),
    'meta pkttype other',
    'dropped',
    'unreached',
    'unreached',
  ],
  [
    'own source',
    ethernet({}, ipv4({ saddr: '10.0.0.1' }, tcp())),
    'tcp dport 81',
    'accepted',
    'accepted',
    'unreached',
  ],
])('agrees with the measured facts: %s', async (_, frame, match, ingress, prerouting, input) => {
  // The rule stands at ingress; a second load without it tells which hooks the frame reaches.
  await lab.loadRuleset(chainOn('ingress', `${match} drop`));
  expect(await lab.nftVerdicts([frame], 'ingress')).toEqual([ingress]);
  await lab.loadRuleset('');
  const free = await lab.observe([frame]);
  expect(hookVerdict(free, 0, 'prerouting')).toBe(prerouting);
  expect(hookVerdict(free, 0, 'input')).toBe(input);
});

onKernel('reads and resets counters, anonymous and named', async () => {
  const rules = [
    'tcp dport 80 counter drop',
    'counter name "named"',
    'counter tcp dport 82 counter',
  ];
  await lab.loadRuleset(chainOn('input', ...rules));
  await lab.observe([web, other, other, ethernet({ padTo: 60 }, ipv4({}, icmp()))]);
  const read = (await lab.counters()).map(({ name, index, position, packets, bytes }) => ({
    ...{ name, index, position, packets, bytes },
  }));
  const anonymous = { name: null, position: 0 };
  expect(read).toEqual([
    { name: 'named', index: null, position: null, packets: 3, bytes: 108 },
    { ...anonymous, index: 0, packets: 1, bytes: 40 },
    { ...anonymous, index: 2, packets: 3, bytes: 108 },
    { ...anonymous, index: 2, position: 1, packets: 0, bytes: 0 },
  ]);
  await lab.resetCounters();
  expect((await lab.counters()).every((counter) => counter.packets === 0)).toBe(true);
});

onKernel('loses no frame of 20000 and keeps their order apart', async () => {
  await lab.loadRuleset(chainOn('ingress', 'udp dport 1000-1999 drop'));
  const frames = Array.from({ length: 20_000 }, (_, index) =>
    ethernet({}, ipv4({}, udp({ dport: index }))),
  );
  const verdicts = await lab.nftVerdicts(frames, 'ingress');
  const wrong = verdicts.findIndex(
    (verdict, port) => (verdict === 'dropped') !== (port >= 1000 && port <= 1999),
  );
  expect(wrong).toBe(-1);
  expect(verdicts).not.toContain('unreached');
});

onKernel('says what nft said', async () => {
  await expect(lab.loadRuleset('table inet t { nonsense }')).rejects.toThrow(/syntax error/);
});

// An insn is code u8, dst:4 src:4, offset s16, imm s32, little-endian (linux/bpf.h, struct bpf_insn).
function insn(code: number, dst: number, src: number, offset: number, imm: number): bigint {
  const high = BigInt(imm >>> 0) << 32n;
  return high | (BigInt(offset & 0xffff) << 16n) | BigInt((src << 12) | (dst << 8) | code);
}

/** XDP_DROP (1) for EtherType 0x86dd, else XDP_PASS (2). */
const DROP_IPV6 = [
  insn(0x61, 2, 1, 0, 0), // r2 = data
  insn(0x61, 3, 1, 4, 0), // r3 = data_end
  insn(0xbf, 4, 2, 0, 0), // r4 = r2
  insn(0x07, 4, 0, 0, 14), // r4 += 14
  insn(0xb7, 0, 0, 0, 2), // r0 = XDP_PASS
  insn(0x2d, 4, 3, 3, 0), // if r4 > r3 goto exit
  insn(0x69, 5, 2, 12, 0), // r5 = *(u16 *)(r2 + 12)
  insn(0x55, 5, 0, 1, 0xdd86), // if r5 != htons(0x86dd) goto exit
  insn(0xb7, 0, 0, 0, 1), // r0 = XDP_DROP
  insn(0x95, 0, 0, 0, 0), // exit
];

onKernel('runs, attaches and reads an XDP program', async () => {
  const scratch = await mkdtemp(join(tmpdir(), 'nfo-xdp-'));
  try {
    const object = join(scratch, 'drop-ipv6.o');
    await writeFile(object, minimalXdpObject(DROP_IPV6));
    const program = await lab.loadXdp(object);
    const frames = [web, web6, new Uint8Array(13), new Uint8Array(14)];
    expect([...(await lab.runXdp(program, frames))]).toEqual([2, 1, 255, 2]);

    const pin = join(program.mapDirectory, 'counts');
    const shape = 'type percpu_array key 4 value 8 entries 2 name counts'.split(' ');
    await runCommand('bpftool', ['map', 'create', pin, ...shape]);
    const elements = await lab.readMap(program, 'counts');
    expect(elements.map((element) => element.key[0])).toEqual([0, 1]);
    expect(elements[0]?.values).toContainEqual(new Uint8Array(8));

    await lab.loadRuleset(chainOn('input', 'tcp dport 81 drop'));
    const mixed = Array.from({ length: 999 }, (_, index) => [web, web6, other][index % 3] ?? web);
    for (const mode of ['native', 'generic'] as const) {
      for (const source of [object, program]) {
        await lab.attachXdp(source, mode);
        const seen = await lab.observe(mixed);
        await lab.detachXdp();
        const wrong = mixed.findIndex((frame, index) => {
          const reached = frame === web6 ? 'unreached' : 'accepted';
          const input = frame === web ? 'accepted' : frame === other ? 'dropped' : 'unreached';
          return (
            hookVerdict(seen, index, 'ingress') !== reached ||
            hookVerdict(seen, index, 'input') !== input
          );
        });
        expect(wrong).toBe(-1);
      }
    }
    expect(await lab.nftVerdicts([web6], 'input')).toEqual(['accepted']);
  } finally {
    await rm(scratch, { recursive: true });
  }
});
