/**
 * Compares our lowering with nft's own: reads the rule triples of nftables' tests/py (text, JSON,
 * bytecode) and checks every test we produce against the bytecode listing.
 *
 *     npx tsx scripts/check-nft-payload.ts [DIRECTORY]
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ElementSet, Operand, Rule, Step, Test } from '../src/ir/ruleset.ts';
import { readJsonValue } from '../src/nft/ruleset-json.ts';
import {
  type Block,
  type Collector,
  collect,
  describe,
  type Load,
  lookupText,
  normal,
  parseBlocks,
  readInstructions,
} from './netlink-listing.ts';

interface Tally {
  rules: number;
  evaluable: number;
  compared: number;
  mismatches: number;
  /** Rules that nft lists with less than it runs (redundant tests); the JSON cannot show them. */
  lossy: number;
  readonly reasons: Map<string, number>;
  readonly failures: string[];
}

/** Our operand as a load of whole bytes, which is what nft loads. */
function toLoad(operand: Operand): Load {
  const { field } = operand;
  const width: number = field.width;
  if (field.base === 'meta') {
    const load = { base: field.name, offset: 0, width, mask: operand.mask, xor: operand.xor };
    return { ...load, shift: operand.shift };
  }
  const offset = Math.floor(field.offset / 8) * 8;
  const end = Math.ceil((field.offset + width) / 8) * 8;
  const pad = BigInt(end - field.offset - width);
  return {
    base: field.base,
    offset,
    width: end - offset,
    mask: operand.mask << pad,
    xor: operand.xor << pad,
    shift: operand.shift,
  };
}

function padOf(operand: Operand): bigint {
  const end = Math.ceil((operand.field.offset + operand.field.width) / 8) * 8;
  const pad = operand.field.base === 'meta' ? 0 : end - operand.field.offset - operand.field.width;
  return BigInt(pad + (operand.shift < 0 ? -operand.shift : 0));
}

function showSet(key: readonly Operand[], set: ElementSet): string | readonly string[] {
  if (set.name !== null) return set.name;
  const { lo, hi, verdicts, parts } = set.elements;
  const isIndex = key.some(({ field }) => /^meta [io]if$/.test(field.name));
  const widen = (value: bigint): bigint => {
    let rest = value;
    let at = 0n;
    let wide = 0n;
    for (let index = parts.length - 1; index >= 0; index -= 1) {
      const operand = key[index];
      const width = BigInt(parts[index] ?? 0);
      if (operand === undefined) continue;
      wide |= ((rest & ((1n << width) - 1n)) << padOf(operand)) << at;
      at += BigInt(toLoad(operand).width);
      rest >>= width;
    }
    return wide;
  };
  return lo
    .map((low, index) => {
      const verdict = verdicts?.[index];
      const text =
        verdict === undefined
          ? ''
          : 'chain' in verdict
            ? `${verdict.kind} ${verdict.chain}`
            : verdict.kind;
      if (isIndex) return `* ${text}`;
      return `${widen(low).toString(16)}-${widen(hi[index] ?? low).toString(16)} ${text}`;
    })
    .sort();
}

function addTest(out: Collector, test: Test): void {
  if (test.kind === 'unknown') return;
  if (test.kind === 'lookup') {
    const loads = test.key.map((operand) => normal(toLoad(operand)));
    out.other(lookupText(loads, test.negated, showSet(test.key, test.set)));
    return;
  }
  const load = normal(toLoad(test.operand));
  const pad = padOf(test.operand);
  const top = (1n << BigInt(test.operand.field.width)) - 1n;
  const lo = test.lo << pad;
  const hi = test.hi << pad;
  if (test.lo === test.hi) {
    if (test.negated) out.other(describe(load, 'neq', lo));
    else out.equal(load, lo);
  } else if (test.negated) {
    out.other(describe(load, 'range-neq', lo, hi));
  } else {
    if (test.lo > 0n) out.other(describe(load, 'gte', lo));
    if (test.hi < top) out.other(describe(load, 'lte', hi));
  }
}

