import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { generateRules } from '../../bench/generate.ts';
import {
  compileTcam,
  readsCutAsZero,
  readTables,
  TCAM_FORMATS,
  type TcamFormat,
} from '../../src/backends/tcam/artifact.ts';
import { verifyTables } from '../../src/backends/tcam/verify.ts';
import type { Classifier } from '../../src/ir/classifier.ts';
import { prepare } from '../../src/ir/evaluate.ts';
import { flatten, PLAIN } from '../../src/ir/flatten.ts';
import { parsePacket } from '../../src/ir/packet.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';
import { rulesets } from '../support/ruleset-arbitrary.ts';
import { PROJECT } from '../support/run-cli.ts';

const FILE = join(PROJECT, 'test/tcam/filter.nft.json');
const RULESET = unwrap(readJsonText(readFileSync(FILE, 'utf8'), FILE));
const CLASSIFIER = flatten(RULESET, labFacts(null)).classifier;
const OPTIONS = { profile: null, effort: 'normal', final: false, mayMiscount: true } as const;
const VERIFY = { final: false, mayMiscount: true };

/** What is written, and what stands beside it. */
function writeAll(
  classifier: Classifier,
  format: TcamFormat,
  final = false,
): readonly string[] | null {
  const compiled = compileTcam(classifier, format, { ...OPTIONS, final, rowLimit: 400 });
  if (!compiled.ok) {
    expect(compiled.diagnostics[0]?.code).toMatch(
      /^tcam\/(format|undecided|too-many-rows|cut-header)$/,
    );
    return null;
  }
  // A table that had to be cut drops less than the ruleset.
  if (compiled.diagnostics.some(({ code }) => code === 'tcam/too-many-rows')) return null;
  return compiled.value.files.map(({ content }) => Buffer.from(content).toString());
}

function write(classifier: Classifier, format: TcamFormat, final = false): string | null {
  return writeAll(classifier, format, final)?.[0] ?? null;
}

function kindsOf(
  classifier: Classifier,
  format: TcamFormat,
  text: string,
  final = false,
  beside: string | null = null,
) {
  const tables = unwrap(readTables(format, text, 'file', final ? 'permit' : 'continue', beside));
  const options = { ...VERIFY, final, readsCutAsZero: readsCutAsZero(format) };
  return verifyTables(classifier, tables, options);
}

it.each(TCAM_FORMATS)('what %s says of any ruleset is read back and proven equal', (format) => {
  let proven = 0;
  fc.assert(
    fc.property(rulesets, (ruleset) => {
      const { classifier } = flatten(ruleset, labFacts('host'), { ...PLAIN, forwards: true });
      const [text, beside = null] = writeAll(classifier, format) ?? [];
      if (text === undefined) return;
      for (const { kind, table } of kindsOf(classifier, format, text, false, beside)) {
        // Flows do not say which fields were looked at in vain; in front of nftables, tc continues what
        // may be a header that is cut.
        const isOpen =
          (format === 'openflow' && kind === 'unknown') ||
          (format === 'tc-flower' && kind === 'less');
        expect(isOpen ? 'equal' : kind, `${table}\n${text}`).toBe('equal');
        if (kind === 'equal') proven += 1;
      }
    }),
    { numRuns: 12, seed: 7 },
  );
  expect(proven).toBeGreaterThan(0);
});

const DECIDING: readonly TcamFormat[] = ['sonic', 'junos', 'json'];

it.each(DECIDING)('a device that forwards by itself is given all of the policy: %s', (format) => {
  const { classifier } = flatten(RULESET, labFacts(null), { ...PLAIN, forwards: true });
  const text = write(classifier, format, true);
  expect(text).not.toBeNull();
  const kinds = kindsOf(classifier, format, text ?? '', true).map(({ kind }) => kind);
  expect(new Set(kinds)).toEqual(new Set(['equal']));
});

/** A ruleset whose rows are held against headers that are cut. */
function classifierOf(name: string): Classifier {
  const file = join(PROJECT, `test/tcam/${name}.nft.json`);
  const ruleset = unwrap(readJsonText(readFileSync(file, 'utf8'), file));
  return flatten(ruleset, labFacts(null), { ...PLAIN, forwards: true }).classifier;
}

