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
import { isTcamProfile } from '../../src/backends/tcam/compile.ts';
import { createTablesCompiler } from '../../src/cli/deploy-tables.ts';
import { type DeployRequest, deployXdp } from '../../src/deploy/deploy.ts';
import { ownerOf } from '../../src/deploy/owner-counts.ts';
import { type DeployPaths, generationPaths } from '../../src/deploy/paths.ts';
import { rollbackXdp } from '../../src/deploy/rollback.ts';
import { statusXdp } from '../../src/deploy/status.ts';
import { deployTables, type TablesRequest } from '../../src/deploy/tables.ts';
import type { TablesMode } from '../../src/deploy/tables-filters.ts';
import { statusTables } from '../../src/deploy/tables-status.ts';
import { confirmTables, rollbackTables, undeployTables } from '../../src/deploy/tables-undo.ts';
import { undeployXdp } from '../../src/deploy/undeploy.ts';
import { nothingKnown } from '../../src/ir/facts.ts';
import { flatten } from '../../src/ir/flatten.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { TcamProfile, XdpProfile } from '../../src/profile/schema.ts';
import { toHex } from '../../src/support/bits.ts';
import { fail } from '../../src/support/diagnostics.ts';
import { READY_BATCH, TEST_LAYOUT, testObject } from '../support/deploy-objects.ts';
import { deployRequest, refusalOf } from '../support/deploy-requests.ts';
import { ethernet, ipv4, udp } from '../support/frames.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';
import { PROJECT } from '../support/run-cli.ts';
import { makeCorpus } from './corpus.ts';
import { MAKE_DEVICE, probeLab } from './lab.ts';
import { type LabMachine, openLabMachine } from './machine.ts';

const obstacle = probeLab();
const inLab = it.skipIf(obstacle !== null);

/** What netdevsim's first device is called in the lab. */
const DEVICE = 'eth0';

let netdevsim: XdpProfile;
let spectrum: TcamProfile;
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
  const tcam = unwrap(await loadProfile('spectrum'));
  if (!isTcamProfile(tcam)) throw new Error('bug: spectrum is no TCAM');
  spectrum = tcam;
  const cables = `ip link add near type veth peer name far; ip link set near up; ip link set far up`;
  const prepare = `${MAKE_DEVICE}\nethtool -K ${DEVICE} hw-tc-offload on; ${cables}`;
  machine = openLabMachine(folder, prepare);
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

/** A cable; what is sent into one end comes in at the other, where filters run in the host. */
const CABLE = { from: 'near', to: 'far' } as const;

/** Drops UDP to these ports. */
function dropping(ports: readonly number[], mode: TablesMode = 'generic'): TablesRequest {
  const device = mode === 'offload' ? DEVICE : CABLE.to;
  const own = { family: 'netdev', table: 't', chain: 'c' };
  const base = { type: 'filter', hook: 'ingress', dev: device, prio: 0, policy: 'accept' };
  const rules = ports.map((right) => {
    const left = { payload: { protocol: 'udp', field: 'dport' } };
    const expr = [{ match: { op: '==', left, right } }, { drop: null }];
    return { rule: { ...own, handle: right, expr } };
  });
  const chain = { chain: { family: 'netdev', table: 't', name: 'c', ...base } };
  const nftables = [{ table: { family: 'netdev', name: 't' } }, chain, ...rules];
  const ruleset = unwrap(readJsonText(JSON.stringify({ nftables }), 'test'));
  const situation = { ruleset, facts: nothingKnown(device), concessions: [], replyPorts: null };
  return unwrap(createTablesCompiler(spectrum, { mode })(situation));
}

const FRAMES_SCRIPT = join(PROJECT, 'scripts/tc-flower-frames.pl');

/** Writes UDP frames to these ports, one a line. */
async function writeFrames(name: string, ports: readonly number[]): Promise<string> {
  const frames = ports.map((dport) => ethernet({}, ipv4({}, udp({ sport: 1, dport }))));
  const file = join(folder, name);
  await machine.transport.writeFile(file, Buffer.from(`${frames.map(toHex).join('\n')}\n`));
  return `perl ${FRAMES_SCRIPT} ${CABLE.from} ${CABLE.to} <${file}`;
}

const cable = { device: CABLE.to };

async function dropsOnCable(): Promise<readonly (readonly [number | null, number])[]> {
  const status = unwrap((await statusTables(machine.transport, cable, paths)) ?? fail());
  return status.counters.map(({ handle, total }) => [handle, total.packets]);
}

async function expectNoFilters(device: string): Promise<void> {
  expect(await machine.sh(`tc qdisc show dev ${device}`)).not.toContain('clsact');
  expect(await statusTables(machine.transport, { device }, paths)).toBeNull();
  const left = `ls -d ${paths.state}/${device}.t* 2>/dev/null || true`;
  expect(await machine.sh(left)).toBe('');
}

inLab('rows of a TCAM: a NIC that takes none says so, and nothing stays', async () => {
  const { transport } = machine;
  const request = dropping([7], 'offload');
  expect(refusalOf(await deployTables(transport, request, paths))).toEqual([
    'deploy/nic-unsupported',
  ]);
  await expectNoFilters(DEVICE);
});

