import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  compileXdp,
  isXdpProfile,
  PROGRAM,
  type XdpArtifact,
} from '../../src/backends/ebpf-offload/compile.ts';
import { type DeployRequest, deployXdp } from '../../src/deploy/deploy.ts';
import { ownerOf } from '../../src/deploy/owner-counts.ts';
import { type DeployPaths, generationPaths } from '../../src/deploy/paths.ts';
import { rollbackXdp } from '../../src/deploy/rollback.ts';
import { statusXdp } from '../../src/deploy/status.ts';
import { undeployXdp } from '../../src/deploy/undeploy.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { XdpProfile } from '../../src/profile/schema.ts';
import { READY_BATCH, TEST_LAYOUT, testObject } from '../support/deploy-objects.ts';
import { deployRequest, refusalOf } from '../support/deploy-requests.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';
import { makeCorpus } from './corpus.ts';
import { MAKE_DEVICE, probeLab } from './lab.ts';
import { type LabMachine, openLabMachine } from './machine.ts';

const obstacle = probeLab();
const inLab = it.skipIf(obstacle !== null);

/** What netdevsim's first device is called in the lab. */
const DEVICE = 'eth0';

let netdevsim: XdpProfile;
let folder = '';
let machine: LabMachine;
let paths: DeployPaths;

// One boot for all tests: each leaves the device as it was.
beforeAll(async () => {
  if (obstacle !== null) return;
  const profile = unwrap(await loadProfile('netdevsim'));
  if (!isXdpProfile(profile)) throw new Error('bug: netdevsim is no XDP profile');
  netdevsim = profile;
  folder = mkdtempSync(join(tmpdir(), 'nfo-lab-'));
  paths = { bpffs: '/sys/fs/bpf', state: join(folder, 'state') };
  machine = openLabMachine(folder, `${MAKE_DEVICE}\nethtool -K ${DEVICE} hw-tc-offload on`);
});

afterAll(async () => {
  if (obstacle !== null) return;
  await machine.close();
  rmSync(folder, { recursive: true });
});

it('says why the simulated NIC cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

function compiled(name: string, profile: XdpProfile): XdpArtifact {
  const sample = makeCorpus(DEVICE).find((each) => each.name === name);
  if (sample === undefined) throw new Error(`bug: no sample ${name}`);
  const { classifier } = flatten(unwrap(readJsonText(sample.json, name)), labFacts('host'));
  return unwrap(compileXdp(classifier, profile, { hook: 'tc' }));
}

/** Has a map to be filled, and counters. */
function gated(): DeployRequest {
  const counters = { ...TEST_LAYOUT, perCpu: false };
  const elf = testObject({ gated: true, shared: true });
  return deployRequest({ mode: 'offload', elf, maps: READY_BATCH, counters });
}

/** Counts one rule, as a filter of tc. */
function counting(): DeployRequest {
  const { elf, counters, owners } = compiled('counted 1', netdevsim);
  const names = { program: PROGRAM, owners: owners.map(ownerOf) };
  return deployRequest({ mode: 'offload-tc', elf, counters, ...names });
}

async function expectNothingLeft(): Promise<void> {
  expect(await machine.sh('bpftool -j prog show; bpftool -j map show')).toBe('[]\n[]\n');
  expect(await machine.sh(`tc qdisc show dev ${DEVICE}`)).not.toContain('clsact');
}

const device = DEVICE;

inLab('loads for the device, fills, attaches; counters can be read', async () => {
  const { transport } = machine;
  unwrap(await deployXdp(transport, gated(), paths));
  const status = unwrap(await statusXdp(transport, { device }, paths));
  expect(status).toMatchObject({
    attachment: { kind: 'ours', program: { mode: 'offload' }, beside: [] },
    ...{ drift: [], counters: [{}, { hardware: { packets: 0, bytes: 0 } }] },
  });
  const { maps } = generationPaths(paths, device, 1);
  const ready = await machine.sh(`bpftool -j map dump pinned ${maps}/ready`);
  expect(ready).toContain('"key":["0x00","0x00","0x00","0x00"],"value":["0x01"');
  const gone = unwrap(await undeployXdp(transport, { device, force: false }, paths));
  expect(gone).toMatchObject({ removed: { mode: 'offload' }, left: [] });
  await expectNothingLeft();
});

inLab('attaches as a filter of tc, replaces that, goes back, and takes all of it off', async () => {
  const { transport } = machine;
  const mode = 'offload-tc';
  unwrap(await deployXdp(transport, counting(), paths));
  expect(await machine.sh(`tc -j filter show dev ${DEVICE} ingress`)).toMatch(
    /"skip_sw":true,"in_hw":true/,
  );
  const changed = { ...counting(), rulesetChecksum: 'sha256:2' };
  const second = unwrap(await deployXdp(transport, changed, paths));
  expect(second).toMatchObject({ generation: 2, atomic: true, replaced: [{ mode }] });
  const back = await rollbackXdp(transport, { device, to: null, force: false }, paths);
  expect(unwrap(back)).toMatchObject({ from: 2, to: 1 });
  expect(unwrap(await statusXdp(transport, { device }, paths))).toMatchObject({
    attachment: { kind: 'ours', program: { mode }, rulesetChecksum: 'sha256:1', beside: [] },
    ...{ drift: [], counters: [{ hardware: { packets: 0, bytes: 0 } }] },
  });
  const gone = unwrap(await undeployXdp(transport, { device, force: false }, paths));
  expect(gone).toMatchObject({ removed: { mode }, left: [] });
  await expectNothingLeft();
});

inLab('keeps the place for filters only where it was there before', async () => {
  const { transport } = machine;
  await machine.sh(`ethtool -K ${DEVICE} hw-tc-offload off`);
  const refused = async (): Promise<readonly string[]> =>
    refusalOf(await deployXdp(transport, counting(), paths));
  expect(await refused()).toEqual(['deploy/nic-tc-off']);
  await expectNothingLeft();
  await machine.sh(`tc qdisc add dev ${DEVICE} clsact`);
  expect(await refused()).toEqual(['deploy/nic-tc-off']);
  const restore = `tc qdisc del dev ${DEVICE} clsact; ethtool -K ${DEVICE} hw-tc-offload on`;
  await machine.sh(restore);
});

/** Switches of the simulated driver. */
const DEBUG = '/sys/kernel/debug/netdevsim/netdevsim1';

inLab.each<readonly [string, string, string, () => DeployRequest]>([
  ['maps it does not have', 'deploy/nic-maps', 'true', () => ({ ...gated(), elf: testObject() })],
  [
    'programs',
    'deploy/nic-unsupported',
    `echo N > ${DEBUG}/bpf_bind_accept`,
    () => ({ ...gated(), elf: testObject({ shared: true }), maps: null }),
  ],
  [
    'programs of XDP',
    'deploy/nic-unsupported',
    `echo N > ${DEBUG}/ports/0/bpf_xdpoffload_accept; echo Y > ${DEBUG}/bpf_bind_accept`,
    gated,
  ],
])('says what to do when a driver refuses %s', async (_, code, prepare, request) => {
  await machine.sh(prepare);
  const deployed = await deployXdp(machine.transport, request(), paths);
  expect(refusalOf(deployed)).toEqual([code]);
  await expectNothingLeft();
});
