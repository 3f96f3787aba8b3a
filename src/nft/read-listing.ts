import type { Ruleset } from '../ir/ruleset.ts';
import { type Diagnostic, type Result, succeed } from '../support/diagnostics.ts';
import { parseBytecode, splitListing } from './bytecode.ts';
import { confirmRuleset, type Finding } from './confirm.ts';
import { addDevices } from './read-process.ts';
import { readJsonText } from './ruleset-json.ts';

function warnOf(findings: readonly Finding[]): readonly Diagnostic[] {
  const wrong = findings.filter(({ isWeaker }) => !isWeaker);
  const [first] = wrong;
  if (first === undefined) return [];
  const others = wrong.length === 1 ? '' : ` (and ${wrong.length - 1} more)`;
  const message = `nft lists this rule${others} differently from what the kernel runs; what the kernel runs is taken`;
  const place = { kind: 'ruleset', path: first.rule } as const;
  return [{ code: 'read/listing', severity: 'warning', message, help: null, place }];
}

/**
 * Reads what `nft -j --debug=netlink list ruleset` printed: JSON, checked rule by rule against the
 * bytecode in front of it. `chains` is the text of `nft list chains`.
 */
export function readListing(output: string, chains: string, file: string): Result<Ruleset> {
  const { bytecode, json } = splitListing(output);
  const result = readJsonText(json, file, { isComplete: true });
  if (!result.ok) return result;
  const { ruleset, findings } = confirmRuleset(result.value, parseBytecode(bytecode));
  return succeed(addDevices(ruleset, chains), [...result.diagnostics, ...warnOf(findings)]);
}
