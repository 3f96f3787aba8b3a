import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type DeployRequest, deployXdp } from '../../src/deploy/deploy.ts';
import { ownerOf } from '../../src/deploy/owner-counts.ts';
import { historyDirectory, lockFile, pinDirectory, stateFile } from '../../src/deploy/paths.ts';
import { previewDeploy } from '../../src/deploy/preview.ts';
import { renderPreview } from '../../src/deploy/render-report.ts';
import { renderStatus } from '../../src/deploy/render-status.ts';
import { type StatusReport, statusXdp } from '../../src/deploy/status.ts';
import { undeployXdp } from '../../src/deploy/undeploy.ts';
import { type DeployLab, openDeployLab, probeDeployLab } from '../support/deploy-lab.ts';
import { READY_BATCH, testObject } from '../support/deploy-objects.ts';
import { deployRequest, refusalOf, ruleCounter } from '../support/deploy-requests.ts';
import { unwrap } from '../support/pipeline.ts';

const obstacle = probeDeployLab();
const onKernel = it.skipIf(obstacle !== null);

let lab: DeployLab;

beforeEach(async () => {
  if (obstacle === null) lab = await openDeployLab();
});

afterEach(async () => {
  if (obstacle === null) await lab.close();
});

it('says why nothing can be deployed here', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

async function deploy(changes: Partial<DeployRequest> = {}) {
  return unwrap(await deployXdp(lab.transport, deployRequest(changes), lab.paths));
}

async function refusal(changes: Partial<DeployRequest>): Promise<readonly string[]> {
  return refusalOf(await deployXdp(lab.transport, deployRequest(changes), lab.paths));
}

async function undeploy(force = false) {
  return undeployXdp(lab.transport, { device: 'eth0', force }, lab.paths);
}

async function status(): Promise<StatusReport> {
  return unwrap(await statusXdp(lab.transport, { device: 'eth0' }, lab.paths));
}

/** What the counting owner's line says. */
async function counted(handle = 12) {
  return (await status()).counters.find((line) => line.handle === handle);
}

/** The device as people and tools see it. */
async function looks(): Promise<string> {
  const link = await lab.run('ip', '-d', 'link', 'show', 'dev', 'eth0');
  return link + (await lab.run('ethtool', '-k', 'eth0'));
}

/** What is pinned, but for the kernel's own (populate_bpffs(), kernel/bpf/inode.c). */
async function pins(): Promise<readonly string[]> {
  const names = await readdir(lab.paths.bpffs);
  return names.filter((name) => !name.endsWith('.debug'));
}

async function loadRuleset(text: string): Promise<void> {
  const file = `${lab.paths.state}.nft`;
  await writeFile(file, text);
  await lab.run('nft', '-f', file);
}

async function attachForeign(): Promise<number> {
  const object = `${lab.paths.state}.foreign.o`;
  await writeFile(object, testObject({ action: 'pass' }));
  await lab.run('ip', 'link', 'set', 'dev', 'eth0', 'xdpdrv', 'obj', object, 'sec', 'xdp');
  return attachedId();
}

async function attachedId(): Promise<number> {
  const [link] = JSON.parse(await lab.run('ip', '-j', 'link', 'show', 'dev', 'eth0'));
  return link.xdp?.prog?.id ?? 0;
}

onKernel.each(['native', 'generic'] as const)('a %s program decides live traffic', async (mode) => {
  expect(await lab.send(100)).toBe(100);
  const first = await deploy({ mode });
  expect(first).toMatchObject({ mode, generation: 1, replaced: [], atomic: true });
  expect(await attachedId()).toBe(first.programId);
  expect(await lab.send(100)).toBe(0);
  const second = await deploy({ mode, elf: testObject({ action: 'pass' }) });
  expect(second.replaced).toEqual([{ mode, id: first.programId, name: 'filter' }]);
  expect(await lab.send(100)).toBe(100);
  expect(await readdir(pinDirectory(lab.paths, 'eth0'))).toEqual(['2']);
});

onKernel.each([
  ['native', 10],
  ['generic', 5],
] as const)(
  'no frame meets %s XDP without a program during %i replacements',
  async (mode, rounds) => {
    await deploy({ mode });
    const { sent, seen } = await lab.sendDuring(async () => {
      for (let round = 0; round < rounds; round += 1) {
        expect((await deploy({ mode })).atomic).toBe(true);
      }
    });
    expect(sent).toBeGreaterThan(rounds * 100);
    expect(seen).toBe(0);
    // Every frame was counted by one of the programs.
    expect((await counted())?.total).toEqual({ packets: sent, bytes: sent * 60 });
  },
);

onKernel('a change of mode is refused, and with force has a gap', async () => {
  const { programId } = await deploy();
  expect(await refusal({ mode: 'generic' })).toEqual(['deploy/mode-change']);
  expect(await attachedId()).toBe(programId);
  const { seen } = await lab.sendDuring(async () => {
    const report = await deploy({ mode: 'generic', force: true });
    expect(report).toMatchObject({ atomic: false, mode: 'generic' });
  });
  expect(seen).toBeGreaterThan(0);
  expect(await status()).toMatchObject({ attachment: { program: { mode: 'generic' } }, drift: [] });
});

onKernel('maps are filled before the program is attached', async () => {
  await deploy({ elf: testObject({ gated: true }) });
  expect(await lab.send(10)).toBe(10);
  await deploy({ elf: testObject({ gated: true }), maps: READY_BATCH });
  expect(await lab.send(10)).toBe(0);
});

onKernel('counters of hardware, earlier programs and nftables are added up', async () => {
  await loadRuleset(`table netdev t {
  chain c {
    type filter hook ingress device "eth0" priority 0;
    ether type 0x1234 counter
    ether type 0x88b5 counter drop
  }
}`);
  await lab.send(7);
  const handles = [ruleCounter(null, 0), ruleCounter(null, 1)];
  await deploy({ owners: handles.map(ownerOf) });
  await lab.send(20);
  await deploy({ owners: handles.map(ownerOf) });
  await lab.send(30);
  const line = (await status()).counters.find(({ index }) => index === 1);
  expect(line).toMatchObject({
    hardware: { packets: 30, bytes: 1800 },
    carried: { packets: 20, bytes: 1200 },
    nft: { packets: 7, bytes: 7 * 46 },
    total: { packets: 57, bytes: 3000 + 7 * 46 },
  });
  expect(renderStatus(await status())).toMatch(
    /netdev t c #2 +30 +1800 +20 +1200 +7 +322 +57 +3322/,
  );
});

onKernel('counts follow a rule by its handle, and stay when it leaves the hardware', async () => {
  await loadRuleset('table netdev t { chain c { counter; counter; }; }');
  await deploy({ owners: [ruleCounter(2, 0), ruleCounter(3, 1)].map(ownerOf) });
  await lab.send(5);
  await deploy({ owners: [ruleCounter(20, 0), ruleCounter(3, 7)].map(ownerOf) });
  expect(await counted(3)).toMatchObject({ carried: { packets: 5, bytes: 300 } });
  await deploy({ owners: [ruleCounter(20, 0), ruleCounter(21, 1)].map(ownerOf) });
  expect(await counted(3)).toMatchObject({ hardware: null, total: { packets: 5, bytes: 300 } });
  // Once the rule is deleted, its chain keeps the sum.
  await lab.run('nft', 'delete', 'rule', 'netdev', 't', 'c', 'handle', '3');
  await deploy({ owners: [ruleCounter(20, 0), ruleCounter(21, 1)].map(ownerOf) });
  expect(await counted(3)).toBeUndefined();
  expect(renderStatus(await status())).toMatch(/netdev t c \(deleted rules\) +- +- +5 +300 /);
  expect(unwrap(await undeploy()).counters).toContainEqual(
    expect.objectContaining({ chain: 'c', handle: null, hardware: { packets: 5, bytes: 300 } }),
  );
});

onKernel('a preview says what would be done, and what is different', async () => {
  const owners = [ruleCounter(11, 0), ruleCounter(12, 1)].map(ownerOf);
  const old = { rules: ['a: drop', 'b: drop'], elf: testObject({ gated: true }) };
  const { programId } = await deploy({ ...old, owners, maps: READY_BATCH });
  const changes = {
    ...{ rules: ['b: drop', 'c: drop'], elf: testObject({ gated: true }), maps: null },
    owners: [ruleCounter(12, 0), ruleCounter(13, 1)].map(ownerOf),
  };
  const request = deployRequest({ ...changes, maps: READY_BATCH.replace('value 1', 'value 2') });
  const preview = unwrap(await previewDeploy(lab.transport, request, lab.paths));
  expect(preview.steps).toEqual([
    expect.stringMatching(
      /^load the program \([0-9]+ bytes\) and pin it in .*\/nft-offload\/eth0\/2$/,
    ),
    'fill its maps (1 updates)',
    `attach it to eth0 in place of the native program ${programId} "filter", in one step`,
    'keep the counts of the program before, and unpin it',
  ]);
  expect(renderPreview(preview).split('\n').slice(4)).toEqual([
    '- a: drop',
    '+ c: drop',
    '~ map ready: 1 added, 1 removed',
    'counters: 1 go on, 1 begin, 1 end',
    '',
  ]);
  expect(await attachedId()).toBe(programId);
  expect(await readdir(pinDirectory(lab.paths, 'eth0'))).toEqual(['1']);
  // What was shown is done as long as the device is as it was.
  await deploy({ ...changes, basis: preview.basis });
  expect(await refusal({ ...changes, basis: preview.basis })).toEqual(['deploy/changed']);
});

onKernel('two sessions do not deploy at once, and a dead one is forgotten', async () => {
  const lock = lockFile(lab.paths, 'eth0');
  await mkdir(lab.paths.state, { recursive: true });
  const other = spawn('flock', [lock, 'sh', '-c', 'echo locked; cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(other.stdout, 'data');
  expect(await refusal({})).toEqual(['deploy/busy']);
  other.kill('SIGKILL');
  other.stdin.end();
  await once(other.stdout, 'close');
  await deploy();
});

onKernel('a program of somebody else is refused, and replaced with force', async () => {
  const foreign = await attachForeign();
  const result = await deployXdp(lab.transport, deployRequest(), lab.paths);
  expect(result).toMatchObject({
    ok: false,
    diagnostics: [
      {
        code: 'deploy/foreign-program',
        message: expect.stringContaining(`native program ${foreign} "filter"`),
        help: expect.stringContaining('--force'),
      },
    ],
  });
  expect(await attachedId()).toBe(foreign);
  expect(await status()).toMatchObject({ attachment: { kind: 'foreign' }, counters: [] });
  expect(await refusal({ mode: 'generic' })).toEqual(['deploy/foreign-program']);
  const report = await deploy({ force: true });
  expect(report).toMatchObject({ atomic: true, replaced: [{ id: foreign }] });
});

onKernel.each(['native', 'generic'] as const)(
  'undeploy leaves a device as it was (%s)',
  async (mode) => {
    const before = await looks();
    await deploy({ mode });
    await deploy({ mode });
    expect(await looks()).not.toBe(before);
    expect(unwrap(await undeploy()).removed).toMatchObject({ mode });
    expect(await looks()).toBe(before);
    expect(await pins()).toEqual([]);
    // Whoever waits for the lock has it open.
    expect(await readdir(lab.paths.state)).toEqual(['eth0.lock']);
    const again = await undeploy();
    expect(again).toMatchObject({ ok: true, diagnostics: [{ code: 'deploy/nothing-attached' }] });
  },
);

onKernel('undeploy leaves the program of somebody else', async () => {
  await deploy();
  await lab.run('ip', 'link', 'set', 'dev', 'eth0', 'xdpdrv', 'off');
  const foreign = await attachForeign();
  expect((await status()).drift.map(({ code }) => code)).toEqual(['deploy/replaced']);
  const result = await undeploy();
  expect(result).toMatchObject({ ok: true, diagnostics: [{ code: 'deploy/foreign-program' }] });
  expect(unwrap(result)).toMatchObject({ removed: null, left: [{ id: foreign }] });
  expect(await attachedId()).toBe(foreign);
  expect(await pins()).toEqual([]);
});

onKernel('an object that does not load changes nothing', async () => {
  const { programId } = await deploy();
  const state = await readFile(stateFile(lab.paths, 'eth0'), 'utf8');
  const bad = { elf: new Uint8Array(randomBytes(400)) };
  expect(await refusal(bad)).toEqual(['deploy/load-failed']);
  expect(await refusal({ program: 'other' })).toEqual(['deploy/wrong-program']);
  expect(await refusal({ maps: 'map update name none key 0 value 0' })).toEqual([
    'deploy/maps-failed',
  ]);
  expect(await refusal({ maps: 'prog show' })).toEqual(['deploy/bad-maps']);
  expect(await attachedId()).toBe(programId);
  expect(await lab.send(10)).toBe(0);
  expect(await readdir(pinDirectory(lab.paths, 'eth0'))).toEqual(['1']);
  expect((await readdir(lab.paths.state)).sort()).toEqual([
    'eth0.history',
    'eth0.json',
    'eth0.lock',
  ]);
  expect((await readdir(historyDirectory(lab.paths, 'eth0'))).sort()).toEqual(['1.json', '1.o']);
  expect(await readFile(stateFile(lab.paths, 'eth0'), 'utf8')).toBe(state);
});

onKernel('a program that cannot be attached changes nothing', async () => {
  // Its driver has no native mode.
  expect(await refusal({ device: 'lo' })).toEqual(['deploy/attach-failed']);
  expect(await readdir(pinDirectory(lab.paths, 'lo'))).toEqual([]);
  const device = { device: 'lo', mode: 'generic' } as const;
  const { programId } = await deploy(device);
  // What was displaced for the change of mode is put back.
  expect(await refusal({ device: 'lo', force: true })).toEqual(['deploy/attach-failed']);
  expect(unwrap(await statusXdp(lab.transport, device, lab.paths))).toMatchObject({
    attachment: { kind: 'ours', program: { id: programId } },
    drift: [],
  });
});

onKernel('a device that is gone is told from one that never was', async () => {
  expect(await refusal({ device: 'eth9' })).toEqual(['deploy/no-device']);
  expect(await statusXdp(lab.transport, { device: 'eth9' }, lab.paths)).toMatchObject({
    diagnostics: [{ code: 'deploy/no-device' }],
  });
  await deploy();
  await lab.run('ip', 'link', 'del', 'dev', 'eth0');
  expect((await status()).drift.map(({ code }) => code)).toContain('deploy/device-gone');
  expect(unwrap(await undeploy()).removed).toBeNull();
  expect(await pins()).toEqual([]);
});

onKernel.each(['../eth0', 'a/b', '.', '..', '', 'eth 0', 'a:b', '$(id)456789abcdef'])(
  'the name %j is refused before anything is run',
  async (device) => {
    expect(await refusal({ device })).toEqual(['deploy/bad-device-name']);
  },
);

onKernel.each(['eth0.5', '-x', '$(id)', 'a#b', "q'25", 'näme'])(
  'a device may be called %j',
  async (device) => {
    await lab.run('ip', 'link', 'set', 'dev', 'eth0', 'down');
    await lab.run('ip', 'link', 'set', 'dev', 'eth0', 'name', device, 'up');
    const elf = testObject({ gated: true });
    expect((await deploy({ device, elf, maps: READY_BATCH })).device).toBe(device);
    unwrap(await undeployXdp(lab.transport, { device, force: false }, lab.paths));
    expect(await pins()).toEqual([]);
    await lab.run('ip', 'link', 'set', 'dev', device, 'down');
    await lab.run('ip', 'link', 'set', 'dev', device, 'name', 'eth0', 'up');
  },
);

onKernel('state that cannot be read is said, and cleared with force', async () => {
  await deploy();
  await writeFile(stateFile(lab.paths, 'eth0'), '{"format":"nft-offload/state@1","device":7}');
  expect(await refusal({})).toEqual(['deploy/bad-state']);
  expect(await undeploy()).toMatchObject({
    ok: false,
    diagnostics: [{ code: 'deploy/bad-state' }],
  });
  expect(await attachedId()).toBeGreaterThan(0);
  expect(unwrap(await undeploy(true)).removed).toMatchObject({ mode: 'native' });
  expect(await attachedId()).toBe(0);
});

onKernel('state of an earlier boot describes nothing', async () => {
  await deploy();
  const file = stateFile(lab.paths, 'eth0');
  const text = await readFile(file, 'utf8');
  await writeFile(file, text.replace(/"bootId": "[^"]*"/, '"bootId": "other"'));
  await lab.run('ip', 'link', 'set', 'dev', 'eth0', 'xdpdrv', 'off');
  expect(await status()).toMatchObject({
    attachment: { kind: 'none' },
    drift: [{ code: 'deploy/restarted' }],
  });
  expect((await deploy()).replaced).toEqual([]);
});