inLab('filters of tc drop, count, are replaced, go back, and go', async () => {
  const { transport } = machine;
  const send = await writeFrames('few', [7, 8, 9, 0]);
  const first = unwrap(await deployTables(transport, dropping([7, 8]), paths));
  expect(first).toMatchObject({ generation: 1, replaced: null });
  expect((await machine.sh(send)).trim().split('\n')).toEqual(['2', '3']);
  expect(await dropsOnCable()).toEqual([
    [7, 1],
    [8, 1],
  ]);
  const second = unwrap(await deployTables(transport, dropping([7, 9]), paths));
  expect(second).toMatchObject({ generation: 2, replaced: 1 });
  expect((await machine.sh(send)).trim().split('\n')).toEqual(['1', '3']);
  // A rule that is gone keeps what it had.
  expect(new Map(await dropsOnCable())).toEqual(
    new Map([
      [7, 2],
      [9, 1],
      [8, 1],
    ]),
  );
  const request = { ...cable, to: null, force: false };
  const back = await rollbackTables(transport, request, paths);
  expect(back?.ok === true && back.value).toMatchObject({ from: 2, to: 1 });
  const listed = await machine.sh(`tc filter show dev ${CABLE.to} ingress`);
  expect(new Set(listed.match(/chain \d+/g))).toHaveProperty('size', 2);
  const gone = await undeployTables(transport, { ...cable, force: false }, paths);
  expect(gone?.ok === true && gone.value).toMatchObject({ removed: { mode: 'generic' }, left: [] });
  await expectNoFilters(CABLE.to);
});

inLab('no frame gets through while filters that drop it replace others that do', async () => {
  const { transport } = machine;
  unwrap(await deployTables(transport, dropping([7, 8]), paths));
  const count = 500;
  const many = await writeFrames(
    'many',
    Array.from({ length: count }, () => 7),
  );
  const loop = `until test -e enough; do ${many} >>passed; echo >>rounds; done; echo >over`;
  await machine.sh(`(${loop}) >/dev/null 2>&1 &`);
  for (const ports of [
    [9, 7],
    [7, 8],
  ]) {
    unwrap(await deployTables(transport, dropping(ports), paths));
  }
  await machine.sh('echo >enough; until test -e over; do sleep 0.1; done');
  expect(await machine.sh('cat passed')).toBe('');
  const rounds = Number(await machine.sh('wc -l <rounds'));
  expect(new Map(await dropsOnCable()).get(7)).toBe(rounds * count);
  unwrap((await undeployTables(transport, { ...cable, force: false }, paths)) ?? fail());
  await expectNoFilters(CABLE.to);
});

inLab('filters wait to be confirmed, and go back by the script of the machine itself', async () => {
  const { transport } = machine;
  unwrap(await deployTables(transport, { ...dropping([7]), confirm: 600 }, paths));
  expect(refusalOf(await deployTables(transport, dropping([8]), paths))).toEqual([
    'deploy/unconfirmed',
  ]);
  const confirmed = await confirmTables(transport, cable, paths);
  expect(confirmed?.ok === true && confirmed.value).toMatchObject({ generation: 1 });
  unwrap(await deployTables(transport, { ...dropping([9]), confirm: 600 }, paths));
  const back = await rollbackTables(transport, { ...cable, to: null, force: false }, paths);
  expect(back?.ok === true && back.value).toMatchObject({ from: 2, to: 1 });
  expect(unwrap((await statusTables(transport, cable, paths)) ?? fail())).toMatchObject({
    attachment: { kind: 'tables', generation: 1 },
    drift: [],
  });
  unwrap((await undeployTables(transport, { ...cable, force: false }, paths)) ?? fail());
  await expectNoFilters(CABLE.to);
});

inLab('filters and programs of others stay as they are', async () => {
  const { transport } = machine;
  const add = `tc filter add dev ${CABLE.to} ingress protocol ip`;
  await machine.sh(`tc qdisc add dev ${CABLE.to} clsact; ${add} pref 65001 flower action drop`);
  const refused = await deployTables(transport, dropping([7]), paths);
  expect(refusalOf(refused)).toEqual(['deploy/foreign-filter']);
  await machine.sh(
    `tc filter del dev ${CABLE.to} ingress pref 65001; ${add} pref 9 flower action pass`,
  );
  unwrap(await deployTables(transport, dropping([7]), paths));
  const request = deployRequest({ device: CABLE.to, mode: 'generic' });
  expect(refusalOf(await deployXdp(transport, request, paths))).toEqual(['deploy/other-kind']);
  unwrap((await undeployTables(transport, { ...cable, force: false }, paths)) ?? fail());
  expect(await machine.sh(`tc filter show dev ${CABLE.to} ingress`)).toContain('pref 9 ');
  await machine.sh(`tc qdisc del dev ${CABLE.to} clsact`);
  await expectNoFilters(CABLE.to);
});
