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
  type RuleGroup,
  spanOf,
  withoutCounts,
} from './report.ts';

/** Text that Markdown shows as it is, on one line of a table. */
function escapeText(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ').replace(/[\\`*_[\]<>|#~]/g, '\\$&');
}

/** Code inside a table; a fence longer than any run of back quotes in it, `|` escaped. */
function formatCode(text: string): string {
  const plain = text.replace(/\p{Cc}+/gu, ' ').replaceAll('|', '\\|');
  const runs = [...plain.matchAll(/`+/g)].map(([run]) => run.length);
  const fence = '`'.repeat(1 + Math.max(0, ...runs));
  const pad = plain.startsWith('`') || plain.endsWith('`') ? ' ' : '';
  return `${fence}${pad}${plain}${pad}${fence}`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return ['', line(head), line(head.map(() => '---')), ...rows.map(line)];
}

function section(
  title: string,
  head: readonly string[],
  rows: readonly (readonly string[])[],
): string[] {
  return rows.length === 0 ? [] : ['', `## ${title}`, ...table(head, rows)];
}

function formatGroup(group: RuleGroup, notes: Footnotes): readonly string[] {
  const [first] = group.rules;
  if (first === undefined) return [];
  const rest = group.rules.length - 1;
  const text = formatCode(withoutCounts(first.text)) + (rest === 0 ? '' : ` and ${rest} more`);
  const why = group.reasons.map((reason) => escapeText(notes.shorten(reason, first.rule)));
  return [escapeText(spanOf(group)), escapeText(group.tier), text, why.join('; ')];
}

function formatChain({ chain, groups }: ChainGroups, notes: Footnotes): string[] {
  const rows = groups.map((group) => formatGroup(group, notes));
  return ['', `### ${escapeText(chain)}`, ...table(['Rules', 'Tier', 'Rule', 'Why'], rows)];
}

/** What a reader of the ticket can do about rules that stay. */
function nextSteps(report: PlanReport): string[] {
  const steps = report.concessions
    .map(describeOffer)
    .map(([option, what]) => `Decide whether \`${option}\` is acceptable (${what}).`);
  const left = report.rules.filter(({ tier }) => tier === HOST);
  const asked = left.flatMap(({ reasons }) => reasons.flatMap(({ code }) => code));
  if (asked.some((code) => code.startsWith('fact/') || code.startsWith('counter/'))) {
    steps.push('Give the facts that the reasons name (`--fact NAME=VALUE`), then plan again.');
  }
  if (asked.includes('plan/behind-undecided')) {
    steps.push(
      'For rules behind an undecided one, `nft-offload explain RULE` says what moves them.',
    );
  }
  if (left.length < report.rules.length) {
    steps.push('`nft-offload deploy --dry-run` shows the steps that put this in place.');
  }
  return steps.length === 0
    ? []
    : ['', '## What to do next', '', ...steps.map((step) => `- ${step}`)];
}

/** Findings that a ticket lists. */
const MOST_FINDINGS = 20;

function formatFindings({ findings }: PlanReport): string[] {
  if (findings.length === 0) return [];
  const lines = findings.slice(0, MOST_FINDINGS).map(({ rule, message }) => {
    const name = rule === null ? '' : `${formatRuleId(rule)}: `;
    return `- ${escapeText(name + message)}`;
  });
  const more = findings.length - lines.length;
  const rest = more > 0 ? [`- and ${more} more: \`nft-offload plan --findings\` lists them`] : [];
  return ['', '## Findings about the ruleset', '', ...lines, ...rest];
}

/** A plan as Markdown for a change ticket; `shown` picks the rules that are listed. */
export function formatMarkdown(report: PlanReport, shown = report.rules): string {
  const notes = createFootnotes();
  const total = Math.max(1, report.rules.length);
  const summary = [...countTiers(report)].map(([tier, count]) => [
    escapeText(tier),
    `${count}`,
    `${((100 * count) / total).toFixed(1)} %`,
  ]);
  const chains = groupRules(shown, MANY_GROUPS).flatMap((chain) => formatChain(chain, notes));
  const footnotes = notes.lines();
  const usage = report.usage.map(({ tier, resource, used, limit }) => [
    escapeText(tier),
    escapeText(resource),
    `${used}`,
    limit === null ? 'no limit' : `${limit}`,
  ]);
  const facts = Object.entries(report.facts).map(([name, value]) => [
    escapeText(name),
    escapeText(typeof value === 'string' ? value : value.join(', ')),
  ]);
  const offers = report.concessions
    .map(describeOffer)
    .map(([option, what]) => [formatCode(option), what]);
  const together = describeTogether(report);
  return [
    `# Offload plan for ${escapeText(report.device)}`,
    ...table(['Tier', 'Rules', 'Share'], summary),
    '',
    '## Rules',
    ...chains,
    ...footnotes.flatMap((note) => ['', escapeText(note)]),
    ...section('Used', ['Tier', 'Resource', 'Used', 'Limit'], usage),
    ...section('Concessions that would move more', ['Concession', 'What it does'], offers),
    ...(together === null ? [] : ['', `${escapeText(together)}.`]),
    ...section('Facts relied on', ['Fact', 'Value'], facts),
    ...formatFindings(report),
    ...nextSteps(report),
  ].join('\n');
}
