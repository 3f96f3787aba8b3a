import { afterAll, beforeAll, expect, it } from 'vitest';
import { compareWithKernel, formatDifferences, stopReassembly } from '../support/compare.ts';
import { FEATURES, type FeatureRuleset } from '../support/feature-rulesets.ts';
import type { FramePool } from '../support/frame-pool.ts';
import { EMPTY_POOL } from '../support/frame-pool.ts';
import { ethernet, icmp, ipv4, tcp, udp } from '../support/frames.ts';
import { type KernelLab, openKernelLab, probeKernelLab } from '../support/kernel-lab.ts';
import { labFacts } from '../support/pipeline.ts';
import { createRandom } from '../support/random.ts';
import { makeFrames } from '../support/random-frames.ts';

const obstacle = probeKernelLab();
const onKernel = it.skipIf(obstacle !== null);

let host: KernelLab;
let router: KernelLab;

beforeAll(async () => {
  if (obstacle !== null) return;
  host = await openKernelLab();
  router = await openKernelLab({ router: true });
  await stopReassembly(host);
  await stopReassembly(router);
});

afterAll(async () => {
  await host?.close();
  await router?.close();
});

it('says why the kernel cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

const POOL: FramePool = {
  ...EMPTY_POOL,
  ports: [22, 53, 80, 443, 1024, 2000, 8080],
  protocols: [1, 6, 17, 51, 58],
  vlans: [0, 5, 7, 100],
  icmpTypes: [8, 128],
};

const ROLES = { ingress: null, host: 'host', router: 'router' } as const;

async function expectNoDifference(
  { place, text }: Pick<FeatureRuleset, 'place' | 'text'>,
  frames: readonly Uint8Array[],
  profile: string,
): Promise<number> {
  const facts = labFacts(ROLES[place]);
  const lab = place === 'router' ? router : host;
  const options = { facts, frames, complete: true, profile };
  const comparison = await compareWithKernel(lab, text, options);
  expect(formatDifferences(comparison.differences)).toBe('');
  return comparison.programDrops;
}

onKernel.each(
  FEATURES.flatMap((feature) =>
    ['xdp-native', 'netdevsim', 'agilio'].map(
      (profile) => [feature.name, profile, feature] as const,
    ),
  ),
)('%s (%s)', async (name, profile, feature) => {
  const frames = makeFrames(name.length, 4000, POOL);
  expect(await expectNoDifference(feature, frames, profile)).toBeGreaterThan(0);
});

function chain(declaration: string, rule: string): string {
  return `table netdev t {
  ${declaration}
  chain c {
    type filter hook ingress device "eth0" priority 0; policy accept;
    ${rule} counter drop
  }
}`;
}

function formatQuad(value: number): string {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 0xff).join('.');
}

onKernel('100,000 addresses in a set', { timeout: 120_000 }, async () => {
  const random = createRandom(1);
  const members = [...new Set(Array.from({ length: 100_000 }, () => random.next()))];
  const set = `set big { type ipv4_addr; elements = { ${members.map(formatQuad).join(', ')} }; }`;
  const pool = members.slice(0, 2000).map((value) => formatQuad(value));
  const frames = [...pool, ...Array.from({ length: 2000 }, () => formatQuad(random.next()))].map(
    (saddr) => ethernet({}, ipv4({ saddr }, udp())),
  );
  const text = chain(set, 'ip saddr @big');
  const drops = await expectNoDifference({ place: 'ingress', text }, frames, 'xdp-native');
  expect(drops).toBeGreaterThanOrEqual(2000);
});

onKernel.each(['xdp-native', 'netdevsim', 'agilio'])(
  '5,000 prefixes in a set (%s)',
  async (profile) => {
    const random = createRandom(2);
    const group = () => random.below(0x10000).toString(16);
    const prefixes = [...new Set(Array.from({ length: 5000 }, () => `2001:db8:${group()}`))].map(
      (prefix, index) => [prefix, index % 2 === 0 ? `${prefix}::/48` : `${prefix}:8000::/49`],
    );
    const elements = prefixes.map(([, element]) => element).join(', ');
    const text = chain(
      `set big { type ipv6_addr; flags interval; elements = { ${elements} }; }`,
      'ip6 saddr @big',
    );
    const ip6 = prefixes.slice(0, 1000).map(([prefix]) => {
      const bytes = new Uint8Array(16);
      for (const [at, word] of `${prefix}`.split(':').entries()) {
        new DataView(bytes.buffer).setUint16(2 * at, Number.parseInt(word, 16));
      }
      bytes[6] = random.below(256);
      bytes[7] = random.below(256);
      return bytes;
    });
    const frames = makeFrames(2, 8000, { ...EMPTY_POOL, ip6 }, { odd: 0 });
    const drops = await expectNoDifference({ place: 'ingress', text }, frames, profile);
    expect(drops).toBeGreaterThan(500);
  },
);

onKernel.each(['xdp-native', 'netdevsim', 'agilio'])(
  '2,000 concatenations (%s)',
  async (profile) => {
    const random = createRandom(3);
    const members = Array.from({ length: 2000 }, () => {
      return [`10.0.${random.below(4)}.${random.below(256)}`, random.below(0x10000)] as const;
    });
    const elements = [...new Set(members.map(([ip, port]) => `${ip} . ${port}`))].join(', ');
    const text = chain(
      `set big { type ipv4_addr . inet_service; elements = { ${elements} }; }`,
      'ip saddr . tcp dport @big',
    );
    const frames = members.flatMap(([saddr, dport], index) => [
      ethernet({}, ipv4({ saddr }, tcp({ dport }))),
      ethernet({}, ipv4({ saddr }, tcp({ dport: dport ^ (index % 3) }))),
      ethernet({}, ipv4({ saddr }, index % 2 === 0 ? udp({ dport }) : icmp())),
    ]);
    const drops = await expectNoDifference({ place: 'ingress', text }, frames, profile);
    expect(drops).toBeGreaterThan(2000);
  },
);
