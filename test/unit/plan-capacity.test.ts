import { beforeAll, expect, it } from 'vitest';
import type { Concession } from '../../src/ir/concede.ts';
import type { Ruleset } from '../../src/ir/ruleset.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { refuseConcession } from '../../src/plan/check-concessions.ts';
import type { Situation } from '../../src/plan/place.ts';
import { placeTables } from '../../src/plan/place-tcam.ts';
import { planRuleset } from '../../src/plan/plan.ts';
import { groupRules } from '../../src/plan/report.ts';
import { weighRules } from '../../src/plan/weights.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { Profile, XdpProfile } from '../../src/profile/schema.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';

type Json = Readonly<Record<string, unknown>>;

function match(protocol: string, field: string, right: unknown): Json {
  return { match: { op: '==', left: { payload: { protocol, field } }, right } };
}

const STATE: Json = {
  match: { op: 'in', left: { ct: { key: 'state' } }, right: ['established', 'related'] },
};
const counted = (packets: number): Json => ({ counter: { packets, bytes: packets * 60 } });
const drop: Json = { drop: null };
const accept: Json = { accept: null };
const port = (dport: number): Json => match('udp', 'dport', dport);
const source = (saddr: string): Json => match('ip', 'saddr', saddr);

/** Rules of one chain at input or ingress, as nft lists them. */
function rulesetOf(hook: 'input' | 'ingress', ...exprs: readonly (readonly Json[])[]): Ruleset {
  const family = hook === 'ingress' ? 'netdev' : 'inet';
  const own = { family, table: 't', chain: 'c' };
  const base = {
    ...{ family, table: 't', name: 'c', type: 'filter', hook, prio: 0, policy: 'accept' },
    ...(hook === 'ingress' ? { dev: 'eth0' } : {}),
  };
  const rules = exprs.map((expr, at) => ({ rule: { ...own, handle: at + 1, expr } }));
  const nftables = [{ table: { family, name: 't' } }, { chain: base }, ...rules];
  return unwrap(readJsonText(JSON.stringify({ nftables }), 'test'));
}

function situationOf(ruleset: Ruleset, change: Partial<Situation> = {}): Situation {
  return { ruleset, facts: labFacts('host'), concessions: [], replyPorts: null, ...change };
}

const profiles = new Map<string, Profile>();

beforeAll(async () => {
  for (const name of ['xdp-native', 'xdp-generic', 'netdevsim', 'spectrum', 'e810']) {
    profiles.set(name, unwrap(await loadProfile(name)));
  }
});

function profileOf(name: string): Profile {
  const profile = profiles.get(name);
  if (profile === undefined) throw new Error(`bug: ${name} is not loaded`);
  return profile;
}

function small(insns: number): XdpProfile {
  const profile = profileOf('xdp-native');
  if (profile.kind !== 'xdp-native') throw new Error('bug: another kind');
  const limit = { ...profile.limits.insns, value: insns };
  return { ...profile, name: 'small', limits: { ...profile.limits, insns: limit } };
}

const EDGE = rulesetOf(
  'ingress',
  [source('10.0.0.1'), accept],
  [source('10.9.9.9'), accept],
  [source('10.0.0.2'), port(1), counted(5), drop],
  [match('ip', 'daddr', '10.9.0.1'), port(2), counted(9000), drop],
  [source('10.0.0.3'), port(3), counted(700), drop],
);

it('takes what is worth most, and says what stands in the way of the rest', () => {
  const all = unwrap(planRuleset(situationOf(EDGE), [profileOf('xdp-native')]));
  const [whole] = all.usage;
  const report = unwrap(planRuleset(situationOf(EDGE), [small((whole?.used ?? 0) - 1)]));
  const tiers = report.rules.map(({ tier, reasons }) => [tier, ...reasons.map(({ code }) => code)]);
  expect(tiers).toEqual([
    ['host', 'plan/guard'],
    ['host', 'plan/guard'],
    ['host', 'plan/capacity'],
    ['small'],
    ['small'],
  ]);
  const [reason] = report.rules[2]?.reasons ?? [];
  expect(reason?.message).toMatch(
    /^no room on small: it would take about \d+ insns, \d+ are left; its weight is 6, there are c rule 4 \(weight 9001\)/,
  );
  expect(reason?.room).toMatchObject({
    resource: 'insns',
    guardRows: 0,
    instead: [{ handle: 4 }, { handle: 5 }],
  });
  expect(report.usage[0]?.used).toBeLessThan(whole?.used ?? 0);
});

