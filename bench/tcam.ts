/**
 * Rows of TCAM tables and the time they take: `npx tsx bench/tcam.ts [DIRECTORY]`. DIRECTORY holds
 * ClassBench sets as rulesets (NAME.json of `nft -j list ruleset`, else NAME.nft, which needs nft) and
 * blocklists; without it the project's own generator is measured. Every table is proven equal.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { compileTables } from '../src/backends/tcam/compile.ts';
import type { Effort } from '../src/backends/tcam/minimise.ts';
import { nothingKnown } from '../src/ir/facts.ts';
import { flatten, PLAIN } from '../src/ir/flatten.ts';
import type { Ruleset } from '../src/ir/ruleset.ts';
import { readRuleset } from '../src/nft/read.ts';
import { readJsonText } from '../src/nft/ruleset-json.ts';
import type { Result } from '../src/support/diagnostics.ts';
import { generateRules } from './generate.ts';
import { writeSection } from './results.ts';

const DEVICE = 'eth0';

function need<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(result.diagnostics.map(({ message }) => message).join('\n'));
}

async function load(directory: string, name: string): Promise<Ruleset> {
  const json = join(directory, `${name}.json`);
  if (existsSync(json)) return need(readJsonText(readFileSync(json, 'utf8'), json));
  return need(await readRuleset({ kind: 'file', path: join(directory, `${name}.nft`) }));
}

const effort = (process.env['EFFORT'] ?? 'normal') as Effort; // the name of one of EFFORTS
const [directory, ...only] = process.argv.slice(2);
const names =
  directory === undefined
    ? ['100', '1000', '10000']
    : [
        ...new Set(
          readdirSync(directory).flatMap((file) => /^(.*)\.(nft|json)$/.exec(file)?.[1] ?? []),
        ),
      ]
        .filter((name) => only.length === 0 || only.some((part) => name.includes(part)))
        .sort();

const lines = [
  '| set | rules | direct | ternary | CPU s | with ranges | CPU s |',
  '|---|---|---|---|---|---|---|',
];
for (const name of names) {
  const ruleset =
    directory === undefined
      ? need(readJsonText(generateRules(Number(name)), name))
      : await load(directory, name);
  const rules = ruleset.tables
    .flatMap(({ chains }) => chains)
    .reduce((sum, chain) => sum + chain.rules.length, 0);
  const bases = ruleset.tables.flatMap(({ chains }) => chains.flatMap(({ base }) => base ?? []));
  const device = bases.flatMap(({ devices }) => devices ?? [])[0] ?? DEVICE;
  const { classifier } = flatten(ruleset, nothingKnown(device), { ...PLAIN, forwards: true });
  const cells: (string | number)[] = [];
  for (const stage of ['ternary', 'ranges'] as const) {
    const start = process.cpuUsage();
    const options = { profile: null, effort, stage, final: false, mayMiscount: true } as const;
    const { tables, directRows } = need(compileTables(classifier, options));
    const { user, system } = process.cpuUsage(start);
    const seconds = ((user + system) / 1e6).toFixed(1);
    const rows = tables.tables.reduce((sum, table) => sum + table.rows.length, 0);
    if (stage === 'ternary') cells.push(directRows);
    cells.push(rows, seconds);
  }
  const line = `| ${[name, rules, ...cells].join(' | ')} |`;
  console.log(line);
  lines.push(line);
}
if (only.length === 0) {
  const source = directory === undefined ? 'bench/generate.ts' : basename(directory);
  const head =
    `Rows from ${source} by \`npx tsx bench/tcam.ts\`, effort ${effort}, each table proven equal to its ` +
    'ruleset within the seconds of CPU given. `direct`: every range expanded into prefixes; `with ranges`: as many range units as there are ranges.';
  writeSection(`TCAM rows: ${source}`, `${head}\n\n${lines.join('\n')}`);
}
