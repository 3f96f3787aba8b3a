import { formatRuleId } from '../ir/ruleset.ts';
import { describeOffer, describeTogether } from '../plan/describe-offers.ts';
import {
  type ChainGroups,
  countTiers,
  createFootnotes,
  type Finding,
  type Footnotes,
  groupRules,
  HOST,
  MANY_GROUPS,
  type PlanReport,
  positionOf,
  type RuleGroup,
  spanOf,
  withoutCounts,
} from '../plan/report.ts';
import type { Terminal } from './output.ts';
import { cutText, paint, renderTable, showControls, wrapText } from './output.ts';

/** Below this many columns a reason goes on lines of its own under its rules. */
const WIDE = 110;
/** Longer plans put rules of the same tier and reason into one line. */
const MANY_RULES = 200;
/** Findings that are listed unasked, and how many of more. */
const FEW_FINDINGS = 5;
const SOME_FINDINGS = 3;
const GAP = '  ';

/** Which rules of a plan are shown, and how. */
export interface PlanView {
  /** Only rules of this tier; null for all. */
  readonly tier: string | null;
  /** Each rule on its own line, however many there are. */
  readonly all: boolean;
  /** Every finding, however many there are. */
  readonly findings: boolean;
}

export const WHOLE_PLAN: PlanView = { tier: null, all: false, findings: false };

/** What a line of the table says. */
interface Line {
  readonly position: string;
  readonly tier: string;
  readonly text: string;
  /** Empty where the line below says it, or the one above. */
  readonly reason: string;
}

function reasonOf({ reasons, rules }: RuleGroup, notes: Footnotes): string {
  const [first] = rules;
  if (first === undefined) return '';
  return showControls(reasons.map((reason) => notes.shorten(reason, first.rule)).join('; '));
}

/** One line for the group. */
function sumUp(group: RuleGroup, notes: Footnotes): Line[] {
  const text = withoutCounts(group.rules[0]?.text ?? '');
  const count = group.rules.length === 1 ? '' : `${group.rules.length} rules, first: `;
  const reason = reasonOf(group, notes);
  return [{ position: spanOf(group), tier: group.tier, text: `${count}${text}`, reason }];
}

/** One line a rule; the reason they share is said beside the first or, `below`, once under the last. */
function listRules(group: RuleGroup, notes: Footnotes, below: boolean): Line[] {
  const { length } = group.rules;
  const reason = reasonOf(group, notes);
  return group.rules.map(({ rule, tier, text }, at) => {
    const line = { position: positionOf(rule), tier, text: withoutCounts(text) };
    if (length === 1 || reason === '') return { ...line, reason };
    if (!below) return { ...line, reason: at === 0 ? reason : '"' };
    return { ...line, reason: at === length - 1 ? `these ${length}: ${reason}` : '' };
  });
}

interface Columns {
  readonly position: number;
  readonly tier: number;
  readonly rule: number;
  /** 0 when reasons go below. */
  readonly reason: number;
}

function longest(lines: readonly Line[], pick: (line: Line) => string): number {
  return lines.reduce((most, line) => Math.max(most, pick(line).length), 1);
}

function measureColumns(lines: readonly Line[], width: number): Columns {
  const position = longest(lines, (line) => line.position);
  const tier = longest(lines, (line) => line.tier);
  const rest = Math.max(20, width - position - tier - 3 * GAP.length);
  if (width < WIDE) return { position, tier, rule: rest, reason: 0 };
  const rule = Math.min(
    longest(lines, ({ text }) => text),
    Math.floor(rest / 2),
  );
  return { position, tier, rule, reason: rest - rule - GAP.length };
}

function renderLine(line: Line, columns: Columns, terminal: Terminal): string {
  const { reason } = line;
  const style = line.tier === HOST ? 'yellow' : 'green';
  const tier = paint(terminal, style, line.tier.padEnd(columns.tier));
  const text = cutText(showControls(line.text), columns.rule);
  const head = [GAP.slice(1), line.position.padStart(columns.position), tier].join(' ');
  if (reason === '') return `${head}${GAP}${text}`;
  const indent = ' '.repeat(1 + columns.position + columns.tier + 2 * GAP.length);
  if (columns.reason === 0) {
    const lines = wrapText(reason, Math.max(20, columns.rule - 2));
    const below = lines.map((part) => `${indent}  ${paint(terminal, 'dim', part)}`);
    return [`${head}${GAP}${text}`, ...below].join('\n');
  }
  const [first = '', ...more] = wrapText(reason, columns.reason);
  const beside = `${head}${GAP}${text.padEnd(columns.rule)}${GAP}${paint(terminal, 'dim', first)}`;
  const hanging = `${indent}${' '.repeat(columns.rule + GAP.length)}`;
  return [beside, ...more.map((part) => `${hanging}${paint(terminal, 'dim', part)}`)].join('\n');
}

