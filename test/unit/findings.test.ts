import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { formatRuleId, type RuleId } from '../../src/ir/ruleset.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { findFindings } from '../../src/plan/findings.ts';
import { rulesOf } from '../../src/plan/plan.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';

const FILE = join(import.meta.dirname, '../explain/findings.nft.json');
const ruleset = unwrap(readJsonText(readFileSync(FILE, 'utf8'), FILE));
const rules = rulesOf(ruleset);
const findings = findFindings(ruleset, labFacts('host'));

function nameOf({ chain, index }: RuleId): string {
  return `${chain} ${index}`;
}

it('finds what the comments say, and nothing else', () => {
  const wanted = rules.flatMap(({ id, comment }) =>
    comment === null ? [] : [`${nameOf(id)}: finding/${comment}`],
  );
  const found = findings.flatMap(({ rule, code }) =>
    rule === null ? [] : [`${nameOf(rule)}: ${code}`],
  );
  expect(found).toEqual(wanted);
});

function messageOf(text: string): string | undefined {
  const rule = rules.find((one) => one.text.startsWith(text));
  if (rule === undefined) throw new Error(`bug: no rule ${text}`);
  const key = formatRuleId(rule.id);
  return findings.find((one) => one.rule !== null && formatRuleId(one.rule) === key)?.message;
}

it.each([
  [
    'ip saddr 10.1.2.0/24',
    /no packet is left for it: rule .*\(ip saddr 10\.1\.0\.0\/16 counter drop\)/,
  ],
  ['tcp dport 22 drop', /rule .*\(tcp dport 22 accept\) asks for the same and comes first/],
  [
    'tcp dport 1-100',
    /no packet can match it: tcp dport 1-100 and tcp dport 200-300 never hold together/,
  ],
  ['tcp dport 7 drop', /nothing changes without it: rule .* decides the same/],
  ['tcp dport 9 drop', /nothing calls chain unused: its 2 rules never run/],
  ['tcp dport 1 accept', /the rules that lead here never match/],
])('explains `%s`', (text, message) => {
  expect(messageOf(text)).toMatch(message);
});

it('tells which set elements can be one', () => {
  const sets = findings.filter(({ code }) => code.endsWith('-elements'));
  expect(sets.map(({ message }) => message)).toEqual([
    'set inet filter merge: 3 elements can be written as 2: ip saddr 192.0.2.0/25 and ip saddr 192.0.2.128/25 touch',
  ]);
});
