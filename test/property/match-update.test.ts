import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  actionWord,
  lookUpTree,
  type TreeData,
  writeTree,
} from '../../src/backends/ebpf-offload/tree-data.ts';
import { type PatchWord, patchTree } from '../../src/backends/ebpf-offload/tree-patch.ts';
import { createNodeTable } from '../../src/ir/decision-nodes.ts';
import { boxHolds, buildForest } from '../../src/ir/match-forest.ts';
import type { MatchTable } from '../../src/ir/match-table.ts';
import type { UsedTable } from '../../src/ir/match-update.ts';
import { type Box, boxes, keysOf, tableOf } from '../support/match-tables.ts';

/** A rule is a pair of boxes, and a name that says what it does. */
interface Rule {
  readonly boxes: readonly Box[];
  readonly name: number;
}

type Edit = readonly [
  kind: 'add' | 'delete' | 'replace' | 'move' | 'rename',
  at: number,
  other: number,
];

const edits: fc.Arbitrary<readonly (readonly Edit[])[]> = fc.array(
  fc.array(
    fc.tuple(
      fc.constantFrom('add', 'delete', 'replace', 'move', 'rename') as fc.Arbitrary<Edit[0]>,
      fc.nat(),
      fc.nat(),
    ),
    { minLength: 1, maxLength: 4 },
  ),
  { minLength: 1, maxLength: 6 },
);

function rulesOf(rows: readonly Box[], from: number): Rule[] {
  const rules: Rule[] = [];
  for (let at = 0; at < rows.length; at += 2) {
    rules.push({ boxes: rows.slice(at, at + 2), name: from + (at >> 1) });
  }
  return rules;
}

/** The rules after some edits; `pool` is where new ones come from. */
function edit(before: readonly Rule[], list: readonly Edit[], pool: readonly Rule[]): Rule[] {
  const rules = [...before];
  for (const [kind, at, other] of list) {
    const place = at % Math.max(1, rules.length);
    const fresh = pool[other % pool.length];
    const own = rules[place];
    if (fresh === undefined) continue;
    if (kind === 'add' || own === undefined) rules.splice(at % (rules.length + 1), 0, fresh);
    else if (kind === 'replace') rules[place] = fresh;
    else if (kind === 'rename') rules[place] = { ...own, name: fresh.name };
    else {
      rules.splice(place, 1);
      if (kind === 'move') rules.splice(other % (rules.length + 1), 0, own);
    }
  }
  return rules;
}

/** One full pair of boxes a rule, as `tableOf` wants it. */
function rowsOf(rules: readonly Rule[]): Box[] {
  return rules.flatMap(({ boxes: own }) => [own[0] ?? [], own[1] ?? own[0] ?? []]);
}

/** What the rules of a table say of a key. */
function truthIn(table: MatchTable, rules: readonly Rule[], key: readonly number[]): number | null {
  for (let box = 0; box < table.size; box += 1) {
    if (boxHolds(table, box, [...key, 0])) return rules[box >> 1]?.name ?? null;
  }
  return null;
}

function seen(data: TreeData, key: readonly number[], generation: number): number | null {
  return lookUpTree(data, [...key, generation])?.slot ?? null;
}

function store({ bytes }: TreeData, { offset, value }: PatchWord): void {
  new DataView(bytes.buffer).setUint32(offset, value, true);
}

function open(rules: readonly Rule[]): { used: UsedTable; data: TreeData } | null {
  const table = tableOf(rowsOf(rules));
  const forest = buildForest(table, 2);
  if (forest === null) return null;
  const actions = rules.map(({ name }) => ({ target: 0, counter: name, rule: null }));
  const { drop, pass } = createNodeTable();
  const node = {
    kind: 'table',
    id: 2,
    table,
    forest,
    actions,
    targets: [drop, pass],
    none: 1,
  } as const;
  return { used: { table, forest, rules: rules.length }, data: writeTree(node, (name) => name) };
}

const picks = fc.array(fc.nat(), { minLength: 30, maxLength: 30 });

it('changes trees in use: every store leaves what is found, all at once comes what is wanted', () => {
  fc.assert(
    fc.property(boxes, boxes, edits, picks, (first, second, changes, picked) => {
      const pool = rulesOf(second, 1000);
      let rules = rulesOf(first, 0);
      let at = open(rules);
      fc.pre(at !== null);
      for (const [generation, list] of changes.entries()) {
        if (at === null) return;
        const wanted = edit(rules, list, pool);
        if (wanted.length === 0) return;
        const tables = tableOf(rowsOf(wanted));
        const patched = patchTree(
          at.used,
          at.data,
          {
            table: tables,
            rules: wanted.length,
            doesSame: (old, now) => rules[old]?.name === wanted[now]?.name,
            actionsOf: () => Uint32Array.from(wanted, ({ name }) => actionWord(0, name)),
          },
          generation,
        );
        if (patched === null) {
          // No room, or a row that asks for what no other does: then trees are made anew.
          rules = wanted;
          at = open(rules);
          continue;
        }
        const keys = keysOf(rowsOf([...rules, ...wanted]), picked);
        const table0 = tableOf(rowsOf(rules));
        const before = keys.map((key) => truthIn(table0, rules, key));
        const running: TreeData = { ...at.data, bytes: at.data.bytes.slice() };
        for (const [number, word] of patched.words.entries()) {
          store(running, word);
          // A few of the keys at each store, others at the next.
          const some = keys.map((_, index) => index).filter((index) => (index - number) % 15 === 0);
          const found = some.map((index) => seen(running, keys[index] ?? [], generation));
          expect(found).toEqual(some.map((index) => before[index]));
        }
        expect(keys.map((key) => seen(running, key, generation))).toEqual(before);
        const after = keys.map((key) => truthIn(tables, wanted, key));
        expect(keys.map((key) => seen(running, key, generation + 1))).toEqual(after);
        expect(running.bytes).toEqual(patched.data.bytes);
        const { table, forest, data } = patched;
        at = { used: { table, forest, rules: wanted.length }, data };
        rules = wanted;
      }
    }),
    { numRuns: 10 },
  );
});