function renderSummary(report: PlanReport): string {
  const total = report.rules.length;
  const parts = [...countTiers(report)].map(([tier, count]) => `${tier} ${count}`);
  return `${report.device}: ${total} rule${total === 1 ? '' : 's'}: ${parts.join(', ')}`;
}

function renderChains(
  chains: readonly ChainGroups[],
  terminal: Terminal,
  toLines: (group: RuleGroup) => readonly Line[],
): readonly string[] {
  const listed = chains.map(({ chain, groups }) => ({ chain, lines: groups.flatMap(toLines) }));
  const columns = measureColumns(
    listed.flatMap(({ lines }) => lines),
    terminal.width,
  );
  return listed.flatMap(({ chain, lines }) => [
    '',
    paint(terminal, 'bold', showControls(chain)),
    ...lines.map((line) => renderLine(line, columns, terminal)),
  ]);
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

/** The rules a view shows. */
export function selectRules({ rules }: PlanReport, { tier }: PlanView): PlanReport['rules'] {
  return tier === null ? rules : rules.filter((rule) => rule.tier === tier);
}

function indentText(text: string, terminal: Terminal): readonly string[] {
  return wrapText(text, terminal.width - 4).map((part) => `  ${part}`);
}

function renderNotes(notes: readonly string[], terminal: Terminal): readonly string[] {
  const lines = notes.flatMap((note) =>
    wrapText(showControls(note), terminal.width - 6).map((part, at) =>
      at === 0 ? `  ${part}` : `      ${part}`,
    ),
  );
  return lines.length === 0 ? [] : ['', ...lines.map((line) => paint(terminal, 'dim', line))];
}

function nameFinding({ rule }: Finding): string {
  return rule === null ? '' : `${formatRuleId(rule)}: `;
}

function renderFindings(
  { findings }: PlanReport,
  { findings: all }: PlanView,
  terminal: Terminal,
): readonly string[] {
  if (findings.length === 0) return [];
  const isCut = !all && findings.length > FEW_FINDINGS;
  const lines = findings.slice(0, isCut ? SOME_FINDINGS : findings.length).flatMap((finding) => {
    const text = showControls(nameFinding(finding) + finding.message);
    return wrapText(text, terminal.width - 4).map((part, at) =>
      at === 0 ? `  ${part}` : `    ${part}`,
    );
  });
  const more = findings.length - SOME_FINDINGS;
  const rest = isCut ? [`  and ${more} more: --findings lists them`] : [];
  return ['', paint(terminal, 'bold', `Findings (${findings.length})`), ...lines, ...rest];
}

/** A plan for people: rules chain by chain, then what is used, what would help, what was relied on. */
export function renderPlan(
  report: PlanReport,
  terminal: Terminal,
  view: PlanView = WHOLE_PLAN,
): string {
  const notes = createFootnotes();
  const shown = selectRules(report, view);
  const isShort = view.all || shown.length <= MANY_RULES;
  const lines = [paint(terminal, 'bold', renderSummary(report))];
  if (view.tier !== null)
    lines.push(`only ${view.tier}: ${shown.length} of ${report.rules.length}`);
  const hint = 'rules of the same tier and reason in one line; --all lists every rule';
  if (!isShort) lines.push(...wrapText(hint, terminal.width));
  const below = terminal.width < WIDE;
  const toLines = (group: RuleGroup) =>
    isShort ? listRules(group, notes, below) : sumUp(group, notes);
  lines.push(
    ...renderChains(groupRules(shown, isShort ? undefined : MANY_GROUPS), terminal, toLines),
  );
  lines.push(...renderNotes(notes.lines(), terminal));
  const offers = report.concessions
    .map(describeOffer)
    .map(([option, what]) => [`  ${option}`, what]);
  const together = describeTogether(report);
  lines.push(...section(terminal, 'Used', renderUsage(report)));
  lines.push(...section(terminal, 'Would move more', offers));
  if (together !== null) lines.push(...indentText(together, terminal));
  lines.push(...section(terminal, 'Facts relied on', renderFacts(report)));
  lines.push(...renderFindings(report, view, terminal));
  return lines.join('\n');
}
