import { expect, it } from 'vitest';
import { compileXdp, isXdpProfile } from '../../src/backends/ebpf-offload/compile.ts';
import { loadProgram } from '../../src/backends/ebpf-offload/interpret.ts';
import { createMemory } from '../../src/backends/ebpf-offload/memory.ts';
import type { Facts } from '../../src/ir/facts.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { type FlowConcessions, NO_FLOW_CONCESSIONS } from '../../src/ir/flows.ts';
import type { Ruleset } from '../../src/ir/ruleset.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { XdpProfile } from '../../src/profile/schema.ts';
import { toHex } from '../../src/support/bits.ts';
import { parseIp, parseIp6 } from '../support/addresses.ts';
import { isSentInside, pickFlowFrame } from '../support/flow-frames.ts';
import { EMPTY_POOL, type FramePool } from '../support/frame-pool.ts';
import { joinBytes } from '../support/frames.ts';
import {
  hookVerdict,
  type Observation,
  openKernelLab,
  probeKernelLab,
} from '../support/kernel-lab.ts';
import { LAB_VLANS } from '../support/lab-topology.ts';
import { labFacts, readLabRuleset, unwrap } from '../support/pipeline.ts';
import { createRandom, type Random } from '../support/random.ts';
import { makeFrames } from '../support/random-frames.ts';
import { makeStatefulRuleset } from '../support/stateful-rulesets.ts';

const obstacle = probeKernelLab();

/** Few addresses and ports, so that frames meet flows that earlier ones began. */
const POOL: FramePool = {
  ...EMPTY_POOL,
  ip: ['10.0.0.1', '10.0.0.2', '10.0.0.3', '192.0.2.7', '198.51.100.9'].map(parseIp),
  ip6: ['2001:db8::1', '2001:db8::2', '2001:db8::3'].map(parseIp6),
  ports: [22, 53, 80, 123, 443, 8080, 40_000],
  protocols: [1, 6, 17, 58],
  tcpFlags: [0x02, 0x10, 0x12, 0x18, 0x11, 0x04],
  icmpTypes: [8, 0, 128, 129, 135],
};

/** Beside the ruleset under test, and unknown to us: how many frames belong to a known flow. */
const COUNT_KNOWN = `
table inet known {
  chain known {
    type filter hook prerouting priority -190; policy accept;
    ct state established counter
  }
}
`;

/** The lab's receiver opens no connections, so no port gets replies. */
const CASES: readonly (readonly [string, FlowConcessions])[] = [
  ['what nothing can have asked for', { synIsNew: false, replyPorts: [] }],
  ['SYNs', { synIsNew: true, replyPorts: null }],
  ['both', { synIsNew: true, replyPorts: [{ from: 40_000, to: 50_000 }] }],
];

/** The tier's program for a ruleset, run by our interpreter: true is a drop. */
function compileDrops(
  ruleset: Ruleset,
  facts: Facts,
  flows: FlowConcessions,
  profile: XdpProfile,
): (frame: Uint8Array) => boolean {
  const { classifier } = flatten(ruleset, facts, { loopedCopies: false, flows });
  const compiled = unwrap(compileXdp(classifier, profile, { mayMiscount: true }));
  const machine = loadProgram(
    compiled.assembly,
    createMemory(compiled.object.maps, compiled.object.data),
  );
  return (frame) => machine.run(frame).action === 1;
}

async function loadNative(): Promise<XdpProfile> {
  const profile = unwrap(await loadProfile('xdp-native'));
  if (!isXdpProfile(profile)) throw new Error('xdp-native is no XDP profile');
  return profile;
}

/** What the kernel made of a frame at all of its hooks. */
function kernelVerdict(observed: Observation, index: number): 'delivered' | 'dropped' | 'other' {
  const at = (['prerouting', 'input', 'forward'] as const).map((hook) =>
    hookVerdict(observed, index, hook),
  );
  if (at.includes('dropped')) return 'dropped';
  return at[1] === 'accepted' || at[2] === 'accepted' ? 'delivered' : 'other';
}