function ourTokens(steps: readonly Step[]): readonly string[] {
  const out = collect();
  for (const step of steps) {
    switch (step.kind) {
      case 'test':
        addTest(out, step.test);
        break;
      case 'count':
        out.step('count');
        break;
      case 'verdict':
        out.step(
          `verdict ${'chain' in step.verdict ? `${step.verdict.kind} ${step.verdict.chain}` : step.verdict.kind}`,
        );
        break;
      case 'vmap': {
        const loads = step.key.map((operand) => normal(toLoad(operand)));
        out.step(`vmap ${lookupText(loads, false, showSet(step.key, step.map))}`);
        break;
      }
      case 'effect':
        out.step('effect');
        break;
    }
  }
  return out.tokens();
}

/** Reasons why the rule cannot be evaluated as a whole. */
function reasonsOf(rule: Rule): readonly string[] {
  return rule.steps.flatMap((step) => {
    if (step.kind === 'effect') return [step.reason.code];
    if (step.kind !== 'test') return [];
    if (step.test.kind === 'unknown') return [step.test.reason.code];
    return step.test.kind === 'lookup' && step.test.set.unknown !== null
      ? [step.test.set.unknown.code]
      : [];
  });
}

function isComparable(rule: Rule): boolean {
  return !rule.steps.some(
    (step) =>
      (step.kind === 'test' && step.test.kind === 'unknown') ||
      (step.kind === 'effect' && step.outcome === 'unknown'),
  );
}

function lower(family: string, expr: unknown, sets: readonly unknown[]): Rule | string {
  const place = { family, table: 't' };
  const declared = sets.map((set) => ({ set: { ...place, ...(set as object) } }));
  const rule = { rule: { ...place, chain: 'c', expr } };
  const result = readJsonValue({ nftables: [...declared, rule] }, 'rule');
  if (!result.ok) return result.diagnostics.map(({ message }) => message).join('; ');
  return result.value.tables[0]?.chains[0]?.rules[0] ?? 'no rule';
}

/** nft sometimes leaves `meta protocol ip` out of an ip table, where it is always true. */
function withoutOwnFamily(rule: Rule, tokens: readonly string[]): readonly string[] {
  if (rule.id.family !== 'ip' && rule.id.family !== 'ip6') return tokens;
  return tokens.flatMap((token) => {
    const lines = token.split('\n').filter((line) => !line.startsWith('meta protocol:'));
    return lines.length === 0 ? [] : [lines.join('\n')];
  });
}

function check(
  tally: Tally,
  name: string,
  block: Block,
  rule: Rule | string,
  isListing: boolean,
): void {
  tally.rules += 1;
  if (typeof rule === 'string') {
    tally.mismatches += 1;
    tally.failures.push(`${name}\n    not read: ${rule}`);
    return;
  }
  const reasons = reasonsOf(rule);
  if (reasons.length === 0) tally.evaluable += 1;
  for (const code of new Set(reasons)) tally.reasons.set(code, (tally.reasons.get(code) ?? 0) + 1);
  if (!isComparable(rule)) return;
  tally.compared += 1;
  const ours = withoutOwnFamily(rule, ourTokens(rule.steps));
  const theirs = withoutOwnFamily(rule, readInstructions(block));
  if (ours.join('\n--\n') === theirs.join('\n--\n')) return;
  if (isListing) tally.lossy += 1;
  else tally.mismatches += 1;
  const ourSet = new Set(ours.flatMap((token) => token.split('\n')));
  const theirSet = new Set(theirs.flatMap((token) => token.split('\n')));
  const onlyOurs = [...ourSet].filter((line) => !theirSet.has(line)).slice(0, 8);
  const onlyTheirs = [...theirSet].filter((line) => !ourSet.has(line)).slice(0, 8);
  tally.failures.push(
    `${isListing ? 'listing leaves out: ' : ''}${name}\n    ours:   ${onlyOurs.join(' | ')}\n    theirs: ${onlyTheirs.join(' | ')}`,
  );
}

