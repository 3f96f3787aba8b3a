import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { renderExplanation } from '../../src/cli/explain-text.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { type Explanation, explainRule } from '../../src/plan/explain.ts';
import { findRule } from '../../src/plan/find-rule.ts';
import { loadProfile } from '../../src/profile/load.ts';
import type { Profile } from '../../src/profile/schema.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';
import { PROJECT, runCli } from '../support/run-cli.ts';

const FILE = 'test/explain/station.nft.json';
const ruleset = unwrap(readJsonText(readFileSync(join(PROJECT, FILE), 'utf8'), FILE));
let native: Profile;

beforeAll(async () => {
  native = unwrap(await loadProfile('xdp-native'));
});

it.each([
  ['known abusers', 'netdev edge ingress 0'],
  ['26', 'inet filter forward 0'],
  ['handle 26', 'inet filter forward 0'],
  ['#1 of nothing', null],
  ['input #2', 'inet filter input 1'],
  ['inet filter input #2', 'inet filter input 1'],
  ['filter management handle 7', 'inet filter management 0'],
  ['inet filter input 12', 'inet filter input 1'],
  ['inet filter input 9999', null],
  ['tcp dport 113', 'inet filter input 6'],
  ['tcp dport 22 counter drop', 'inet filter input 3'],
  ['', null],
])('finds the rule that `%s` means', (query, wanted) => {
  const found = findRule(ruleset, query);
  const { family, table, chain, index } = found.ok ? found.value.id : { ...NOBODY };
  expect(found.ok ? `${family} ${table} ${chain} ${index}` : null).toBe(wanted);
});

const NOBODY = { family: '', table: '', chain: '', index: 0 };

it('lists the rules when several are meant', () => {
  const found = findRule(ruleset, 'tcp dport 3');
  expect(found.diagnostics).toEqual([
    expect.objectContaining({
      code: 'explain/several-rules',
      message: expect.stringMatching(/is 2 rules:\n {2}inet filter input handle \d+: tcp dport 3/),
    }),
  ]);
});

function explain(query: string): Explanation {
  const facts = { ...labFacts('host'), groOff: false, localAddresses: null, mac: null };
  const situation = { ruleset, facts, concessions: [], replyPorts: null };
  const rule = unwrap(findRule(ruleset, query));
  return unwrap(explainRule(situation, [native], [], rule));
}

it('reads as plain words', () => {
  const text = renderExplanation(explain('tcp dport 113'), { width: 90, colour: false });
  expect(`\n${text}`).toMatchInlineSnapshot(`
    "
    inet filter input handle 17
      tcp dport 113 reject with tcp reset

    Decided in nftables
      xdp-native: no: rule 12 (ct state vmap { invalid : drop, established : accept, related :
                  accept }) comes first and cannot be decided here, because ct state: depends
                  on connection tracking

    The way of a frame received on eth0
      1. netdev edge ingress (hook ingress, priority -500, 6 rules)
      2. netdev other ingress (hook ingress, priority 0, 1 rule)
      3. inet raw prerouting (hook prerouting, priority -300, 5 rules)
      4. inet filter input (hook input, priority 0, 14 rules): it stands here

    Packets it sees
      those that match it, less what rules before it may take:
      - rule 16 (ip saddr @scanners drop)
      - rule inet filter management handle 8 (tcp flags & (fin | syn) == fin,syn drop)
      - rule inet filter management handle 7 (ip saddr 203.0.113.0/24 accept)
      - rule 12 (ct state vmap { invalid : drop, established : accept, related : accept })
      - rule inet raw prerouting handle 6 (ip protocol gre drop)
      - 5 more before these

    What it costs
      nothing in hardware

    What would move it (each tried)
      - --fact local-address=ADDRESS... --fact conntrack=fresh --concede reject-as-drop: moves
        a part of it to xdp-native
      - --concede reject-as-drop --concede syn-is-new: moves a part of it to xdp-native
      (facts have to be true of the machine)"
  `);
});

it('fits every width', () => {
  const explanation = explain('meta pkttype broadcast');
  for (const width of [40, 60, 80, 120, 200]) {
    const lines = renderExplanation(explanation, { width, colour: false }).split('\n');
    expect(lines.filter((line) => line.length > width)).toEqual([]);
  }
});

it('answers with JSON', async () => {
  const run = await runCli(['explain', FILE, 'known', 'abusers', '--dev', 'eth0', '--json']);
  expect(JSON.parse(run.stdout)).toMatchObject({
    format: 'nft-offload/explain@1',
    tier: 'xdp-native',
    moves: [],
    stays: null,
  });
});

it('refuses what may be several rules', async () => {
  const run = await runCli(['explain', FILE, 'tcp dport', '--dev', 'eth0']);
  expect(run.exitCode).toBe(1);
  expect(run.stdout).toBe('');
  expect(run.stderr).toContain('explain/several-rules');
});

it('takes no answer for no question', async () => {
  expect((await runCli(['explain'])).exitCode).toBe(2);
});
