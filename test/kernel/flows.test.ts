import { expect, it } from 'vitest';
import { compileXdp, isXdpProfile } from '../../src/backends/ebpf-offload/compile.ts';
import { loadProgram } from '../../src/backends/ebpf-offload/interpret.ts';
import { createMemory } from '../../src/backends/ebpf-offload/memory.ts';
import { flatten } from '../../src/ir/flatten.ts';
import type { FlowConcessions } from '../../src/ir/flows.ts';
import { loadProfile } from '../../src/profile/load.ts';
import { toHex } from '../../src/support/bits.ts';
import { parseIp, parseIp6 } from '../support/addresses.ts';
import { EMPTY_POOL, type FramePool } from '../support/frame-pool.ts';
import { hookVerdict, openKernelLab, probeKernelLab } from '../support/kernel-lab.ts';
import { labFacts, readLabRuleset, unwrap } from '../support/pipeline.ts';
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

/** The lab's receiver opens no connections, so no port gets replies. */
const CASES: readonly (readonly [string, FlowConcessions])[] = [
  ['what nothing can have asked for', { synIsNew: false, replyPorts: [] }],
  ['SYNs', { synIsNew: true, replyPorts: null }],
  ['both', { synIsNew: true, replyPorts: [{ from: 40_000, to: 50_000 }] }],
];

it.skipIf(obstacle !== null)(
  `drops behind known flows only what nf_tables drops (${obstacle ?? 'in the kernel'})`,
  { timeout: 120_000 },
  async () => {
    const lab = await openKernelLab();
    const profile = unwrap(await loadProfile('xdp-native'));
    if (!isXdpProfile(profile)) throw new Error('xdp-native is no XDP profile');
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
          const { classifier } = flatten(ruleset, facts, { loopedCopies: false, flows });
          const compiled = unwrap(compileXdp(classifier, profile, { mayMiscount: true }));
          const memory = createMemory(compiled.object.maps, compiled.object.data);
          const machine = loadProgram(compiled.assembly, memory);
          for (const [index, frame] of frames.entries()) {
            const isDropped = machine.run(frame).action === 1;
            const delivered = hookVerdict(observed, index, 'input') === 'accepted';
            const atHook = ['prerouting', 'input'] as const;
            const kernel = atHook.some((hook) => hookVerdict(observed, index, hook) === 'dropped');
            if (isDropped) dropped += 1;
            if (kernel) kernelDropped += 1;
            if (isDropped && delivered)
              wrong.push(`${name}, seed ${seed}: ${toHex(frame)}\n${text}`);
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
