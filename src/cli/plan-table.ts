import type { PlannedRule, PlanReport } from '../plan/report.ts';
import type { Terminal } from './output.ts';
import { cutText, paint, renderTable, showControls, wrapText } from './output.ts';

/** Below this many columns a reason goes on lines of its own under its rule. */
const WIDE = 110;
const HOST = 'host';
const GAP = '  ';

function chainOf({ rule }: PlannedRule): string {
  return `${rule.family} ${rule.table} ${rule.chain}`;
}

/** The rule's position as people count, `12` or `#3` when it has no handle. */
function positionOf({ rule }: PlannedRule): string {
  return rule.handle === null ? `#${rule.index + 1}` : `${rule.handle}`;
}

function reasonsOf({ reasons }: PlannedRule): string {
  return showControls(reasons.map(({ message }) => message).join('; '));
}

function groupByChain(rules: readonly PlannedRule[]): ReadonlyMap<string, readonly PlannedRule[]> {
  const groups = new Map<string, PlannedRule[]>();
  for (const rule of rules) {
    const group = groups.get(chainOf(rule)) ?? [];
    group.push(rule);
    groups.set(chainOf(rule), group);
  }
  return groups;
}

interface Columns {
  readonly position: number;
  readonly tier: number;
  readonly rule: number;
  /** 0 when reasons go below. */
  readonly reason: number;
}

function measureColumns(report: PlanReport, width: number): Columns {
  const longest = (texts: readonly string[]) => Math.max(1, ...texts.map((text) => text.length));
  const position = longest(report.rules.map(positionOf));
  const tier = longest(report.rules.map((rule) => rule.tier));
  const rest = Math.max(20, width - position - tier - 3 * GAP.length);
  if (width < WIDE) return { position, tier, rule: rest, reason: 0 };
  const rule = Math.min(longest(report.rules.map(({ text }) => text)), Math.floor(rest / 2));
  return { position, tier, rule, reason: rest - rule - GAP.length };
}

function renderRule(rule: PlannedRule, columns: Columns, terminal: Terminal): string {
  const offloaded = rule.tier !== HOST;
  const position = positionOf(rule).padStart(columns.position);
  const tier = paint(terminal, offloaded ? 'green' : 'yellow', rule.tier.padEnd(columns.tier));
  const text = cutText(showControls(rule.text), columns.rule);
  const head = [GAP.slice(1), position, tier].join(' ');
  const reason = reasonsOf(rule);
  if (reason === '') return `${head}${GAP}${text}`;
  const indent = ' '.repeat(1 + columns.position + columns.tier + 2 * GAP.length);
  if (columns.reason === 0) {
    const lines = wrapText(reason, Math.max(20, columns.rule - 2));
    const below = lines.map((line) => `${indent}  ${paint(terminal, 'dim', line)}`);
    return [`${head}${GAP}${text}`, ...below].join('\n');
  }
  const [first = '', ...more] = wrapText(reason, columns.reason);
  const beside = `${head}${GAP}${text.padEnd(columns.rule)}${GAP}${paint(terminal, 'dim', first)}`;
  const hanging = `${indent}${' '.repeat(columns.rule + GAP.length)}`;
  return [beside, ...more.map((line) => `${hanging}${paint(terminal, 'dim', line)}`)].join('\n');
}

function renderSummary(report: PlanReport): string {
  const counts = new Map<string, number>(report.profiles.map((name) => [name, 0]));
  for (const { tier } of report.rules) counts.set(tier, (counts.get(tier) ?? 0) + 1);
  const total = report.rules.length;
  const parts = [...counts].map(([tier, count]) => `${tier} ${count}`);
  return `${report.device}: ${total} rule${total === 1 ? '' : 's'}: ${parts.join(', ')}`;
}

function renderUsage(report: PlanReport): readonly string[][] {
  return report.usage.map(({ tier, resource, used, limit }) => {
    const share = limit === null ? '' : `${((100 * used) / limit).toFixed(1)} %`;
    return [`  ${tier}`, resource, `${used}`, limit === null ? 'no limit' : `of ${limit}`, share];
  });
}

function renderFacts(report: PlanReport): readonly string[][] {
  return Object.entries(report.facts).map(([name, value]) => [
    `  ${name}`,
    typeof value === 'string' ? value : value.join(', '),
  ]);
}

function section(
  terminal: Terminal,
  title: string,
  rows: readonly (readonly string[])[],
): readonly string[] {
  if (rows.length === 0) return [];
  return ['', paint(terminal, 'bold', title), renderTable(rows, terminal.width)];
}

/** A plan for people: rules chain by chain, then what is used, what would help, what was relied on. */
export function renderPlan(report: PlanReport, terminal: Terminal): string {
  const columns = measureColumns(report, terminal.width);
  const lines = [paint(terminal, 'bold', renderSummary(report))];
  for (const [chain, rules] of groupByChain(report.rules)) {
    lines.push('', paint(terminal, 'bold', chain));
    for (const rule of rules) lines.push(renderRule(rule, columns, terminal));
  }
  const offers = report.concessions.map(({ name, unlocks }) => [
    `  --concede ${name}`,
    `moves ${unlocks} rule${unlocks === 1 ? '' : 's'}`,
  ]);
  lines.push(...section(terminal, 'Used', renderUsage(report)));
  lines.push(...section(terminal, 'Would move more', offers));
  lines.push(...section(terminal, 'Facts relied on', renderFacts(report)));
  return lines.join('\n');
}
