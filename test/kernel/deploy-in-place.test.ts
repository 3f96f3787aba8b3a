import { afterEach, beforeEach, expect, it } from 'vitest';
import { deployXdp } from '../../src/deploy/deploy.ts';
import { readBase } from '../../src/deploy/in-place.ts';
import { previewDeploy } from '../../src/deploy/preview.ts';
import { renderDeploy } from '../../src/deploy/render-report.ts';
import { rollbackXdp } from '../../src/deploy/rollback.ts';
import { readState, writeState } from '../../src/deploy/state.ts';
import { statusXdp } from '../../src/deploy/status.ts';
import type { Transport } from '../../src/deploy/transport.ts';
import { undeployXdp } from '../../src/deploy/undeploy.ts';
import { type DeployLab, openDeployLab, probeDeployLab } from '../support/deploy-lab.ts';
import { unwrap } from '../support/pipeline.ts';
import {
  countsOf,
  deployRules,
  OTHERS,
  type Rules,
  requestFor,
  TEST,
} from '../support/toggled-rules.ts';

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

const deploy = (rules: Rules) => deployRules(lab, rules);
const counts = (...handles: readonly (number | null)[]) => countsOf(lab, ...handles);

onKernel('a changed ruleset is written into the program that runs, and counts go on', async () => {
  const first = await deploy([...OTHERS, [50, TEST]]);
  expect(first.inPlace).toBeNull();
  expect(await lab.send(20)).toBe(0);
  const without = await deploy(OTHERS);
  expect(without).toMatchObject({
    programId: first.programId,
    inPlace: { rulesIn: 0, rulesOut: 1 },
  });
  expect(await lab.send(20)).toBe(20);
  const again = await requestFor(lab, [[60, TEST], ...OTHERS, [61, 0x9999]]);
  const preview = unwrap(await previewDeploy(lab.transport, again, lab.paths));
  expect(preview.steps[0]).toMatch(/^store [0-9]+ words in the tables/);
  const back = unwrap(await deployXdp(lab.transport, again, lab.paths));
  expect(renderDeploy(back)).toMatch(/^eth0: \+2 rules, in place, [0-9]+ words, ruleset /);
  expect(back.programId).toBe(first.programId);
  expect(await lab.send(30)).toBe(0);
  expect([await counts(50), await counts(60)]).toEqual([20, 30]);
  // Going back is a program of its own, and what was counted is not lost.
  unwrap(await rollbackXdp(lab.transport, { device: 'eth0', to: null, force: false }, lab.paths));
  expect(await lab.send(5)).toBe(5);
  const after = await deploy([...OTHERS, [60, TEST]]);
  expect(after.inPlace).not.toBeNull();
  expect(await lab.send(5)).toBe(0);
  // nftables has no rule 60 either, so what it counted before belongs to its chain.
  expect(await counts(50, 60, null)).toBe(55);
  unwrap(await undeployXdp(lab.transport, { device: 'eth0', force: false }, lab.paths));
});

onKernel('every frame meets one ruleset or the other while rules are exchanged', async () => {
  const { programId } = await deploy([[50, TEST], ...OTHERS]);
  const { sent, seen } = await lab.sendDuring(async () => {
    for (let round = 0; round < 4; round += 1) {
      // Both drop the same: one goes when the other comes.
      const rules: Rules = round % 2 === 0 ? [...OTHERS, [60, TEST]] : [[50, TEST], ...OTHERS];
      expect((await deploy(rules)).programId).toBe(programId);
    }
  });
  expect(sent).toBeGreaterThan(100);
  expect(seen).toBe(0);
  expect(await counts(50, 60)).toBe(sent);
});

onKernel('what came through and what was counted add up while a rule comes and goes', async () => {
  await deploy(OTHERS);
  const { sent, seen } = await lab.sendDuring(async () => {
    for (let round = 0; round < 3; round += 1) {
      const rules: Rules = round % 2 === 0 ? [...OTHERS, [50, TEST]] : OTHERS;
      expect((await deploy(rules)).inPlace).not.toBeNull();
    }
  });
  expect(seen).toBeGreaterThan(0);
  expect(await counts(50)).toBe(sent - seen);
});

onKernel('what was cut short is not changed again, but replaced', async () => {
  const { programId } = await deploy([...OTHERS, [50, TEST]]);
  expect(await lab.send(10)).toBe(0);
  const request = await requestFor(lab, OTHERS);
  const state = unwrap(await readState(lab.transport, lab.paths, 'eth0'));
  if (state === null) throw new Error('bug: nothing was deployed');
  const current = { ...state.current, changing: true };
  await writeState(lab.transport, lab.paths, { ...state, current });
  const status = unwrap(await statusXdp(lab.transport, { device: 'eth0' }, lab.paths));
  expect(status.drift.map(({ code }) => code)).toEqual(['deploy/changing']);
  expect(await readBase(lab.transport, 'eth0', lab.paths)).toBeNull();
  const report = unwrap(await deployXdp(lab.transport, request, lab.paths));
  expect(report.inPlace).toBeNull();
  expect(report.programId).not.toBe(programId);
  expect(await lab.send(10)).toBe(10);
  expect(await counts(50)).toBe(10);
});

onKernel('where tables cannot be written, another program takes its place', async () => {
  const { programId } = await deploy([...OTHERS, [50, TEST]]);
  expect(await lab.send(10)).toBe(0);
  const { run, ...rest } = lab.transport;
  // The second store, which would make all visible, does not work.
  let stores = 0;
  const transport: Transport = {
    ...rest,
    run: (argv, options) => {
      const isStore = argv.at(-1)?.endsWith('.patch') === true;
      if (isStore) stores += 1;
      return run(isStore && stores === 2 ? ['false'] : argv, options);
    },
  };
  const request = await requestFor(lab, OTHERS);
  const done = await deployXdp(transport, request, lab.paths);
  expect(done.diagnostics.map(({ code }) => code)).toEqual(['deploy/not-in-place']);
  const report = unwrap(done);
  expect([report.inPlace, stores]).toEqual([null, 2]);
  expect(report.programId).not.toBe(programId);
  expect(await lab.send(10)).toBe(10);
  expect(await counts(50)).toBe(10);
  // What took its place can be changed again.
  expect((await deploy([[50, TEST], ...OTHERS])).inPlace).not.toBeNull();
  expect(await lab.send(10)).toBe(0);
});
