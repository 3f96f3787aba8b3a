import { expect, it } from 'vitest';
import { formatAddress } from '../../src/ir/print.ts';
import type { Ruleset } from '../../src/ir/ruleset.ts';
import { probeDeployLab } from '../support/deploy-lab.ts';
import { openSocketLab, type SocketLab, type SocketMode } from '../support/socket-lab.ts';
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

/** Namespaces that are busy at the same time; flows mostly wait. */
const AT_ONCE = 6;
let busy = 0;
const waiting: (() => void)[] = [];

async function inTurn<T>(work: () => Promise<T>): Promise<T> {
  if (busy >= AT_ONCE) await new Promise<void>((resolve) => waiting.push(resolve));
  else busy += 1;
  try {
    return await work();
  } finally {
    const next = waiting.shift();
    if (next === undefined) busy -= 1;
    else next();
  }
}

async function loadCase(lab: SocketLab, { text, sysctls = [] }: FlowCase): Promise<Ruleset> {
  for (const setting of sysctls) await lab.run('sysctl', '-qw', setting);
  return lab.loadRuleset(text);
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

async function runGrant(flowCase: FlowCase, { concede }: Grant, mode: SocketMode) {
  return withLab(flowCase.scene, async (lab) => {
    const ruleset = await loadCase(lab, flowCase);
    const found = await lab.probe();
    expect(found).toMatchObject({ conntrackFresh: true, groOff: true, rxVlanOff: true });
    // The one fact nobody can read off: the lab has a default route, and every link takes 1500 bytes.
    const facts = { ...found, routed: true };
    const replyPorts = concede.includes('reply-ports') ? REPLY_PORTS : null;
    await lab.deploy({ ruleset, facts, concessions: concede, replyPorts }, mode);
    const outcomes = await lab.flows(flowCase.only);
    const counts = await hardwareCounts(lab, ruleset);
    return { outcomes, counts, drops: mode === 'native' ? await lab.xdpDrops() : null };
  });
}

onKernel.concurrent.each(FLOW_CASES)('flows come through as before: $name', async (flowCase) => {
  const alone = inTurn(() =>
    withLab(flowCase.scene, async (lab) => {
      await loadCase(lab, flowCase);
      return lab.flows(flowCase.only);
    }),
  );
  const granted = flowCase.grants.map((grant) => inTurn(() => runGrant(flowCase, grant, 'native')));
  const last = flowCase.grants.at(-1);
  if (last !== undefined) granted.push(inTurn(() => runGrant(flowCase, last, 'generic')));
  await Promise.all([alone, ...granted]);
  const before = await alone;
  const stopped = Object.keys(before).filter((name) => before[name] !== 'ok');
  const names = new Set(stopped.map((name) => name.split(' ')[0]));
  expect([...names].sort()).toEqual([...flowCase.stopped].sort());
  const grants = [...flowCase.grants, ...(last === undefined ? [] : [last])];
  for (const [index, { concede, counts, givesUp }] of grants.entries()) {
    const result = await granted[index];
    const what = [...concede, ...(index < flowCase.grants.length ? [] : ['generic'])].join(', ');
    expect(result?.outcomes, what).toEqual({ ...before, ...givesUp });
    expect(result?.counts, what).toEqual(expect.arrayContaining([...counts]));
    if (result?.drops !== null) expect(result?.drops, what).toBeGreaterThan(0);
  }
});

const CLOSED = `table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
  }
}`;

onKernel('a flow from before the ruleset needs the fact to be true', async () => {
  await withLab('host', async (lab) => {
    const open = await lab.loadRuleset(
      'table inet filter { chain input { type filter hook input priority filter; ct state new accept; }; }',
    );
    expect(open.tables).toHaveLength(1);
    const held = await lab.hold();
    const ruleset = await lab.loadRuleset(CLOSED);
    expect(await held.talk()).toBe('ok');
    const facts = await lab.probe();
    expect(facts.conntrackFresh).toBe(false);
    const situation = {
      ruleset,
      facts,
      concessions: ['reply-ports'],
      replyPorts: REPLY_PORTS,
    } as const;
    await lab.deploy(situation);
    expect(await held.talk()).toBe('ok');
    await lab.deploy({ ...situation, facts: { ...facts, conntrackFresh: true } });
    expect(await held.talk()).toBe('read: timeout');
    await lab.deploy(situation);
    expect(await held.talk()).toBe('ok');
    await held.close();
  });
});

onKernel.each(['host', 'behind'] as const)(
  "the addresses found are the kernel's: %s",
  async (scene) => {
    await withLab(scene, async (lab) => {
      const { localAddresses } = await lab.probe();
      const found = (localAddresses ?? []).map(formatAddress);
      const routes = await Promise.all(
        ['-4', '-6'].map((family) =>
          lab.run('ip', family, 'route', 'show', 'table', 'local', 'type', 'local'),
        ),
      );
      const kernel = routes
        .join('')
        .split('\n')
        .flatMap((line) => line.replace('local ', '').split(' ')[0] || []);
      expect(kernel.filter((name) => !name.includes('/')).sort()).toEqual([...found].sort());
    });
  },
);
