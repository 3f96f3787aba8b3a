import { beforeAll, expect, it } from 'vitest';
import { CBPF_DEFAULTS } from '../../src/backends/cbpf/compile.ts';
import { loadProgram } from '../../src/backends/cbpf/interpret.ts';
import { compileRules, linkPieces, type PieceCache } from '../../src/backends/cbpf/per-rule.ts';
import { nothingKnown } from '../../src/ir/facts.ts';
import { flatten } from '../../src/ir/flatten.ts';
import type { Ruleset } from '../../src/ir/ruleset.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { placeCbpf } from '../../src/plan/place-cbpf.ts';
import { planRuleset } from '../../src/plan/plan.ts';
import type { CbpfProfile } from '../../src/profile/schema.ts';
import { loadCbpfProfile } from '../support/cbpf-run.ts';
import { ethernet, ipv4, tcp, udp } from '../support/frames.ts';
import { unwrap } from '../support/pipeline.ts';

let profile: CbpfProfile;

beforeAll(async () => {
  profile = await loadCbpfProfile();
});

const FACTS = { ...nothingKnown('eth0'), groOff: true, rxVlanOff: true };

function matches(protocol: string, field: string, right: number | string): unknown {
  return { match: { op: '==', left: { payload: { protocol, field } }, right } };
}

/** A netdev chain with these rules; each drops unless it says otherwise. */
function readRules(
  rules: readonly (readonly unknown[])[],
  verdicts: readonly string[] = [],
): Ruleset {
  const base = { family: 'netdev', table: 't' };
  const hook = { type: 'filter', hook: 'ingress', dev: 'eth0', prio: 0, policy: 'accept' };
  const nftables = [
    { metainfo: { json_schema_version: 1 } },
    { table: { family: 'netdev', name: 't', handle: 1 } },
    { chain: { ...base, name: 'c', handle: 1, ...hook } },
    ...rules.map((expr, at) => {
      const verdict = { [verdicts[at] ?? 'drop']: null };
      return { rule: { ...base, chain: 'c', handle: at + 2, expr: [...expr, verdict] } };
    }),
  ];
  return unwrap(readJsonText(JSON.stringify({ nftables }), 'test.json'));
}

function frameFrom(host: string, port = 80): Uint8Array {
  return ethernet({}, ipv4({ saddr: host }, tcp({ dport: port })));
}

const fromHost = (host: string) => [matches('ip', 'saddr', host)];
const toPort = (port: number) => [matches('tcp', 'dport', port)];
const hostOf = (at: number): string => `10.${at >> 8}.${at & 255}.1`;

it('makes anew the code of the one rule that changed, and only that', () => {
  const ports = [22, 23, 80, 443, 8080];
  const classifierOf = (changed: number) => {
    const rules = ports.map((port, at) => toPort(at === 2 ? changed : port));
    return flatten(readRules(rules), FACTS).classifier;
  };
  const cache: PieceCache = new Map();
  const before = compileRules(classifierOf(80), CBPF_DEFAULTS, cache);
  const after = compileRules(classifierOf(81), CBPF_DEFAULTS, cache);
  expect(after.made).toBe(1);
  expect(after.pieces.map((piece, at) => piece === before.pieces[at])).toEqual(
    after.pieces.map((_, at) => at !== 2),
  );
  const lines = linkPieces(classifierOf(81), after.pieces, CBPF_DEFAULTS.returns);
  const machine = loadProgram(lines.map(({ insn }) => insn));
  const drops = [80, 81, 8080].map((port) => machine(frameFrom('10.0.0.2', port)).value === 0);
  expect(drops).toEqual([false, true, true]);
});

it('places what fits where a program would be too long', () => {
  const rules = Array.from({ length: 4500 }, (_, at) => fromHost(hostOf(at)));
  const situation = { ruleset: readRules(rules), facts: FACTS, concessions: [], replyPorts: null };
  const placed = unwrap(placeCbpf(situation, profile, { ...CBPF_DEFAULTS, rule: null }));
  const { artifact, choice } = placed;
  expect(artifact.insns.length).toBeLessThanOrEqual(4096);
  expect(artifact.insns.length).toBeGreaterThan(3700);
  const machine = loadProgram(artifact.insns);
  const drops = rules.filter((_, at) => machine(frameFrom(hostOf(at))).value === 0);
  expect(drops.length).toBeGreaterThan(3500);
  expect(choice?.chosen.size).toBe(drops.length);
  expect(choice?.leftOver.size).toBe(rules.length - drops.length);
});

it('selects what reaches one rule and matches it', () => {
  const rules = [fromHost('10.0.0.2'), toPort(22), toPort(80), toPort(443)];
  const ruleset = readRules(rules, ['drop', 'accept', 'accept', 'drop']);
  const rule = ruleset.tables[0]?.chains[0]?.rules[2]?.id ?? null;
  const situation = { ruleset, facts: FACTS, concessions: [], replyPorts: null };
  const returns = { drop: 1, continue: 0 };
  const { artifact } = unwrap(placeCbpf(situation, profile, { ...CBPF_DEFAULTS, returns, rule }));
  const machine = loadProgram(artifact.insns);
  const selects = (frame: Uint8Array): boolean => machine(frame).value === 1;
  expect(selects(frameFrom('10.0.0.3'))).toBe(true);
  expect(selects(frameFrom('10.0.0.2'))).toBe(false);
  expect(selects(frameFrom('10.0.0.3', 443))).toBe(false);
  expect(selects(ethernet({}, ipv4({ saddr: '10.0.0.3' }, udp({ dport: 80 }))))).toBe(false);
});

it('is a tier of plans: what has no room is said to be left out', () => {
  const limits = { ...profile.limits, insns: { ...profile.limits.insns, value: 40 } };
  const rules = Array.from({ length: 60 }, (_, at) => fromHost(hostOf(at)));
  const situation = { ruleset: readRules(rules), facts: FACTS, concessions: [], replyPorts: null };
  const report = unwrap(planRuleset(situation, [{ ...profile, limits }])).rules;
  const placed = report.filter(({ tier }) => tier === 'cbpf');
  const left = report.filter(({ reasons }) => reasons.some(({ code }) => code === 'plan/capacity'));
  expect(placed.length).toBeGreaterThan(20);
  expect(placed.length + left.length).toBe(rules.length);
});