it.skipIf(obstacle !== null)(
  `drops behind known flows only what nf_tables drops (${obstacle ?? 'in the kernel'})`,
  { timeout: 120_000 },
  async () => {
    const lab = await openKernelLab();
    const profile = await loadNative();
    const facts = { ...labFacts('host'), conntrackFresh: true, soleDevice: true };
    const wrong: string[] = [];
    let dropped = 0;
    let kernelDropped = 0;
    try {
      for (let seed = 1; seed <= 40; seed += 1) {
        const text = makeStatefulRuleset(seed);
        await lab.loadRuleset(text);
        const ruleset = await readLabRuleset(lab);
        const frames = makeFrames(seed, 2_000, POOL, { odd: 0.1 });
        const observed = await lab.observe(frames);
        for (const [name, flows] of CASES) {
          const drops = compileDrops(ruleset, facts, flows, profile);
          for (const [index, frame] of frames.entries()) {
            const verdict = kernelVerdict(observed, index);
            if (verdict === 'dropped') kernelDropped += 1;
            if (!drops(frame)) continue;
            dropped += 1;
            if (verdict === 'delivered') {
              wrong.push(`${name}, seed ${seed}: ${toHex(frame)}\n${text}`);
            }
          }
        }
      }
    } finally {
      await lab.close();
    }
    expect(wrong.slice(0, 3)).toEqual([]);
    expect(dropped).toBeGreaterThan(kernelDropped / 5);
  },
);

const SEEDS = 15;

/** As if it came through a VLAN device, unless the receiver is to send it. */
function tagSome(random: Random, frame: Uint8Array): Uint8Array {
  if (isSentInside(frame) || random.chance(0.5)) return frame;
  const { protocol, id } = random.pick(LAB_VLANS);
  const tag = Uint8Array.of(protocol >> 8, protocol & 0xff, id >> 8, id & 0xff);
  return joinBytes(frame.subarray(0, 12), tag, frame.subarray(12));
}

it.skipIf(obstacle !== null).each([
  ['host', 'plain'],
  ['router', 'plain'],
  ['host', 'vlan'],
  ['router', 'vlan'],
] as const)(
  `knows without a concession which flows a %s's own rules never let begin: %s (${obstacle ?? 'in the kernel'})`,
  { timeout: 600_000 },
  async (role, topology) => {
    const hasVlans = topology === 'vlan';
    const lab = await openKernelLab({ router: role === 'router', speaks: true, topology });
    const profile = await loadNative();
    const wrong: string[] = [];
    // Drops that the proof alone makes possible, and frames of flows that the kernel knows.
    let proven = 0;
    let known = 0;
    try {
      for (const device of hasVlans ? ['eth0', 'eth0.5', 'eth0.7'] : ['eth0']) {
        await lab.run('ip', 'link', 'set', device, 'arp', 'off');
      }
      if (role === 'host') {
        await lab.run('ip', 'route', 'add', 'default', 'via', '10.0.0.2', 'dev', 'eth0');
        await lab.run('ip', 'route', 'add', 'default', 'via', '2001:db8::2', 'dev', 'eth0');
      }
      for (let seed = 1; seed <= SEEDS; seed += 1) {
        const made = makeStatefulRuleset(seed, { output: true, forward: role === 'router' });
        const text = hasVlans ? made.replaceAll('"eth1"', '"eth0.5"') : made;
        await lab.loadRuleset(`${text}${COUNT_KNOWN}`);
        const all = await readLabRuleset(lab);
        const ruleset = { tables: all.tables.filter(({ name }) => name !== 'known') };
        const random = createRandom(seed);
        const others = makeFrames(seed, 600, POOL, { odd: 0.1 });
        const pick = (): Uint8Array => {
          const frame = pickFlowFrame(random, role === 'router');
          return hasVlans ? tagSome(random, frame) : frame;
        };
        const frames = others.flatMap((frame) => [pick(), pick(), pick(), frame]);
        const observed = await lab.observe(frames);
        known += (await lab.counters()).find(({ table }) => table === 'known')?.packets ?? 0;
        const facts: Facts = {
          ...labFacts(role),
          vlans: hasVlans ? LAB_VLANS : [],
          conntrackFresh: true,
          soleDevice: seed % 2 === 0,
        };
        const drops = compileDrops(ruleset, facts, NO_FLOW_CONCESSIONS, profile);
        const plainly = compileDrops(
          ruleset,
          { ...facts, conntrackFresh: false },
          NO_FLOW_CONCESSIONS,
          profile,
        );
        for (const [index, frame] of frames.entries()) {
          if (!drops(frame)) continue;
          const verdict = kernelVerdict(observed, index);
          if (verdict === 'dropped' && !plainly(frame)) proven += 1;
          if (verdict === 'delivered') wrong.push(`seed ${seed}: ${toHex(frame)}\n${text}`);
        }
      }
    } finally {
      await lab.close();
    }
    expect(wrong.slice(0, 3)).toEqual([]);
    expect(known).toBeGreaterThan(SEEDS * 20);
    expect(proven).toBeGreaterThan(SEEDS * 20);
  },
);
