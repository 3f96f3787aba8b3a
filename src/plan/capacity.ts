import type { RuleId } from '../ir/ruleset.ts';
import type { Candidate, Choice } from './choose.ts';
import { type PlannedReason, positionOf } from './report.ts';

/** How many of the rules that are there instead are named. */
const NAMED = 3;

function byWeight(a: Candidate, b: Candidate): number {
  return b.weight - a.weight || (a.drops[0] ?? 0) - (b.drops[0] ?? 0);
}

const rankings = new WeakMap<Choice, readonly Candidate[]>();

/** The chosen ones worth most, sorted once a choice. */
function rankChosen(choice: Choice): readonly Candidate[] {
  let ranked = rankings.get(choice);
  if (ranked === undefined) {
    ranked = [...choice.chosen.values()].sort(byWeight).slice(0, NAMED);
    rankings.set(choice, ranked);
  }
  return ranked;
}

function nameCandidate({ rule, label, weight }: Candidate): string {
  const name = rule === null ? label : `${rule.chain} rule ${positionOf(rule)}`;
  return `${name} (weight ${weight})`;
}

/** Why a tier leaves a rule out that it could decide; nothing where size is not the reason. */
export function explainRoom(tier: string, choice: Choice, key: string): readonly PlannedReason[] {
  const needed = choice.leftOver.get(key);
  if (needed === undefined) return [];
  const { resource, own, guards, guardRows, left, weight } = needed;
  const instead = rankChosen(choice);
  const rows = `${guardRows} guard row${guardRows === 1 ? '' : 's'}`;
  const more = guardRows === 0 ? '' : ` and its ${rows} about ${guards}`;
  const named = instead.map(nameCandidate).join(', ');
  const summary = `no room on ${tier}: what is worth more for what it takes has its ${resource}`;
  const message =
    `no room on ${tier}: it would take about ${own} ${resource}${more}, ${left} are left` +
    `; its weight is ${weight}, there are ${named || 'no others'}`;
  const rules = instead.flatMap(({ rule }): RuleId[] => (rule === null ? [] : [rule]));
  const room = { resource, own, guards, guardRows, left, instead: rules };
  return [{ code: 'plan/capacity', message, summary, room }];
}

/** Why a rule is in a tier that does not decide it. */
export function guardReason(tier: string): PlannedReason {
  const message =
    `guard row on ${tier}: packets that match go on to nftables, ` +
    'so that rules behind it can be decided for the others';
  return { code: 'plan/guard', message };
}