it('sums rules without room up in words that hold for all', () => {
  const many = rulesetOf(
    'ingress',
    ...Array.from({ length: 40 }, (_, at) => [source(`10.1.0.${at}`), port(at + 1), drop]),
  );
  const report = unwrap(planRuleset(situationOf(many), [small(200)]));
  const groups = groupRules(report.rules).flatMap((chain) => chain.groups);
  expect(groups.map(({ tier }) => tier)).toEqual(['small', 'host']);
  expect(groups[1]?.reasons.map(({ message }) => message)).toEqual([
    'no room on small: what is worth more for what it takes has its insns',
  ]);
});

it('gives later tiers what earlier ones have no room for', () => {
  const many = rulesetOf(
    'ingress',
    ...Array.from({ length: 60 }, (_, at) => [source(`10.1.0.${at}`), port(at + 1), drop]),
  );
  const [first, second] = [small(200), { ...small(200), name: 'second' }];
  const report = unwrap(planRuleset(situationOf(many), [first, second, profileOf('xdp-native')]));
  const count = (name: string) => report.rules.filter(({ tier }) => tier === name).length;
  expect(count('small')).toBeGreaterThan(0);
  // The second is as big, and drops others.
  expect(count('second')).toBe(count('small'));
  expect(count('host')).toBe(0);
});

it('plans the same ruleset on three profiles, and refuses a kind without a backend', () => {
  const tiers = ['netdevsim', 'xdp-native', 'xdp-generic'].map(profileOf);
  const report = unwrap(planRuleset(situationOf(EDGE), tiers));
  expect(report.profiles).toEqual(['netdevsim', 'xdp-native', 'xdp-generic']);
  expect(new Set(report.usage.map(({ tier }) => tier)).size).toBe(3);
  const refused = planRuleset(situationOf(EDGE), [
    { ...profileOf('spectrum'), kind: 'none' } as never,
  ]);
  expect(refused.diagnostics.map(({ code }) => code)).toEqual(['plan/tier-kind']);
});

it('weighs by counters, and what has none as the average', () => {
  const { rules, usual } = weighRules(
    rulesetOf(
      'input',
      [port(1), counted(10), drop],
      [port(2), drop],
      [counted(99), port(3), drop],
      [port(4), counted(20), drop],
    ),
  );
  expect([...rules].sort().map(([, weight]) => weight)).toEqual([11, 16, 16, 21]);
  expect(usual).toBe(16);
});

const STATEFUL = rulesetOf(
  'input',
  [STATE, accept],
  [port(53), { log: null }, { reject: { type: 'icmpx', expr: 'port-unreachable' } }],
  [match('tcp', 'dport', 23), drop],
);

it('offers concessions alone and together', () => {
  const { concessions, together } = unwrap(
    planRuleset(situationOf(STATEFUL), [profileOf('xdp-native')]),
  );
  const fresh = ['conntrack=fresh'];
  expect(concessions).toEqual([
    { name: 'log', unlocks: 0 },
    { name: 'reject-as-drop', unlocks: 0 },
    { name: 'syn-is-new', unlocks: 1 },
    { name: 'reply-ports', unlocks: 1, value: '32768-60999', needs: fresh },
  ]);
  // Log, reject and a packet of no known flow: more than the sum.
  expect(together?.unlocks).toBe(2);
  expect(together?.names.slice(0, 2)).toEqual(['log', 'reject-as-drop']);
});

