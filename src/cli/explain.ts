import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { explainRule } from '../plan/explain.ts';
import { findRule } from '../plan/find-rule.ts';
import { loadShippedProfiles } from '../profile/load.ts';
import { unwrapResult } from './exit.ts';
import { renderExplanation } from './explain-text.ts';
import { addHostOption } from './machine.ts';
import type { CommonOptions } from './options.ts';
import { addSituationOptions, loadProfiles, readSituation } from './options.ts';
import { describeTerminal } from './output.ts';

const EXAMPLES = `
RULE is a handle (plan shows them), a position in a chain, or a part of the rule's text or comment:

  nft-offload explain rules.nft 12 --dev eth0
  nft-offload explain rules.nft input 12 --dev eth0
  nft-offload explain rules.nft 'inet filter input #3' --dev eth0
  nft-offload explain rules.nft 'tcp dport 23' --dev eth0 --fact role=host
  nft -j list ruleset | nft-offload explain - inet filter input handle 12 --dev eth0
  nft-offload explain 'known abusers' --dev eth0        (the live ruleset)`;

/** A first word that is a ruleset and not already a part of RULE. */
function isRuleset(word: string): boolean {
  return word === '-' || /[/]|\\.(nft|json)$/.test(word) || existsSync(word);
}

async function runExplain(
  words: readonly string[],
  options: CommonOptions,
  command: Command,
): Promise<void> {
  const [first = '', ...rest] = words;
  const hasRuleset = rest.length > 0 && isRuleset(first);
  const path = hasRuleset ? first : undefined;
  const query = (hasRuleset ? rest : words).join(' ');
  const situation = unwrapResult(await readSituation(command, path, options));
  if (situation === null) return;
  const rule = unwrapResult(findRule(situation.ruleset, query));
  if (rule === null) return;
  const profiles = unwrapResult(await loadProfiles(options.profile));
  const shipped = unwrapResult(await loadShippedProfiles());
  if (profiles === null || shipped === null) return;
  const others = shipped.filter(({ name }) => !profiles.some((given) => given.name === name));
  const explanation = unwrapResult(explainRule(situation, profiles, others, rule));
  if (explanation === null) return;
  const text = options.json
    ? JSON.stringify(explanation, null, 2)
    : renderExplanation(explanation, describeTerminal(process.stdout));
  console.log(text);
}

/** `explain`: why one rule is where it is, and what would move it. */
export function addExplainCommand(program: Command): void {
  const command = program
    .command('explain')
    .usage('[options] [RULESET] RULE')
    .argument('<RULE...>', 'the rule, after a .nft file, JSON, or - ; without one the live ruleset')
    .description('say why one rule is where it is, and try what would move it');
  addHostOption(addSituationOptions(command)).addHelpText('after', EXAMPLES).action(runExplain);
}
