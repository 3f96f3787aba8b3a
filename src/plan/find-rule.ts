import { formatRuleId, type Rule, type Ruleset } from '../ir/ruleset.ts';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { rulesOf } from './plan.ts';
import { withoutCounts } from './report.ts';

/** Rules that are listed when several are meant. */
const MOST_LISTED = 10;

/** Words that name a place in a ruleset: a handle or a position, and what goes before it. */
interface Address {
  /** Chain; table, chain; or family, table, chain. */
  readonly words: readonly string[];
  readonly handle: number | null;
  /** From 0. */
  readonly index: number | null;
}

function parseAddress(text: string): Address | null {
  const [, before = '', handle, position] =
    /^(.*?)(?:(?:^|\s)(?:handle\s+)?(\d+)|(?:^|\s)#(\d+))$/.exec(text) ?? [];
  if (handle === undefined && position === undefined) return null;
  const words = before.split(/\s+/).filter((word) => word !== '');
  if (words.length > 3) return null;
  return {
    words,
    handle: handle === undefined ? null : Number(handle),
    index: position === undefined ? null : Number(position) - 1,
  };
}

function isInChain({ id }: Rule, words: readonly string[]): boolean {
  const path = [id.family, id.table, id.chain];
  return words.every((word, at) => path[path.length - words.length + at] === word);
}

function findByAddress(rules: readonly Rule[], { words, handle, index }: Address): readonly Rule[] {
  const inChain = rules.filter((rule) => isInChain(rule, words));
  return inChain.filter(({ id }) => (handle === null ? id.index === index : id.handle === handle));
}

function findByText(rules: readonly Rule[], text: string): readonly Rule[] {
  const textsOf = (rule: Rule) => [rule.text, withoutCounts(rule.text), rule.comment ?? ''];
  const exact = rules.filter((rule) => textsOf(rule).includes(text));
  if (exact.length > 0) return exact;
  return rules.filter((rule) => textsOf(rule).some((one) => one.includes(text)));
}

function listRules(rules: readonly Rule[]): string {
  const lines = rules
    .slice(0, MOST_LISTED)
    .map(({ id, text }) => `\n  ${formatRuleId(id)}: ${withoutCounts(text)}`);
  const more = rules.length - lines.length;
  return lines.join('') + (more > 0 ? `\n  ... and ${more} more` : '');
}

/**
 * The rule that a user means: `12` (handle), `#3` (position), either with a chain before it (`input
 * 12`, `inet filter input #3`, `inet filter input handle 12`), or a part of its text or comment.
 */
export function findRule(ruleset: Ruleset, query: string): Result<Rule> {
  const rules = rulesOf(ruleset);
  const text = query.trim();
  const address = parseAddress(text);
  const addressed = address === null ? [] : findByAddress(rules, address);
  const isBare = address !== null && address.words.length === 0;
  const found = addressed.length > 0 || isBare || text === '' ? addressed : findByText(rules, text);
  const [only] = found;
  if (only !== undefined && found.length === 1) return succeed(only);
  if (only === undefined) {
    const hasHandles = rules.some(({ id }) => id.handle !== null);
    const help = hasHandles
      ? 'name it by handle (`plan` shows them), `family table chain #3`, or a part of its text'
      : 'the rules have no handles here: name it by `family table chain #3` or a part of its text';
    return fail(errorAt('explain/no-such-rule', `no rule is meant by \`${text}\``, { help }));
  }
  const message = `\`${text}\` is ${found.length} rules:${listRules(found)}`;
  const help = 'name one, as `family table chain handle 12` or `family table chain #3`';
  return fail(errorAt('explain/several-rules', message, { help }));
}
