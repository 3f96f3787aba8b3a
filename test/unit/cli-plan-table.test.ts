import { expect, it } from 'vitest';
import { renderPlan } from '../../src/cli/plan-table.ts';
import type { PlanReport } from '../../src/plan/report.ts';

const input = { family: 'inet', table: 'filter', chain: 'input' } as const;

const report: PlanReport = {
  format: 'nft-offload/plan@1',
  device: 'eth0',
  profiles: ['xdp-native'],
  rules: [
    {
      rule: { family: 'netdev', table: 'edge', chain: 'ingress', handle: 6, index: 0 },
      text: 'ip saddr @blocklist counter drop',
      tier: 'xdp-native',
      reasons: [],
      cost: { insns: 12 },
    },
    {
      rule: { ...input, handle: null, index: 1 },
      text: 'ct state vmap { invalid : drop, established : accept, related : accept }',
      tier: 'host',
      reasons: [{ code: 'plan/state', message: 'connection tracking is known to the kernel only' }],
      cost: {},
    },
  ],
  usage: [
    { tier: 'xdp-native', resource: 'insns', used: 412, limit: 1_000_000 },
    { tier: 'xdp-native', resource: 'maps', used: 1, limit: null },
  ],
  concessions: [{ name: 'syn-is-new', unlocks: 7 }],
  together: null,
  facts: { role: 'router', 'local-address': ['10.0.0.1', '10.0.1.1'] },
  findings: [],
};

it('renders a plan on a narrow terminal', () => {
  expect(`\n${renderPlan(report, { width: 60, colour: false })}`).toBe(`
eth0: 2 rules: xdp-native 1, host 1

netdev edge ingress
   6 xdp-native  ip saddr @blocklist counter drop

inet filter input
  #2 host        ct state vmap { invalid : drop, establish…
                   connection tracking is known to the
                   kernel only

Used
  xdp-native  insns  412  of 1000000  0.0 %
  xdp-native  maps   1    no limit

Would move more
  --concede syn-is-new  moves 7 rules

Facts relied on
  role           router
  local-address  10.0.0.1, 10.0.1.1`);
});

it('puts reasons beside their rules on a wide terminal', () => {
  const text = renderPlan(report, { width: 140, colour: false });
  expect(text).toMatch(/#2 host +ct state vmap .* {2}connection tracking is known/);
  expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThanOrEqual(140);
});
