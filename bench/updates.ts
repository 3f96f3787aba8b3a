/**
 * Single changes of a ruleset in use: `npm run bench -- updates [RULES]`. For each kind of ruleset rules
 * are deleted and added one at a time; words are what is stored into the running program, milliseconds
 * what it takes from a ruleset at hand to those words. Medians and the most; also written to
 * bench/RESULTS.md.
 */
import { compileXdp } from '../src/backends/ebpf-offload/compile.ts';
import type { LiveProgram } from '../src/backends/ebpf-offload/live-program.ts';
import { flatten } from '../src/ir/flatten.ts';
import type { Ruleset } from '../src/ir/ruleset.ts';
import { readJsonText } from '../src/nft/ruleset-json.ts';
import { median, writeSection } from './results.ts';
import { FACTS, loadNative, need } from './xdp-native.ts';
import { KINDS, makeRules } from './xdp-rules.ts';

const SIZES = process.argv[3] === undefined ? [1_000, 10_000] : [Number(process.argv[3])];
const CHANGES = 20;

const profile = await loadNative();

/** The ruleset without the rules that have those numbers in their chains. */
function without({ tables }: Ruleset, gone: ReadonlySet<number>): Ruleset {
  return {
    tables: tables.map((table) => ({
      ...table,
      chains: table.chains.map((chain) => ({
        ...chain,
        rules: chain.rules.filter((_, index) => !gone.has(index)),
      })),
    })),
  };
}

function timed<T>(work: () => T): readonly [value: T, ms: number] {
  const start = performance.now();
  return [work(), performance.now() - start];
}

interface Change {
  readonly words: number | null;
  readonly flatten: number;
  readonly compile: number;
}

function changeRules(ruleset: Ruleset, rules: number): { first: number; changes: Change[] } {
  const options = { structure: 'tree' } as const;
  const begun = flatten(ruleset, FACTS).classifier;
  const [made, first] = timed(() => need(compileXdp(begun, profile, options)));
  let live: LiveProgram | null = made.live;
  const changes: Change[] = [];
  const gone = new Set<number>();
  for (let number = 0; number < CHANGES; number += 1) {
    // One goes, and comes back with the next change.
    if (gone.size > 0) gone.clear();
    else gone.add(Math.floor((rules * number) / CHANGES));
    const wanted = without(ruleset, gone);
    const [flat, flattening] = timed(() => flatten(wanted, FACTS).classifier);
    const base = live;
    if (base === null) throw new Error('bug: no tables');
    const [next, compiling] = timed(() => need(compileXdp(flat, profile, { ...options, base })));
    live = next.live;
    const words = next.patch?.words.length ?? null;
    changes.push({ words, flatten: flattening, compile: compiling });
  }
  return { first, changes };
}

const rows: string[] = [];
for (const size of SIZES) {
  for (const kind of KINDS) {
    const ruleset = need(readJsonText(makeRules(kind, size), 'bench.json'));
    const { first, changes } = changeRules(ruleset, size);
    const words = changes.flatMap(({ words: own }) => own ?? []);
    const flattening = changes.map((change) => change.flatten);
    const compiling = changes.map((change) => change.compile);
    const cells = [
      ...[kind, size, first.toFixed(0)],
      ...[words.length, median(words), Math.max(...words)],
      ...[median(flattening).toFixed(0), median(compiling).toFixed(0)],
      Math.max(...compiling).toFixed(0),
    ];
    rows.push(`| ${cells.join(' | ')} |`);
    console.log(cells.join('  '));
  }
}

writeSection(
  'Single changes of a ruleset in use',
  `By \`npm run bench -- updates\`: ${CHANGES} changes, one rule each, compiled against the program before. \`new\` is milliseconds for the
first program, \`in place\` how many changes needed no other one.

| rules | number | new ms | in place | words | most | flatten ms | compile ms | most |
|---|---|---|---|---|---|---|---|---|
${rows.join('\n')}`,
);
