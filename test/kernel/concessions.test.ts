import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Concession } from '../../src/ir/concede.ts';
import { placeXdp } from '../../src/plan/place.ts';
import { loadProfile } from '../../src/profile/load.ts';
import { withElfFile } from '../support/elf-file.ts';
import { ethernet, ipv4, tcp, udp } from '../support/frames.ts';
import {
  hookVerdict,
  type KernelLab,
  openKernelLab,
  probeKernelLab,
} from '../support/kernel-lab.ts';
import { labFacts, readLabRuleset, unwrap } from '../support/pipeline.ts';

// `syn-is-new` and `reply-ports` are about flows: test/kernel/flows.test.ts.

const obstacle = probeKernelLab();
const onKernel = it.skipIf(obstacle !== null);

let lab: KernelLab;

beforeAll(async () => {
  if (obstacle === null) lab = await openKernelLab();
});

afterAll(async () => {
  await lab?.close();
});

function chain(...rules: readonly string[]): string {
  return `table inet t {
  chain c {
    type filter hook prerouting priority 0; policy accept;
    ${rules.join('\n    ')}
  }
}`;
}

const bad = { saddr: '203.0.113.5' };
const badSsh = ethernet({}, ipv4(bad, tcp({ dport: 22 })));
const badDns = ethernet({}, ipv4(bad, udp({ dport: 53 })));
const goodSsh = ethernet({}, ipv4({}, tcp({ dport: 22 })));
const goodDns = ethernet({}, ipv4({}, udp({ dport: 53 })));

const repeat = (frame: Uint8Array, count: number) => Array.from({ length: count }, () => frame);
const FRAMES = [...repeat(badSsh, 8), ...repeat(badDns, 8), ...repeat(goodSsh, 8), goodDns];

async function readCounted(): Promise<readonly number[]> {
  return (await lab.counters()).map(({ packets }) => packets);
}

/** Which frames the program drops, and which the hook lets through without it and with it. */
async function compare(text: string, concessions: readonly Concession[]) {
  await lab.loadRuleset(text);
  const ruleset = await readLabRuleset(lab);
  const facts = { ...labFacts('host'), rpFilterOff: false };
  const profile = unwrap(await loadProfile('xdp-native'));
  const situation = { ruleset, facts, concessions, replyPorts: null };
  const { artifact, compiled } = unwrap(placeXdp(situation, profile));
  const run = compiled.interpret();
  const dropped = FRAMES.map((frame) => run(frame) === 'drop');
  const passes = async (): Promise<readonly boolean[]> => {
    const seen = await lab.observe(FRAMES);
    return FRAMES.map((_, index) => hookVerdict(seen, index, 'prerouting') === 'accepted');
  };
  const before = await passes();
  const counted = await readCounted();
  await lab.resetCounters();
  const after = await withElfFile(artifact.elf, async (path) => {
    await lab.attachXdp(path, 'native');
    try {
      const passed = await passes();
      // Nothing is counted that would not have been.
      for (const [at, packets] of (await readCounted()).entries()) {
        expect(packets).toBeLessThanOrEqual(counted[at] ?? 0);
      }
      return passed;
    } finally {
      await lab.detachXdp();
    }
  });
  return { dropped, before, after };
}

const NOTHING = FRAMES.map(() => false);
const FROM_BAD = [...repeat(badSsh, 8), ...repeat(badDns, 8)].length;
const BAD = FRAMES.map((_, at) => at < FROM_BAD);
const BAD_DNS = FRAMES.map((_, at) => at >= 8 && at < FROM_BAD);

onKernel.each<readonly [Concession, string, readonly boolean[]]>([
  ['log', chain('ip saddr 203.0.113.0/24 log prefix "x " drop'), BAD],
  ['log', chain('udp dport 53 log', 'ip saddr 203.0.113.0/24 udp dport 53 drop'), BAD_DNS],
  ['reject-as-drop', chain('ip saddr 203.0.113.0/24 reject'), BAD],
  ['counters', chain('meta mark 7 drop', 'ip saddr 203.0.113.0/24 counter drop'), BAD],
])('%s moves a drop and changes no packet\u2019s fate', async (name, text, wanted) => {
  const without = await compare(text, []);
  expect(without.dropped).toEqual(NOTHING);
  const granted = await compare(text, [name]);
  expect(granted.dropped).toEqual(wanted);
  expect(granted.after).toEqual(granted.before);
  expect(wanted.filter((isDropped, at) => isDropped && granted.before[at])).toEqual([]);
});

const LATER = 'ip saddr 203.0.113.0/24 drop';

onKernel.each([
  'tcp dport 22 limit rate over 1/hour burst 6 packets drop',
  'tcp dport 22 limit rate over 1/hour burst 6 packets reject',
  'tcp dport 22 limit rate 1/hour burst 6 packets counter',
])('limit-as-accept lets through more of the others: %s', async (rule) => {
  const text = chain(rule, LATER);
  expect((await compare(text, [])).dropped).toEqual(BAD_DNS);
  const { dropped, before, after } = await compare(text, [
    'limit-as-accept',
    'counters',
    'reject-as-drop',
  ]);
  expect(dropped).toEqual(BAD);
  // Nobody who got through before is dropped now.
  expect(before.filter((passed, at) => passed && after[at] === false)).toEqual([]);
  if (!rule.includes('over')) return;
  expect(before.slice(FROM_BAD, FROM_BAD + 8).filter(Boolean)).toHaveLength(0);
  expect(after.slice(FROM_BAD, FROM_BAD + 8).filter(Boolean)).toHaveLength(6);
});

// In these a packet within the limit is worse off: the kernel shows it, so nothing may move.
onKernel.each([
  'tcp dport 22 limit rate 1/hour burst 6 packets drop',
  'tcp dport 22 limit rate over 1/hour burst 6 packets accept',
  'tcp dport 22 limit rate 1 kbytes/hour burst 400 bytes drop',
  'tcp dport 22 meter m { ip daddr limit rate over 1/hour burst 6 packets } drop',
])('limit-as-accept moves nothing behind %s', async (rule) => {
  const { dropped, before, after } = await compare(chain(rule, LATER), ['limit-as-accept']);
  expect(dropped).toEqual(BAD_DNS);
  expect(after).toEqual(before);
});

onKernel('a limit that drops what is within it would drop more of the others', async () => {
  const limit = 'tcp dport 22 limit rate 1/hour burst 6 packets drop';
  // As if the later rule had been moved before the limit.
  const passed = async (...rules: readonly string[]) => {
    await lab.loadRuleset(chain(...rules));
    const seen = await lab.observe(FRAMES);
    return FRAMES.filter(
      (frame, at) => frame === goodSsh && hookVerdict(seen, at, 'prerouting') === 'accepted',
    ).length;
  };
  expect(await passed(limit, LATER)).toBe(8);
  expect(await passed(LATER, limit)).toBe(2);
});
