import { expect, it } from 'vitest';
import { generateRules } from '../../bench/generate.ts';
import { compileTables, type TcamOptions } from '../../src/backends/tcam/compile.ts';
import { readJson, writeJson } from '../../src/backends/tcam/formats/json.ts';
import { interpretTables } from '../../src/backends/tcam/interpret.ts';
import { paintRange } from '../../src/backends/tcam/signed-ranges.ts';
import type { TableSet, TcamTable } from '../../src/backends/tcam/table.ts';
import { verifyTables } from '../../src/backends/tcam/verify.ts';
import type { Classifier } from '../../src/ir/classifier.ts';
import { prepare } from '../../src/ir/evaluate.ts';
import { flatten, PLAIN } from '../../src/ir/flatten.ts';
import { parsePacket } from '../../src/ir/packet.ts';
import { readJsonText } from '../../src/nft/ruleset-json.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';

const OPTIONS: TcamOptions = {
  profile: null,
  effort: 'normal',
  stage: 'ternary',
  final: false,
  mayMiscount: false,
};

function classifierOf(count: number, forwards = false): Classifier {
  const ruleset = unwrap(readJsonText(generateRules(count), 'rules.json'));
  return flatten(ruleset, labFacts(null), { ...PLAIN, forwards }).classifier;
}

const CLASSIFIER = classifierOf(60);
const TABLES = unwrap(compileTables(CLASSIFIER, OPTIONS)).tables;

function withRows(set: TableSet, change: (table: TcamTable) => TcamTable['rows']): TableSet {
  const [first, ...rest] = set.tables;
  if (first === undefined) throw new Error('bug: no table');
  return { ...set, tables: [{ ...first, rows: change(first) }, ...rest] };
}

const VERIFY = { final: false, mayMiscount: false };

it('proves what it has compiled', () => {
  expect(verifyTables(CLASSIFIER, TABLES, VERIFY).map(({ kind }) => kind)).toEqual(['equal']);
});

it('reads the JSON that it writes, and proves that', () => {
  const text = writeJson(TABLES);
  const read = unwrap(readJson(text, 'tables.json'));
  expect(writeJson(read)).toBe(text);
  expect(verifyTables(CLASSIFIER, read, VERIFY).map(({ kind }) => kind)).toEqual(['equal']);
});

/** Rows whose loss or change would go unnoticed behind others are not there: every one matters. */
const PLACES = TABLES.tables[0]?.rows.map((_, index) => index) ?? [];

function confirms(set: TableSet, frame: Uint8Array | null): boolean {
  if (frame === null) return false;
  const packet = parsePacket(frame);
  const isDropped = prepare(CLASSIFIER, { mode: 'kernel' })(packet).verdict === 'drop';
  return (interpretTables(set, packet).action === 'drop') !== isDropped;
}

it('finds every lost row, with a frame', () => {
  for (const place of PLACES) {
    const set = withRows(TABLES, ({ rows }) => rows.filter((_, index) => index !== place));
    const [finding] = verifyTables(CLASSIFIER, set, VERIFY);
    const lost = TABLES.tables[0]?.rows[place];
    expect(finding?.kind, `row ${place}`).toBe(lost?.action === 'drop' ? 'less' : 'wrong');
    expect(confirms(set, finding?.frame ?? null), `row ${place}`).toBe(true);
  }
});

it('finds every bit that a mask has lost, with a frame', () => {
  for (const place of PLACES.slice(0, 20)) {
    const set = withRows(TABLES, ({ rows }) =>
      rows.map((row, index) => {
        if (index !== place) return row;
        const lowest = row.mask & -row.mask;
        return { ...row, mask: row.mask ^ lowest, value: row.value & ~lowest };
      }),
    );
    const [finding] = verifyTables(CLASSIFIER, set, VERIFY);
    expect(['less', 'wrong'], `row ${place}`).toContain(finding?.kind);
    expect(confirms(set, finding?.frame ?? null), `row ${place}`).toBe(true);
  }
});

it('finds rows in the wrong order, or proves that the order does not matter', () => {
  const overlap = (a: TcamTable['rows'][number], b: TcamTable['rows'][number]): boolean =>
    ((a.value ^ b.value) & a.mask & b.mask) === 0n && a.action !== b.action;
  for (const place of PLACES.slice(1)) {
    const rows = [...(TABLES.tables[0]?.rows ?? [])];
    const [one, two] = [rows[place - 1], rows[place]];
    if (one === undefined || two === undefined) continue;
    rows.splice(place - 1, 2, two, one);
    const set = withRows(TABLES, () => rows);
    const [finding] = verifyTables(CLASSIFIER, set, VERIFY);
    if (finding?.kind === 'equal') continue;
    expect(overlap(one, two), `row ${place}`).toBe(true);
    expect(confirms(set, finding?.frame ?? null), `row ${place}`).toBe(true);
  }
});

it('permits and drops everything when the device forwards by itself', () => {
  const classifier = classifierOf(40, true);
  const { tables } = unwrap(compileTables(classifier, { ...OPTIONS, final: true }));
  const kinds = verifyTables(classifier, tables, { ...VERIFY, final: true }).map(
    ({ kind }) => kind,
  );
  expect(new Set(kinds)).toEqual(new Set(['equal']));
  expect(tables.tables.map((table) => table.default)).not.toContain('continue');
});

it('never needs more rows than direct expansion', () => {
  for (const count of [10, 50, 200]) {
    const compiled = unwrap(compileTables(classifierOf(count), OPTIONS));
    const rows = compiled.tables.tables.reduce((sum, table) => sum + table.rows.length, 0);
    expect(rows).toBeLessThanOrEqual(compiled.directRows);
  }
});

it('paints a range with a hole in two rows', () => {
  expect(paintRange(1024, 65535, 'hole', 'none')).toEqual([
    { value: 0, free: 10, isHole: true },
    { value: 0, free: 16, isHole: false },
  ]);
  expect(paintRange(1024, 65535, 'none', 'none')).toHaveLength(6);
  expect(paintRange(1024, 65535, 'own', 'none')).toEqual([{ value: 0, free: 16, isHole: false }]);
});

it.each([
  ['a mask of another width', { value: '00', mask: 'ff', action: 'drop' }],
  ['a value beside its mask', { value: '0800ffffffff', mask: 'ffff00000000', action: 'drop' }],
])('refuses %s', (_, row) => {
  const key = [
    { field: 'meta protocol', bits: 16 },
    { field: 'ip saddr', bits: 32 },
  ];
  const tables = [{ name: 'ipv4', key, rows: [row], default: 'continue' }];
  const read = readJson(JSON.stringify({ format: 'nft-offload/tcam@1', tables }), 'x.json');
  expect(read.ok).toBe(false);
  expect(read.diagnostics[0]?.code).toBe('tcam/table-file');
});
