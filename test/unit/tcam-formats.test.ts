import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  compileTcam,
  READABLE,
  readTables,
  type TcamFormat,
} from '../../src/backends/tcam/artifact.ts';
import { verifyTables } from '../../src/backends/tcam/verify.ts';
import type { Classifier } from '../../src/ir/classifier.ts';
import { flatten, PLAIN } from '../../src/ir/flatten.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';
import { rulesets } from '../support/ruleset-arbitrary.ts';
import { PROJECT } from '../support/run-cli.ts';

const FILE = join(PROJECT, 'test/tcam/filter.nft.json');
const RULESET = unwrap(readJsonText(readFileSync(FILE, 'utf8'), FILE));
const CLASSIFIER = flatten(RULESET, labFacts(null)).classifier;
const OPTIONS = { profile: null, effort: 'normal', final: false, mayMiscount: true } as const;
const VERIFY = { final: false, mayMiscount: true };

function write(classifier: Classifier, format: TcamFormat, final = false): string | null {
  const compiled = compileTcam(classifier, format, { ...OPTIONS, final, rowLimit: 400 });
  if (!compiled.ok) {
    expect(compiled.diagnostics[0]?.code).toMatch(/^tcam\/(format|undecided|too-many-rows)$/);
    return null;
  }
  // A table that had to be cut drops less than the ruleset.
  if (compiled.diagnostics.length > 0) return null;
  return Buffer.from(compiled.value.files[0]?.content ?? '').toString();
}

function kindsOf(classifier: Classifier, format: TcamFormat, text: string, final = false) {
  const tables = unwrap(readTables(format, text, 'file', final ? 'permit' : 'continue'));
  return verifyTables(classifier, tables, { ...VERIFY, final });
}

it.each(READABLE)('what %s says of any ruleset is read back and proven equal', (format) => {
  let proven = 0;
  fc.assert(
    fc.property(rulesets, (ruleset) => {
      const { classifier } = flatten(ruleset, labFacts('host'), { ...PLAIN, forwards: true });
      const text = write(classifier, format);
      if (text === null) return;
      for (const { kind, table } of kindsOf(classifier, format, text)) {
        expect(kind, `${table}\n${text}`).toBe('equal');
        proven += 1;
      }
    }),
    { numRuns: 25, seed: 7 },
  );
  expect(proven).toBeGreaterThan(0);
});

const DECIDING: readonly TcamFormat[] = ['sonic', 'tc-flower', 'junos', 'json'];

it.each(DECIDING)('a device that forwards by itself is given all of the policy: %s', (format) => {
  const { classifier } = flatten(RULESET, labFacts(null), { ...PLAIN, forwards: true });
  const text = write(classifier, format, true);
  expect(text).not.toBeNull();
  const kinds = kindsOf(classifier, format, text ?? '', true).map(({ kind }) => kind);
  expect(new Set(kinds)).toEqual(new Set(['equal']));
});

const FAULTS: readonly (readonly [TcamFormat, string, RegExp, string])[] = [
  ['sonic', 'another port', /"L4_DST_PORT":"443"/, '"L4_DST_PORT":"444"'],
  ['sonic', 'another priority', /"PRIORITY":"11"/, '"PRIORITY":"1"'],
  ['sonic', 'a lost flag bit', /0x02\/0x12/, '0x02/0x02'],
  ['tc-flower', 'a lost row', /.* type 8 action drop\n/, ''],
  ['tc-flower', 'a shorter prefix', /10\.0\.0\.0\/24/, '10.0.0.0/23'],
  ['junos', 'another action', /then discard/, 'then accept'],
  ['junos', 'a flag that was clear', /syn & !ack/, 'syn'],
];

it.each(FAULTS)('%s: %s is found, with a frame', (format, _, pattern, by) => {
  const text = write(CLASSIFIER, format) ?? '';
  expect(text).toMatch(pattern);
  const found = kindsOf(CLASSIFIER, format, text.replace(pattern, by));
  const bad = found.filter(({ kind }) => kind === 'wrong' || kind === 'less');
  expect(bad.length).toBeGreaterThan(0);
  for (const { frame } of bad) expect(frame).not.toBeNull();
});

it.each(['openconfig', 'eos', 'nx-os'] as const)(
  '%s refuses flags that must be clear',
  (format) => {
    const compiled = compileTcam(CLASSIFIER, format, OPTIONS);
    expect(compiled.ok).toBe(false);
    const flags = compiled.diagnostics.find(({ message }) => /TCP flags/.test(message));
    expect(flags?.place).toMatchObject({ kind: 'ruleset' });
  },
);

it('SONiC rules keep to its YANG patterns', () => {
  const text = write(CLASSIFIER, 'sonic') ?? '';
  const { ACL_RULE: rules } = JSON.parse(text) as {
    ACL_RULE: Record<string, Record<string, string>>;
  };
  const priorities = new Map<string, Set<string>>();
  for (const [key, rule] of Object.entries(rules)) {
    const [table = ''] = key.split('|');
    const used = priorities.get(table) ?? new Set();
    priorities.set(table, used.add(rule['PRIORITY'] ?? ''));
    for (const side of ['SRC', 'DST']) {
      const range = rule[`L4_${side}_PORT_RANGE`];
      if (range === undefined) continue;
      expect(range).toMatch(/^[1-9]\d*-[1-9]\d*$/);
      expect(rule[`L4_${side}_PORT`]).toBeUndefined();
    }
    if (rule['TCP_FLAGS'] !== undefined)
      expect(rule['TCP_FLAGS']).toMatch(/^0x[0-3][0-9a-f]\/0x[0-3][0-9a-f]$/);
  }
  const count = [...priorities.values()].reduce((sum, { size }) => sum + size, 0);
  expect(count).toBe(Object.keys(rules).length);
});

it('P4Runtime leaves out what does not matter, and every priority is another', () => {
  const text = write(CLASSIFIER, 'p4runtime') ?? '';
  const number = (bytes = ''): bigint => BigInt(`0x${bytes.replaceAll('\\x', '')}`);
  const seen = new Set<string>();
  for (const line of text.split('\n').filter((one) => one.includes('INSERT'))) {
    const priority = /table_id: (\d+) .*priority: (\d+)/.exec(line);
    expect(Number(priority?.[2])).toBeGreaterThan(0);
    const key = `${priority?.[1]} ${priority?.[2]}`;
    expect(seen).not.toContain(key);
    seen.add(key);
    for (const [, value, mask] of line.matchAll(/value: "([^"]*)" mask: "([^"]*)"/g)) {
      expect(number(mask)).not.toBe(0n);
      expect(number(value) & number(mask)).toBe(number(value));
    }
  }
  expect(seen.size).toBeGreaterThan(10);
});
