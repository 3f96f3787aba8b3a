import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseFacts } from '../src/cli/facts.ts';
import { formatRuleId, type Ruleset } from '../src/ir/ruleset.ts';
import { readRuleset } from '../src/nft/read.ts';
import { planRuleset } from '../src/plan/plan.ts';
import { HOST, type PlannedRule } from '../src/plan/report.ts';
import { loadProfile } from '../src/profile/load.ts';
import { formatDiagnostic } from '../src/support/diagnostics.ts';

// Plans every ruleset of a directory and counts the reasons of rules that stay in nftables. Fails when
// a rule has none, or one that does not tell what stands in its way.
//   npx tsx scripts/corpus-reasons.ts DIRECTORY

/** Reasons that would say nothing to the author of the rule: no cause, or no rule that is one. */
const GENERIC = /is not understood|no packet reaches it: rules before it decide all|^$/;

const [directory] = process.argv.slice(2);

/** Quoted names behind iif and iifname, also in sets. */
const DEVICE_NAMES = /\biif(?:name)? (?:!= )?(\{[^}]*\}|"[^"]*")/g;

/** The device that most of a ruleset is about: that of its ingress chain, or the one named most. */
function chooseDevice({ tables }: Ruleset): string {
  const chains = tables.flatMap((table) => table.chains);
  const [bound] = chains.flatMap(({ base }) => base?.devices ?? []);
  if (bound !== undefined) return bound;
  const texts = chains.flatMap(({ rules }) => rules.map(({ text }) => text));
  const names = texts
    .flatMap((text) => [...text.matchAll(DEVICE_NAMES)].map(([, quoted = '']) => quoted))
    .flatMap((quoted) => [...quoted.matchAll(/"([\w.-]+)"/g)].map(([, name = '']) => name))
    .filter((name) => name !== 'lo');
  const uses = (name: string): number => names.filter((other) => other === name).length;
  const [most] = [...new Set(names)].sort((a, b) => uses(b) - uses(a));
  return most ?? 'eth0';
}

/** Facts that an operator who wants to offload would give: all that can be true. */
function chooseFacts(ruleset: Ruleset): readonly string[] {
  const chains = ruleset.tables.flatMap((table) => table.chains);
  const forwards = chains.some(({ base, rules }) => base?.hook === 'forward' && rules.length > 0);
  return [
    forwards ? 'role=router' : 'role=host',
    'local-address=192.0.2.1',
    'local-address=2001:db8::1',
    'mac=02:00:00:00:00:01',
    'gro=off',
    'rp-filter=off',
    'rx-vlan=off',
    'routed=yes',
  ];
}

interface Planned {
  readonly rules: readonly PlannedRule[];
  readonly problem: string | null;
}

async function planFile(path: string): Promise<Planned> {
  const refused = (problem: string): Planned => ({ rules: [], problem });
  const read = await readRuleset({ kind: 'file', path });
  if (!read.ok) return refused(read.diagnostics.map(formatDiagnostic).join('\n'));
  const facts = parseFacts(chooseDevice(read.value), chooseFacts(read.value));
  const profile = await loadProfile('xdp-native');
  if (!facts.ok || !profile.ok) throw new Error('bug: these facts and this profile are known');
  const situation = {
    ruleset: read.value,
    facts: facts.value,
    concessions: [],
    replyPorts: null,
  };
  const planned = planRuleset(situation, [profile.value]);
  if (!planned.ok) return refused(planned.diagnostics.map(formatDiagnostic).join('\n'));
  return { rules: planned.value.rules, problem: null };
}

/** What is wrong with the reasons of a rule; null when they tell. */
function criticise({ tier, reasons }: PlannedRule): string | null {
  if (tier !== HOST) return null;
  if (reasons.length === 0) return 'no reason';
  const generic = reasons.find(({ message }) => GENERIC.test(message));
  return generic === undefined ? null : `generic: ${generic.code}: ${generic.message}`;
}

async function run(path: string): Promise<number> {
  const files = readdirSync(path).filter((file) => /\.(nft|json)$/.test(file));
  const counts = new Map<string, { count: number; example: string }>();
  let failures = 0;
  let offloaded = 0;
  let total = 0;
  for (const file of files) {
    const { rules, problem } = await planFile(join(path, file));
    if (problem !== null) console.log(`not planned: ${file}: ${problem.split('\n')[0]}`);
    total += rules.length;
    for (const rule of rules) {
      if (rule.tier !== HOST) offloaded += 1;
      const wrong = criticise(rule);
      if (wrong !== null) {
        failures += 1;
        console.log(`${file}: ${formatRuleId(rule.rule)} (${rule.text}): ${wrong}`);
      }
      for (const { code, message } of rule.tier === HOST ? rule.reasons : []) {
        const known = counts.get(code) ?? { count: 0, example: message };
        counts.set(code, { ...known, count: known.count + 1 });
      }
    }
  }
  for (const [code, { count, example }] of [...counts].sort((a, b) => b[1].count - a[1].count)) {
    console.log(`${`${count}`.padStart(6)}  ${code.padEnd(28)}  ${example}`);
  }
  console.log(
    `${files.length} files, ${total} rules, ${offloaded} offloaded, ${failures} without a telling reason`,
  );
  return total === 0 || failures > 0 ? 1 : 0;
}

if (directory === undefined) {
  console.error('usage: npx tsx scripts/corpus-reasons.ts DIRECTORY (of .nft and .json rulesets)');
  process.exitCode = 2;
} else {
  process.exitCode = await run(directory).catch((error: unknown) => {
    console.error(`cannot read ${directory}: ${error instanceof Error ? error.message : error}`);
    return 1;
  });
}
