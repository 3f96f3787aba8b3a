import { expect, it } from 'vitest';
import { renderPlan } from '../../src/cli/plan-table.ts';
import { formatHtml } from '../../src/plan/html.ts';
import { formatMarkdown } from '../../src/plan/markdown.ts';
import type { PlannedRule, PlanReport } from '../../src/plan/report.ts';
import { groupRules } from '../../src/plan/report.ts';

const chain = { family: 'inet', table: 'filter', chain: 'input' } as const;

function planned(index: number, host: boolean): PlannedRule {
  const by = { rule: { ...chain, handle: 1, index: 0 }, text: 'ct state new', why: 'ct state' };
  return {
    rule: { ...chain, handle: index + 10, index },
    text: `tcp flags fin|syn tcp dport ${index} drop`,
    tier: host ? 'host' : 'xdp-native',
    reasons: host ? [{ code: 'plan/behind-undecided', message: 'rule 1 is undecided', by }] : [],
    cost: {},
  };
}

function reportOf(rules: readonly PlannedRule[]): PlanReport {
  return {
    format: 'nft-offload/plan@1',
    device: 'eth0',
    profiles: ['xdp-native'],
    rules,
    usage: [],
    concessions: [{ name: 'log', unlocks: 2 }],
    together: null,
    facts: {},
    findings: [],
  };
}

const long = reportOf(Array.from({ length: 5000 }, (_, at) => planned(at, at >= 4000)));
const short = reportOf([planned(0, false), planned(1, true), planned(2, true)]);

it('groups neighbours only', () => {
  const [first, , third] = short.rules;
  if (first === undefined || third === undefined) throw new Error('bug: three rules');
  expect(groupRules([first, third]).map(({ groups }) => groups.length)).toEqual([2]);
  expect(groupRules(short.rules)[0]?.groups.map(({ rules }) => rules.length)).toEqual([1, 2]);
});

it.each([80, 160])('sums up 5,000 rules in %d columns', (width) => {
  const lines = renderPlan(long, { width, colour: false }).split('\n');
  expect(lines.length).toBeLessThan(16);
  expect(lines.every((line) => line.length <= width)).toBe(true);
  expect(lines.join('\n')).toMatch(/10-4009 +xdp-native +4000 rules, first: tcp flags/);
});

it('lists every rule when asked', () => {
  const terminal = { width: 80, colour: false };
  const text = renderPlan(long, terminal, { tier: null, all: true, findings: false });
  expect(text.split('\n').length).toBeGreaterThan(5000);
  expect(text).toContain('these 1000: behind rule 1, which cannot be decided here');
});

it('shows one tier', () => {
  const terminal = { width: 80, colour: false };
  const text = renderPlan(short, terminal, { tier: 'host', all: false, findings: false });
  expect(text).toContain('only host: 2 of 3');
  expect(text).not.toContain('dport 0');
});

it('writes Markdown for a ticket', () => {
  expect(`\n${formatMarkdown(short)}`).toBe(`
# Offload plan for eth0

| Tier | Rules | Share |
| --- | --- | --- |
| xdp-native | 1 | 33.3 % |
| host | 2 | 66.7 % |

## Rules

### inet filter input

| Rules | Tier | Rule | Why |
| --- | --- | --- | --- |
| 10 | xdp-native | \`tcp flags fin\\|syn tcp dport 0 drop\` |  |
| 11-12 | host | \`tcp flags fin\\|syn tcp dport 1 drop\` and 1 more | behind rule 1, which cannot be decided here \\[1\\] |

\\[1\\] rule 1 is undecided

## Concessions that would move more

| Concession | What it does |
| --- | --- |
| \`--concede log\` | moves 2 rules |

## What to do next

- Decide whether \`--concede log\` is acceptable (moves 2 rules).
- For rules behind an undecided one, \`nft-offload explain RULE\` says what moves them.
- \`nft-offload deploy --dry-run\` shows the steps that put this in place.`);
});

const changing = reportOf(Array.from({ length: 5000 }, (_, at) => planned(at, at % 2 === 0)));

it.each([60, 80, 120, 200])('sums up 5,000 rules of changing tiers in %d columns', (width) => {
  const lines = renderPlan(changing, { width, colour: false }).split('\n');
  expect(lines.length).toBeLessThan(16);
  expect(lines.every((line) => line.length <= width)).toBe(true);
  expect(lines.join('\n')).toMatch(/10\.\.5008 +host +2500 rules, first: tcp flags/);
});

it('keeps a ticket within what GitHub takes', () => {
  // 65,536 characters, the limit of an issue's or comment's body.
  expect(formatMarkdown(changing).length).toBeLessThan(65_536);
});

it('gives an example where reasons differ in numbers only', () => {
  const rules = changing.rules.map((rule, at) => ({
    ...rule,
    reasons: [{ code: 'plan/capacity', message: `it takes ${at} rows` }],
  }));
  const [chainGroups] = groupRules(rules, 60);
  expect(chainGroups?.groups.map(({ reasons }) => reasons[0]?.message)).toEqual([
    'e.g. it takes 0 rows',
    'e.g. it takes 1 rows',
  ]);
});

const finding = {
  code: 'finding/redundant',
  rule: { ...chain, handle: 12, index: 2 },
  by: [],
  message: 'nothing changes without it',
};

it('lists a few findings, more when asked', () => {
  const report = { ...short, findings: Array.from({ length: 9 }, () => finding) };
  const terminal = { width: 80, colour: false };
  const few = renderPlan(report, terminal);
  expect(few).toContain('Findings (9)\n  inet filter input handle 12: nothing changes without it');
  expect(few).toContain('and 6 more: --findings lists them');
  const all = renderPlan(report, terminal, { tier: null, all: false, findings: true });
  expect(all.split('nothing changes without it').length).toBe(10);
  expect(formatMarkdown(report)).toContain('## Findings about the ruleset\n\n- inet filter input');
});

it('writes a page that needs nothing else', () => {
  const evil = { ...planned(0, true), text: '<script>alert("x")</script> & `', tier: 'host' };
  const page = formatHtml({ ...long, rules: [...long.rules, evil], findings: [finding] });
  expect(page).toContain('&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; `');
  expect(page).not.toMatch(/<script|<link|<img|https?:|url\(/);
  expect(page).toContain('<summary><code>tcp flags fin|syn tcp dport 0 drop</code> and 3999 more');
  expect(page).toContain('prefers-color-scheme: dark');
  // Every element that is opened is closed, in order.
  const open: string[] = [];
  for (const [, close, name = ''] of page.matchAll(/<(\/?)([a-z][a-z0-9]*)[^>]*>/g)) {
    if (close === '/') expect(open.pop()).toBe(name);
    else if (name !== 'meta') open.push(name);
  }
  expect(open).toEqual([]);
});
