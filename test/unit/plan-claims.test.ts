import { beforeAll, expect, it } from 'vitest';
import { readJsonValue } from '../../src/nft/ruleset-json.ts';
import { planRuleset } from '../../src/plan/plan.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { Profile } from '../../src/profile/schema.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';

let native: Profile;

beforeAll(async () => {
  native = unwrap(await loadProfile('xdp-native'));
});

const match = (left: object, right: unknown) => ({ match: { op: '==', left, right } });
const tcp = match({ meta: { key: 'l4proto' } }, 'tcp');
const port = (protocol: string, value: number) =>
  match({ payload: { protocol, field: 'dport' } }, value);
const established = match({ ct: { key: 'state' } }, { set: ['established'] });

function plan(rules: readonly (readonly unknown[])[], fresh: boolean) {
  const place = { family: 'inet', table: 'filter' };
  const hook = { type: 'filter', hook: 'input', prio: 0, policy: 'accept' };
  const nftables = [
    { table: { family: 'inet', name: 'filter' } },
    { chain: { ...place, name: 'input', ...hook } },
    ...rules.map((expr, at) => ({ rule: { ...place, chain: 'input', handle: at + 1, expr } })),
  ];
  const ruleset = unwrap(readJsonValue({ nftables }, 'test'));
  const facts = { ...labFacts('host'), conntrackFresh: fresh };
  const situation = { ruleset, facts, concessions: [], replyPorts: null };
  return unwrap(planRuleset(situation, [native])).rules.map(({ tier, reasons }) => [
    tier,
    ...reasons.map(({ code }) => code),
  ]);
}

it('claims no rule all of whose packets an earlier one hands on', () => {
  const accept = [tcp, established, { accept: null }];
  const drops = [
    [port('tcp', 23), { drop: null }],
    [port('udp', 23), { drop: null }],
  ];
  expect(plan([accept, ...drops], false)).toEqual([
    ['host', 'match/ct-state'],
    ['host', 'plan/behind-undecided'],
    ['xdp-native'],
  ]);
});

it('claims no rule where only packets of other protocols come', () => {
  // Fresh connection tracking decides for echo requests only, as long as reply ports are not known.
  const accept = [established, { accept: null }];
  const drops = [[port('udp', 23), { drop: null }], [{ drop: null }]];
  expect(plan([accept, ...drops], true).map(([tier]) => tier)).toEqual([
    'host',
    'host',
    'xdp-native',
  ]);
});
