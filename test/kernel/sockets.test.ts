import { expect, it } from 'vitest';
import type { Facts } from '../../src/ir/facts.ts';
import type { Ruleset } from '../../src/ir/ruleset.ts';
import { probeDeployLab } from '../support/deploy-lab.ts';
import { openSocketLab, type SocketLab } from '../support/socket-lab.ts';
import { FLOW_CASES, type FlowCase, type Grant } from '../support/socket-rulesets.ts';

const obstacle = probeDeployLab();
const onKernel = it.skipIf(obstacle !== null);

/** What the scenarios keep to: ephemeral ports, and 123 as NTP does. */
const REPLY_PORTS = [
  { from: 123, to: 123 },
  { from: 32_768, to: 60_999 },
];

it('says why no flows can be opened here', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

async function withLab<T>(scene: FlowCase['scene'], use: (lab: SocketLab) => Promise<T>) {
  const lab = await openSocketLab(scene);
  try {
    return await use(lab);
  } finally {
    await lab.close();
  }
}

/** The machine with the ruleset, before any traffic, and the facts that are true of it. */
async function prepare(
  lab: SocketLab,
  { text, sysctls = [] }: FlowCase,
): Promise<{ readonly ruleset: Ruleset; readonly facts: Facts }> {
  for (const setting of sysctls) await lab.run('sysctl', '-qw', setting);
  const ruleset = await lab.loadRuleset(text);
  // The one fact nobody can read off: the lab has a default route, and every link takes 1500 bytes.
  return { ruleset, facts: { ...(await lab.probe()), routed: true } };
}

/** Comments of the rules whose counters the program has counted for. */
async function hardwareCounts(lab: SocketLab, ruleset: Ruleset): Promise<readonly string[]> {
  const { counters } = await lab.status();
  const rules = ruleset.tables.flatMap(({ chains }) => chains.flatMap((chain) => chain.rules));
  return counters.flatMap(({ handle, table, hardware }) => {
    const rule = rules.find(({ id }) => id.handle === handle && id.table === table);
    return (hardware?.packets ?? 0) > 0 && rule?.comment ? [rule.comment] : [];
  });
}

async function runGrant(flowCase: FlowCase, { concede }: Grant) {
  return withLab(flowCase.scene, async (lab) => {
    const { ruleset, facts } = await prepare(lab, flowCase);
    const replyPorts = concede.includes('reply-ports') ? REPLY_PORTS : null;
    await lab.deploy({ ruleset, facts, concessions: concede, replyPorts });
    const outcomes = await lab.flows();
    const counts = await hardwareCounts(lab, ruleset);
    return { outcomes, counts, drops: await lab.xdpDrops() };
  });
}

onKernel.concurrent.each(FLOW_CASES)('flows come through as before: $name', async (flowCase) => {
  const alone = await withLab(flowCase.scene, async (lab) => {
    const { facts } = await prepare(lab, flowCase);
    expect(facts).toMatchObject({ conntrackFresh: true, groOff: true, rxVlanOff: true });
    return lab.flows();
  });
  const stopped = Object.keys(alone).filter((name) => alone[name] !== 'ok');
  const names = new Set(stopped.map((name) => name.split(' ')[0]));
  expect([...names].sort()).toEqual([...flowCase.stopped].sort());
  for (const grant of flowCase.grants) {
    const { outcomes, counts, drops } = await runGrant(flowCase, grant);
    const what = grant.concede.join(', ');
    expect(outcomes, what).toEqual({ ...alone, ...grant.givesUp });
    expect(counts, what).toEqual(expect.arrayContaining([...grant.counts]));
    expect(drops, what).toBeGreaterThan(0);
  }
});