const NAT = rulesetOf('input', [STATE, accept], [{ masquerade: null }]);
const HELPER = rulesetOf('input', [STATE, accept], [{ 'ct helper': 'ftp' }]);
const REWRITTEN = rulesetOf(
  'input',
  [STATE, accept],
  [{ mangle: { key: { payload: { protocol: 'ip', field: 'daddr' } }, value: '10.0.0.9' } }],
);
const PLAIN = rulesetOf('input', [port(53), drop]);
const within: Json = { limit: { rate: 10, per: 'second', burst: 5 } };

it.each<readonly [Concession, Ruleset, string | null]>([
  ['log', PLAIN, 'concession/no-help'],
  ['reject-as-drop', PLAIN, 'concession/no-help'],
  ['counters', PLAIN, 'concession/no-help'],
  ['counters', EDGE, null],
  ['limit-as-accept', PLAIN, 'concession/no-help'],
  ['limit-as-accept', rulesetOf('input', [within, drop]), 'concession/unsafe'],
  ['limit-as-accept', rulesetOf('input', [within, accept]), null],
  ['syn-is-new', PLAIN, 'concession/no-help'],
  ['syn-is-new', STATEFUL, null],
  ['syn-is-new', NAT, 'concession/unsafe'],
  ['syn-is-new', HELPER, 'concession/unsafe'],
  ['syn-is-new', REWRITTEN, 'concession/unsafe'],
  ['reply-ports', STATEFUL, 'concession/fact'],
  ['reply-ports', NAT, 'concession/unsafe'],
])('%s is refused where it cannot help or is unsafe', (name, ruleset, code) => {
  expect(refuseConcession(name, situationOf(ruleset))?.code ?? null).toBe(code);
});

it('takes reply-ports with the facts it needs', () => {
  const facts = { ...labFacts('host'), conntrackFresh: true };
  expect(refuseConcession('reply-ports', situationOf(STATEFUL, { facts }))).toBeNull();
});

function prefix(addr: string, len: number): Json {
  const left = { payload: { protocol: 'ip', field: 'saddr' } };
  return { match: { op: '==', left, right: { prefix: { addr, len } } } };
}

it('rows in more layers than a device has priorities: the rules that are worth most, or a refusal', () => {
  const nested = [30, 28, 24, 20, 16].map((len, at): readonly Json[] => [
    prefix('10.0.0.0', len),
    ...(at % 2 === 0 ? [counted(at === 4 ? 900 : 10), drop] : [accept]),
  ]);
  const ruleset = rulesetOf('ingress', ...nested, [prefix('192.168.0.0', 16), drop]);
  const e810 = profileOf('e810');
  if (e810.kind !== 'tcam') throw new Error('bug: no TCAM');
  const situation = situationOf(ruleset, { concessions: ['counters'] });
  const request = { format: 'rte-flow', profile: e810, effort: 'normal', since: null } as const;
  const { artifact, choice } = unwrap(placeTables(situation, { ...request, final: false }));
  const text = Buffer.from(artifact.files[0]?.content ?? '').toString();
  const used = new Set([...text.matchAll(/priority (\d+) /g)].map(([, priority]) => priority));
  expect(used.size).toBeLessThanOrEqual(3);
  // The one that drops most comes with the rows in front that continue.
  expect(choice?.chosen.has('netdev t c handle 5')).toBe(true);
  expect(choice?.leftOver.size).toBeGreaterThan(0);
  expect(text).toMatch(/priority 1 .*mask 255\.255\.240\.0 .*actions rss/);
  expect(text).toMatch(/priority 2 .*mask 255\.255\.0\.0 .*actions drop/);
  const refused = placeTables(situation, { ...request, final: true });
  expect(refused.ok).toBe(false);
  expect(refused.diagnostics[0]).toMatchObject({
    code: 'tcam/too-big',
    message: expect.stringMatching(/^priorities: \d+ needed, e810 has 3$/),
  });
});
