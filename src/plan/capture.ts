import type { Classifier, Entry, Target } from '../ir/classifier.ts';
import { formatRuleId, type RuleId } from '../ir/ruleset.ts';

const PASS: Target = { kind: 'accept' };
const SELECT: Target = { kind: 'drop' };

/**
 * The classifier that drops what reaches a rule and matches it, and nothing else: a filter for
 * captures. What nobody can tell, here or on the way there, is not selected; nothing is counted.
 */
export function captureRule(classifier: Classifier, rule: RuleId): Classifier {
  const name = formatRuleId(rule);
  const isOfRule = (entry: Entry | undefined): boolean =>
    entry?.rule !== null && entry !== undefined && formatRuleId(entry.rule) === name;
  const passing = (target: Target): Target => (target.kind === 'entry' ? target : PASS);
  const entries = classifier.entries.map((entry): Entry => {
    const { then } = entry;
    // A rule may be several entries, the last of which says that all of it matches.
    const goesOn = then.kind === 'entry' && isOfRule(classifier.entries[then.index]);
    return {
      ...entry,
      counts: [],
      effects: [],
      then: isOfRule(entry) && !goesOn ? SELECT : passing(then),
      otherwise: passing(entry.otherwise),
    };
  });
  return { ...classifier, entries, counters: [] };
}