function jsonBlocks(path: string): ReadonlyMap<string, unknown> {
  const blocks = new Map<string, unknown>();
  if (!existsSync(path)) return blocks;
  for (const part of readFileSync(path, 'utf8').split(/^# ?(?=\S)/m)) {
    const cut = part.indexOf('\n');
    const rule = part.slice(0, cut).trim();
    if (rule === '' || blocks.has(rule)) continue;
    try {
      blocks.set(rule, JSON.parse(part.slice(cut)));
    } catch {
      // A handful of blocks in the collection are not JSON.
    }
  }
  return blocks;
}

interface Suite {
  readonly families: readonly string[];
  readonly rules: readonly string[];
  readonly sets: readonly unknown[];
}

function readSuite(path: string): Suite {
  const families: string[] = [];
  const rules: string[] = [];
  const sets: unknown[] = [];
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    if (line.startsWith('*')) families.push(line.slice(1).split(';')[0] ?? '');
    else if (line.startsWith('!')) {
      const [name = '', ...words] = line.slice(1).split(';')[0]?.split(' ') ?? [];
      const text = words.join(' ');
      const type = /type ([^;:]+?)(?= timeout| flags| size|$)/.exec(text)?.[1];
      sets.push({ name, type: type?.split(' . ') ?? null, elem: [] });
    } else if (!/^[#:?%\-\s]/.test(line) && line !== '') {
      const [rule = '', status = ''] = line.split(';');
      if (status.trim() === 'ok') rules.push(rule.trim());
    }
  }
  return { families, rules, sets };
}

function checkSuite(tally: Tally, directory: string, file: string): void {
  const path = join(directory, file);
  const suite = readSuite(path);
  const inputs = jsonBlocks(`${path}.json`);
  const listings = jsonBlocks(`${path}.json.output`);
  for (const family of suite.families) {
    const own = `${path}.payload.${family}`;
    const payload = existsSync(own) ? own : `${path}.payload`;
    if (!existsSync(payload)) continue;
    const blocks = new Map(parseBlocks(readFileSync(payload, 'utf8')).map((b) => [b.rule, b]));
    for (const text of suite.rules) {
      const block = blocks.get(text);
      for (const [form, blocksOfForm] of Object.entries({ input: inputs, listing: listings })) {
        const expr = blocksOfForm.get(text);
        if (block === undefined || expr === undefined) continue;
        const rule = lower(family, expr, suite.sets);
        check(tally, `${file} ${family}: ${text}`, block, rule, form === 'listing');
      }
    }
  }
}

const root = process.argv[2] ?? 'nft-tests';
if (!existsSync(root)) {
  console.error(
    `no nftables test collection (tests/py of nftables) at ${root}: give its directory`,
  );
  process.exit(1);
}
const tally: Tally = {
  rules: 0,
  evaluable: 0,
  compared: 0,
  mismatches: 0,
  lossy: 0,
  reasons: new Map(),
  failures: [],
};
for (const directory of readdirSync(root).sort()) {
  for (const file of readdirSync(join(root, directory)).sort()) {
    if (file.endsWith('.t')) checkSuite(tally, join(root, directory), file);
  }
}
for (const failure of tally.failures) console.log(failure);
console.log(`rules in a family:        ${tally.rules}`);
console.log(`fully evaluable:          ${tally.evaluable}`);
console.log(`compared with bytecode:   ${tally.compared}`);
console.log(`mismatches:               ${tally.mismatches}`);
console.log(`listing form says less:   ${tally.lossy}`);
console.log('not evaluable, by reason:');
for (const [code, count] of [...tally.reasons].sort(([, a], [, b]) => b - a)) {
  console.log(`  ${String(count).padStart(5)} ${code}`);
}
process.exitCode = tally.mismatches === 0 ? 0 : 1;