it('tc: a row for 0 does not hold for a header that is cut, and the rule is named', () => {
  const compiled = compileTcam(classifierOf('zeros'), 'tc-flower', OPTIONS);
  const text = Buffer.from(unwrap(compiled).files[0]?.content ?? '').toString();
  expect(compiled.diagnostics).toMatchObject([
    {
      code: 'tcam/cut-header',
      severity: 'warning',
      message: expect.stringContaining('types'),
      place: { kind: 'ruleset', path: 'netdev t c handle 10' }, // icmp type echo-reply drop
    },
  ]);
  const kinds = kindsOf(classifierOf('zeros'), 'tc-flower', text).map(({ kind }) => kind);
  expect(new Set(kinds)).toEqual(new Set(['less', 'equal']));
});

it.each([
  ['TCP flags', / pref \d+ flower ip_proto tcp tcp_flags 0x0\/0x[0-9a-f]+ action pass/],
  ['ports', / pref \d+ flower ip_proto udp src_port 0\/0xffff action pass/],
  ['types', / pref \d+ flower ip_proto icmp type 0 action pass/],
])('tc: without the row for cut %s a file is found wrong, with such a frame', (_, guard) => {
  const classifier = classifierOf('zeros');
  const text = write(classifier, 'tc-flower') ?? '';
  expect(text).toMatch(guard);
  const line = text.split('\n').find((one) => guard.test(one));
  const [bad] = kindsOf(classifier, 'tc-flower', text.replace(`${line}\n`, '')).filter(
    ({ kind }) => kind === 'wrong',
  );
  const evaluate = prepare(classifier, { mode: 'kernel', mac: null });
  expect(bad?.action).toBe('drop');
  expect(evaluate(parsePacket(bad?.frame ?? new Uint8Array())).verdict).not.toBe('drop');
});

it('tc: what forwards by itself must not take a cut header for one of zeros', () => {
  const refused = compileTcam(classifierOf('filter'), 'tc-flower', { ...OPTIONS, final: true });
  expect(refused.ok).toBe(false);
  expect(refused.diagnostics[0]).toMatchObject({ code: 'tcam/cut-header', severity: 'error' });
  const plain = unwrap(readJsonText(generateRules(40), 'rules.json'));
  const { classifier } = flatten(plain, labFacts(null), { ...PLAIN, forwards: true });
  const text = write(classifier, 'tc-flower', true) ?? '';
  const kinds = kindsOf(classifier, 'tc-flower', text, true).map(({ kind }) => kind);
  expect(new Set(kinds)).toEqual(new Set(['equal']));
});

