import { parseFacts } from '../src/cli/facts.ts';
import { readRuleset } from '../src/nft/read.ts';
import { readJsonText } from '../src/nft/ruleset-json.ts';
import { findFindings } from '../src/plan/findings.ts';
import { generateRules } from './generate.ts';

// Time that findings take, on generated rules or on a ruleset: npx tsx bench/findings.ts [RULESET]

const [path] = process.argv.slice(2);
const facts = parseFacts('eth0', []);
if (!facts.ok) throw new Error('bug: no facts are facts');

function measure(name: string, read: ReturnType<typeof readJsonText>): void {
  if (!read.ok || !facts.ok) throw new Error(read.diagnostics[0]?.message ?? 'no facts');
  const before = process.cpuUsage();
  const found = findFindings(read.value, facts.value);
  const { user, system } = process.cpuUsage(before);
  const rules = read.value.tables.flatMap((t) => t.chains.flatMap((chain) => chain.rules)).length;
  const ms = Math.round((user + system) / 1000);
  console.log(`${name}: ${rules} rules, ${found.length} findings, ${ms} ms of CPU`);
}

if (path === undefined) {
  for (const count of [1_000, 10_000, 40_000]) {
    measure('generated', readJsonText(generateRules(count), 'generated'));
  }
} else measure(path, await readRuleset({ kind: 'file', path }));
