import { formatRuleId, type RuleId } from '../ir/ruleset.ts';
import type { Explanation, Move, QuotedRule, TierView } from '../plan/explain.ts';
import { HOST, type PlannedReason, positionOf, withoutCounts } from '../plan/report.ts';
import { cutText, paint, showControls, type Terminal, wrapText } from './output.ts';

/** Rules that are listed of many. */
const MOST_LISTED = 5;
/** Text is not set wider than this, however wide the terminal is. */
const MOST_COLUMNS = 110;

/** A paragraph: its first line hangs out where `label` is. */
interface Item {
  readonly label: string;
  readonly text: string;
}

interface Section {
  readonly title: string;
  readonly items: readonly Item[];
}

function item(text: string, label = ''): Item {
  return { label, text };
}

/** The rule with as much of its place as the reader needs. */
function nameRule(rule: RuleId, from: RuleId): string {
  const { family, table, chain } = rule;
  const isSame = family === from.family && table === from.table && chain === from.chain;
  return isSame ? `rule ${positionOf(rule)}` : `rule ${formatRuleId(rule)}`;
}

function quoteRule({ rule, text }: QuotedRule, from: RuleId): string {
  return `${nameRule(rule, from)} (${withoutCounts(text)})`;
}

/** A reason as a chain: what it stands behind, and why that is not decided either. */
function describeReason({ message, by }: PlannedReason, from: RuleId): string {
  if (by === undefined) return message;
  const why = by.why === '' ? '' : `, because ${by.why}`;
  return `${quoteRule(by, from)} comes first and cannot be decided here${why}`;
}

function describeTier({ tier, decides, reasons }: TierView, from: RuleId): Item {
  const because = reasons.map((reason) => describeReason(reason, from)).join('; ');
  if (!decides) return item(`no: ${because}`, `${tier}:`);
  return item(because === '' ? 'yes' : `yes, but not all of it: ${because}`, `${tier}:`);
}

function describePath({ path, tiers }: Explanation, from: RuleId): readonly Item[] {
  if (path === null) return [item(tiers[0]?.reasons[0]?.message ?? 'none gets to it')];
  const chains = path.chains.map(({ chain, hook, priority, rules }, at) => {
    const isLast = at === path.chains.length - 1;
    const here = isLast
      ? path.calls.length === 0
        ? ': it stands here'
        : ': it is called here'
      : '';
    const count = `${rules} rule${rules === 1 ? '' : 's'}`;
    return item(`${chain} (hook ${hook}, priority ${priority}, ${count})${here}`, `${at + 1}.`);
  });
  const calls = path.calls.map((call) => item(quoteRule(call, from), 'by'));
  return [...chains, ...calls];
}

function describeTakers({ takenBy, path }: Explanation, from: RuleId): readonly Item[] {
  if (path === null) return [];
  if (takenBy.length === 0) return [item('all that match it: no rule before it takes any of them')];
  const all = takenBy.find((one) => one.all);
  if (all !== undefined) return [item(`none: ${quoteRule(all, from)} takes all that match it`)];
  const listed = takenBy.slice(0, MOST_LISTED).map((one) => item(quoteRule(one, from), '-'));
  const more = takenBy.length - listed.length;
  return [
    item('those that match it, less what rules before it may take:'),
    ...listed,
    ...(more > 0 ? [item(`${more} more before these`, '-')] : []),
  ];
}

function describeCost({ tiers, usage }: Explanation): readonly Item[] {
  const costs = tiers
    .filter(({ decides }) => decides)
    .flatMap(({ tier, cost }) =>
      Object.entries(cost).map(([resource, used]) => {
        const limit = usage.find((one) => one.tier === tier && one.resource === resource)?.limit;
        return item(`${used} ${resource}${limit == null ? '' : ` of ${limit}`}`, tier);
      }),
    );
  return costs.length > 0 ? costs : [item('nothing in hardware')];
}

function describeMove(move: Move, from: RuleId): Item {
  const { kind, change, tier, partly, equivalent, conflicts } = move;
  const to = `moves ${partly ? 'a part of it' : 'it'} to ${tier}`;
  const text = withoutCounts(change);
  if (kind !== 'reorder') return item(`${text}: ${to}`, '-');
  if (equivalent === true) return item(`${text}: ${to}, and nothing else changes`, '-');
  const listed = conflicts.slice(0, MOST_LISTED).map((one) => quoteRule(one, from));
  const more = conflicts.length > MOST_LISTED ? ` and ${conflicts.length - MOST_LISTED} more` : '';
  const differs = `packets that match it and ${listed.join(', ')}${more} may then fare differently`;
  return item(`${text}: ${to}, but changes the ruleset: ${differs}`, '-');
}

function describeMoves(
  { moves, stays, tier, profiles }: Explanation,
  from: RuleId,
): readonly Item[] {
  if (tier === profiles[0]) return [item('nothing to move: it is decided in the first tier')];
  if (moves.length > 0) {
    const needsFacts = moves.some(({ change }) => change.includes('--fact'));
    const note = needsFacts ? [item('(facts have to be true of the machine)')] : [];
    return [...moves.map((move) => describeMove(move, from)), ...note];
  }
  if (tier !== HOST)
    return [item(`nothing was found that moves it nearer to the wire than ${tier}`)];
  const because = (stays ?? []).map((reason) => describeReason(reason, from)).join('; ');
  return [item(`nothing: it stays in nftables whatever is told or given up, because ${because}`)];
}

function renderItems(items: readonly Item[], terminal: Terminal): readonly string[] {
  const width = Math.min(terminal.width, MOST_COLUMNS);
  const indent = Math.max(0, ...items.map(({ label }) => label.length));
  return items.flatMap(({ label, text }) => {
    const gap = indent === 0 ? 0 : indent + 1;
    const own = label === '' ? 0 : gap;
    const lines = wrapText(showControls(text), Math.max(20, width - 2 - own));
    return lines.map((line, at) => {
      const head = at === 0 ? label : '';
      return cutText(`  ${own === 0 ? '' : `${head.padEnd(indent)} `}${line}`, terminal.width);
    });
  });
}

/** An explanation for people: where, why, what comes before, what it costs, what would move it. */
export function renderExplanation(explanation: Explanation, terminal: Terminal): string {
  const { rule, text, comment, tier, tiers, findings, device } = explanation;
  const where = tier === HOST ? 'nftables' : tier;
  const sections: readonly Section[] = [
    {
      title: `Decided in ${where}`,
      items: tiers.map((view) => describeTier(view, rule)),
    },
    { title: `The way of a frame received on ${device}`, items: describePath(explanation, rule) },
    { title: 'Packets it sees', items: describeTakers(explanation, rule) },
    { title: 'What it costs', items: describeCost(explanation) },
    {
      title: 'What would move it (each tried)',
      items: describeMoves(explanation, rule),
    },
    { title: 'Findings', items: findings.map(({ message }) => item(withoutCounts(message), '-')) },
  ];
  const said = comment === null || text.includes(comment) ? [] : [`  # ${showControls(comment)}`];
  return [
    paint(terminal, 'bold', showControls(formatRuleId(rule))),
    ...renderItems([item(withoutCounts(text))], terminal),
    ...said,
    ...sections.flatMap(({ title, items }) =>
      items.length === 0
        ? []
        : ['', paint(terminal, 'bold', title), ...renderItems(items, terminal)],
    ),
  ].join('\n');
}