const FAULTS: readonly (readonly [TcamFormat, string, RegExp, string])[] = [
  ['sonic', 'another port', /"L4_DST_PORT":"443"/, '"L4_DST_PORT":"444"'],
  ['sonic', 'another priority', /"PRIORITY":"11"/, '"PRIORITY":"1"'],
  ['sonic', 'a lost flag bit', /0x02\/0x12/, '0x02/0x02'],
  ['tc-flower', 'a lost row', /.* type 8 action drop\n/, ''],
  ['tc-flower', 'a shorter prefix', /10\.0\.0\.0\/24/, '10.0.0.0/23'],
  ['csv', 'a lost row', /ipv4-tcp,2,drop.*\n/, ''],
  ['csv', 'a flipped mask bit', /0xffffff00/, '0xfffffe00'],
  ['openflow', 'a lost flow', /table=0,priority=65533.*actions=drop\n/, ''],
  ['openflow', 'a shorter prefix', /255\.255\.255\.0/, '255.255.254.0'],
  ['rte-flow', 'another port', /dst spec 443/, 'dst spec 442'],
  ['rte-flow', 'another action', /actions drop/, 'actions rss'],
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

it('P4Runtime leaves out what does not matter, and entries of one priority do not overlap', () => {
  const text = write(CLASSIFIER, 'p4runtime') ?? '';
  const number = (bytes = ''): bigint => BigInt(`0x${bytes.replaceAll('\\x', '')}`);
  const seen = new Map<string, Map<string, readonly [bigint, bigint]>[]>();
  for (const line of text.split('\n').filter((one) => one.includes('INSERT'))) {
    const priority = /table_id: (\d+) .*priority: (\d+)/.exec(line);
    expect(Number(priority?.[2])).toBeGreaterThan(0);
    const asked = new Map<string, readonly [bigint, bigint]>();
    const fields = line.matchAll(/field_id: (\d+) ternary \{ value: "([^"]*)" mask: "([^"]*)"/g);
    for (const [, field = '', value, mask] of fields) {
      expect(number(mask)).not.toBe(0n);
      expect(number(value) & number(mask)).toBe(number(value));
      asked.set(field, [number(value), number(mask)]);
    }
    const key = `${priority?.[1]} ${priority?.[2]}`;
    for (const other of seen.get(key) ?? []) {
      const differs = [...asked].some(([field, [value, mask]]) => {
        const [there, care] = other.get(field) ?? [0n, 0n];
        return ((value ^ there) & mask & care) !== 0n;
      });
      expect(differs, line).toBe(true);
    }
    seen.set(key, [...(seen.get(key) ?? []), asked]);
  }
  expect(seen.size).toBeGreaterThan(3);
});

it('P4Runtime: a flipped mask bit is found, with a frame', () => {
  const [text = '', beside = null] = writeAll(CLASSIFIER, 'p4runtime') ?? [];
  const pattern = /mask: "\\xff\\xff\\xff\\x00"/;
  expect(text).toMatch(pattern);
  const broken = text.replace(pattern, 'mask: "\\xff\\xff\\xfe\\x00"');
  const bad = kindsOf(CLASSIFIER, 'p4runtime', broken, false, beside).filter(
    ({ kind }) => kind === 'wrong' || kind === 'less',
  );
  expect(bad.length).toBeGreaterThan(0);
  for (const { frame } of bad) expect(frame).not.toBeNull();
});

const REFUSED: readonly (readonly [TcamFormat, string, RegExp, string])[] = [
  ['csv', 'a cell too few', /,drop,/, ',drop'],
  ['csv', 'a value beside its mask', /0x0a000000\/0xffffff00/, '0x0a000001/0xffffff00'],
  ['csv', 'an action of its own', /,drop,/, ',discard,'],
  ['csv', 'no default', /\n[^\n]*,default,[^\n]*\n$/, '\n'],
  ['openflow', 'a field it does not know', /nw_src=/, 'nw_source='],
  ['openflow', 'two flows of one priority', /priority=65533/, 'priority=65534'],
  ['openflow', 'another action', /actions=drop/, 'actions=output:1'],
  ['p4runtime', 'an open brace', /entity \{/, 'entity'],
  ['p4runtime', 'a table that is not there', /table_id: 33554433/, 'table_id: 5'],
  ['p4runtime', 'no priority', /priority: \d+/, 'priority: 0'],
  ['rte-flow', 'an item it does not know', / \/ tcp/, ' / vxlan'],
  ['rte-flow', 'two rules of one priority', /priority 1 /, 'priority 0 '],
  ['rte-flow', 'a mask that is no prefix', /mask 255\.255\.255\.0/, 'mask 255.0.255.0'],
  ['tc-flower', 'two filters of one preference', /pref 2 /, 'pref 3 '],
];

it.each(REFUSED)('%s: refuses %s', (format, _, pattern, by) => {
  const [text = '', beside = null] = writeAll(CLASSIFIER, format) ?? [];
  expect(text).toMatch(pattern);
  const read = readTables(format, text.replace(pattern, by), 'file', 'continue', beside);
  expect(read.ok).toBe(false);
  expect(read.diagnostics[0]?.code).toBe('tcam/table-file');
});

it.each(TCAM_FORMATS)('whatever becomes of %s on the way, reading it ends', (format) => {
  // Not every format can say all of it.
  const texts = writeAll(CLASSIFIER, format);
  const [text = '{}', beside = null] = texts ?? [];
  const pieces = ['', '"', ',', '0', '9', '\n', '/', '{', 'x', '0xffffffffffff', ' ', '-'];
  const hurt = (given: string, at: number, length: number, by: string): string => {
    const from = at % (given.length + 1);
    return given.slice(0, from) + by + given.slice(from + length);
  };
  const edits = fc.array(fc.tuple(fc.nat(), fc.nat(12), fc.constantFrom(...pieces)), {
    minLength: 1,
    maxLength: 3,
  });
  fc.assert(
    fc.property(edits, fc.boolean(), (all, isBeside) => {
      const broken = all.reduce(
        (left, [at, length, by]) => hurt(left, at, length, by),
        isBeside ? (beside ?? text) : text,
      );
      const read =
        isBeside && beside !== null
          ? readTables(format, text, 'file', 'continue', broken)
          : readTables(format, broken, 'file', 'continue', beside);
      if (!read.ok) expect(read.diagnostics.length).toBeGreaterThan(0);
    }),
    { numRuns: 100 },
  );
});
