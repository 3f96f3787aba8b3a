import { formatRuleId } from '../ir/ruleset.ts';
import { describeOffer, describeTogether } from './describe-offers.ts';
import {
  type ChainGroups,
  countTiers,
  createFootnotes,
  type Footnotes,
  groupRules,
  HOST,
  MANY_GROUPS,
  type PlanReport,
  positionOf,
  type RuleGroup,
  spanOf,
  withoutCounts,
} from './report.ts';

/** Groups of so many rules are folded. */
const FOLD_FROM = 6;

const STYLE = `
:root { color-scheme: light dark; --text: #1b1f24; --dim: #59636e; --back: #fff; --line: #d1d9e0;
  --offloaded: #1a7f37; --host: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --dim: #9198a1; --back: #0d1117;
  --line: #3d444d; --offloaded: #3fb950; --host: #d29922; } }
body { margin: 2rem auto; max-width: 75rem; padding: 0 1rem; background: var(--back);
  color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 0.5rem; font-family: ui-monospace, monospace; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: 0.3rem 0.75rem 0.3rem 0; text-align: left;
  vertical-align: top; }
th { color: var(--dim); font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 13px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
ol { margin: 0.25rem 0; } summary { cursor: pointer; }
.offloaded { color: var(--offloaded); } .host { color: var(--host); } .why { color: var(--dim); }
.rules td:nth-child(3) { width: 50%; }
.bar { background: var(--line); height: 0.5rem; margin: 0.5rem 0 1rem; }
.bar div { background: var(--offloaded); height: 100%; }
@media print { details > * { display: block; } }
`.trim();

function escapeHtml(text: string): string {
  const names: Readonly<Record<string, string>> = { '&': 'amp', '<': 'lt', '>': 'gt', '"': 'quot' };
  return text
    .replace(/\p{Cc}+/gu, ' ')
    .replace(/[&<>"]/g, (letter) => `&${names[letter] ?? 'amp'};`);
}

/** A cell: HTML, and a class where it has one. */
type Cell = string | { readonly html: string; readonly style: string };

function formatRow(tag: 'td' | 'th', cells: readonly Cell[]): string {
  const formatted = cells.map((cell) =>
    typeof cell === 'string'
      ? `<${tag}>${cell}</${tag}>`
      : `<${tag} class="${cell.style}">${cell.html}</${tag}>`,
  );
  return `<tr>${formatted.join('')}</tr>`;
}

function formatTable(
  head: readonly Cell[],
  rows: readonly (readonly Cell[])[],
  style = '',
): string {
  return [
    style === '' ? '<table>' : `<table class="${style}">`,
    `<thead>${formatRow('th', head)}</thead>`,
    '<tbody>',
    ...rows.map((row) => formatRow('td', row)),
    '</tbody></table>',
  ].join('\n');
}

function number(value: string): Cell {
  return { html: value, style: 'number' };
}

function section(
  title: string,
  head: readonly Cell[],
  rows: readonly (readonly Cell[])[],
): string[] {
  return rows.length === 0 ? [] : [`<h2>${title}</h2>`, formatTable(head, rows)];
}

function code(text: string): string {
  return `<code>${escapeHtml(withoutCounts(text))}</code>`;
}

function formatRules({ rules }: RuleGroup): string {
  const [first] = rules;
  if (first === undefined) return '';
  if (rules.length === 1) return code(first.text);
  const items = rules.map(({ rule, text }) => `<li>${positionOf(rule)} ${code(text)}</li>`);
  const list = `<ul>${items.join('\n')}</ul>`;
  if (rules.length < FOLD_FROM) return list;
  const summary = `${code(first.text)} and ${rules.length - 1} more`;
  return `<details><summary>${summary}</summary>${list}</details>`;
}

function formatGroup(group: RuleGroup, notes: Footnotes): readonly Cell[] {
  const [first] = group.rules;
  const why = group.reasons.map((reason) =>
    first === undefined ? '' : escapeHtml(notes.shorten(reason, first.rule)),
  );
  return [
    number(spanOf(group)),
    { html: escapeHtml(group.tier), style: group.tier === HOST ? 'host' : 'offloaded' },
    formatRules(group),
    { html: why.join('; '), style: 'why' },
  ];
}

function formatChain({ chain, groups }: ChainGroups, notes: Footnotes): string {
  const head = [number('Rules'), 'Tier', 'Rule', 'Why'];
  const rows = groups.map((group) => formatGroup(group, notes));
  return `<h3>${escapeHtml(chain)}</h3>\n${formatTable(head, rows, 'rules')}`;
}

function formatSummary(report: PlanReport): string {
  const total = Math.max(1, report.rules.length);
  const counts = countTiers(report);
  const share = (count: number): string => ((100 * count) / total).toFixed(1);
  const rows = [...counts].map(([tier, count]) => [
    escapeHtml(tier),
    number(`${count}`),
    number(`${share(count)} %`),
  ]);
  const offloaded = share(report.rules.length - (counts.get(HOST) ?? 0));
  return [
    `<div class="bar" title="${offloaded} % offloaded"><div style="width: ${offloaded}%"></div></div>`,
    formatTable(['Tier', number('Rules'), number('Share')], rows),
  ].join('\n');
}

function formatUsage({ usage }: PlanReport): string[] {
  const rows = usage.map(({ tier, resource, used, limit }) => [
    escapeHtml(tier),
    escapeHtml(resource),
    number(`${used}`),
    number(limit === null ? 'no limit' : `${limit}`),
  ]);
  return section('Used', ['Tier', 'Resource', number('Used'), number('Limit')], rows);
}

function formatFacts({ facts }: PlanReport): string[] {
  const rows = Object.entries(facts).map(([name, value]) => [
    code(name),
    code(typeof value === 'string' ? value : value.join(', ')),
  ]);
  return section('Facts relied on', ['Fact', 'Value'], rows);
}

function formatFindings({ findings }: PlanReport): string[] {
  const rows = findings.map(({ rule, message }) => [
    rule === null ? '' : code(formatRuleId(rule)),
    escapeHtml(message),
  ]);
  return section('Findings about the ruleset', ['Rule', 'Finding'], rows);
}

/** A plan as one HTML page that needs nothing else: no script, no font, no picture. */
export function formatHtml(report: PlanReport, shown = report.rules): string {
  const notes = createFootnotes();
  const chains = groupRules(shown, MANY_GROUPS).map((chain) => formatChain(chain, notes));
  const footnotes = notes.lines().map((note) => `<p class="why">${escapeHtml(note)}</p>`);
  const offers = report.concessions
    .map(describeOffer)
    .map(([option, what]) => [code(option), escapeHtml(what)]);
  const together = describeTogether(report);
  const title = `Offload plan for ${escapeHtml(report.device)}`;
  return [
    '<!DOCTYPE html>',
    '<html lang="en"><head><meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">`,
    `<title>${title}</title>`,
    `<style>\n${STYLE}\n</style></head><body>`,
    `<h1>${title}</h1>`,
    formatSummary(report),
    '<h2>Rules</h2>',
    ...chains,
    ...footnotes,
    ...formatUsage(report),
    ...section('Concessions that would move more', ['Concession', 'What it does'], offers),
    ...(together === null ? [] : [`<p>${escapeHtml(together)}.</p>`]),
    ...formatFacts(report),
    ...formatFindings(report),
    '</body></html>',
    '',
  ].join('\n');
}
