import type { Classifier, Counter } from '../../ir/classifier.ts';
import type { TableRequest, TableSource } from '../../ir/decision.ts';
import type { TableAction, TableNode } from '../../ir/decision-nodes.ts';
import type { Forest } from '../../ir/match-forest.ts';
import type { MatchTable } from '../../ir/match-table.ts';
import type { CounterLayout } from '../backend.ts';
import { TREES } from './ask-table.ts';
import type { CounterSlots } from './counter-slots.ts';
import type { BpfObject } from './elf.ts';
import { type ReusedSlots, reuseSlots } from './reuse-slots.ts';
import { actionWord, slotOfAction, TARGET_BITS, type TreeData } from './tree-data.ts';
import type { PlacedTable } from './tree-format.ts';
import { type PatchedTree, type PatchWord, patchTree } from './tree-patch.ts';

/** A table of a program in use. */
export interface LiveTable {
  readonly table: MatchTable;
  readonly forest: Forest;
  readonly rules: number;
  readonly data: TreeData;
  /** Where it starts in the section. */
  readonly offset: number;
}

/** A program in use, as far as changing it needs it. */
export interface LiveProgram {
  readonly format: 'nft-offload/live@1';
  readonly code: LiveCode;
  /** What readers of its tables ask for. */
  readonly generation: number;
  readonly tables: readonly LiveTable[];
  readonly counters: LiveCounters | null;
}

/** What cannot be changed while it runs. */
interface LiveCode {
  readonly programs: readonly ({
    readonly section: string;
  } & BpfObject['programs'][number]['assembly'])[];
  readonly maps: BpfObject['maps'];
  /** Without the tables. */
  readonly data: BpfObject['data'];
}

/** Where a program in use counts. */
export interface LiveCounters {
  readonly layout: CounterLayout;
  readonly ingress: number;
  /** By slot. A slot is never given away again: `retired` ones counted for rules that are gone. */
  readonly owners: readonly Counter[];
  readonly retired: ReadonlySet<number>;
}

/** How a program in use becomes another one. */
export interface ProgramPatch {
  /** Before any of them is stored, nobody may read a generation before `generation - 1` any more. */
  readonly words: readonly PatchWord[];
  /** What makes them visible, all at once: stored once everybody sees the others. */
  readonly commit: PatchWord;
  readonly generation: number;
  /** Bytes of the section that the words stand in. */
  readonly bytes: number;
}

/** A change that was worked out. */
export interface ChangedProgram {
  readonly generation: number;
  readonly dataOf: (node: TableNode) => TreeData | null;
  readonly counters: CounterSlots | null;
  readonly retired: ReadonlySet<number>;
  readonly patchFor: (tables: readonly PlacedTable[]) => ProgramPatch;
}

/** Whether something is a program in use. */
export function isLiveProgram(value: object | undefined): value is LiveProgram {
  return value !== undefined && 'format' in value && value.format === 'nft-offload/live@1';
}

/** What has to be known of a program to change it later. */
export function liveProgram(
  object: BpfObject,
  tables: readonly PlacedTable[],
  counters: CounterSlots | null,
  changed: ChangedProgram | null,
): LiveProgram {
  return {
    format: 'nft-offload/live@1',
    code: {
      programs: object.programs.map(({ section, assembly: { code, relocations } }) => {
        return { section, code, relocations };
      }),
      maps: object.maps,
      data: object.data.filter(({ name }) => name !== TREES),
    },
    generation: changed?.generation ?? 0,
    tables: tables.map(({ node: { table, forest, actions }, data, offset }) => {
      return { table, forest, rules: actions.length, data, offset };
    }),
    counters:
      counters === null
        ? null
        : {
            layout: counters.layout,
            ingress: counters.ingress,
            owners: counters.owners,
            retired: changed?.retired ?? new Set(),
          },
  };
}

function isSameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

function isSameCode(a: LiveCode, b: LiveCode): boolean {
  return (
    a.programs.length === b.programs.length &&
    a.programs.every(({ section, code, relocations }, at) => {
      const other = b.programs[at];
      return (
        other?.section === section &&
        isSameBytes(code, other.code) &&
        JSON.stringify(relocations) === JSON.stringify(other.relocations)
      );
    }) &&
    JSON.stringify(a.maps) === JSON.stringify(b.maps) &&
    a.data.length === b.data.length &&
    a.data.every(({ name, content }, at) => {
      const other = b.data[at];
      return other?.name === name && isSameBytes(content, other.content);
    })
  );
}

/** Whether two programs differ in nothing but what their tables hold. */
export function hasSameCode(a: LiveProgram, b: LiveProgram): boolean {
  return (
    isSameCode(a.code, b.code) &&
    a.tables.length === b.tables.length &&
    a.tables.every(({ offset, data }, at) => {
      const other = b.tables[at];
      return other?.offset === offset && other.data.bytes.length === data.bytes.length;
    })
  );
}

/** A change under way. */
interface Change {
  readonly base: LiveProgram;
  readonly slots: ReusedSlots;
  readonly trees: PatchedTree[];
  /** What cannot be changed in place shows while the decision is made, which goes on in vain. */
  isOff: boolean;
}

/** Whether a rule of a table in use does what one of the table that is wanted does. */
function doesSame(
  { slots }: Change,
  word: number,
  { target, counter }: TableAction | { target: null; counter: null },
): boolean {
  if ((word & (2 ** TARGET_BITS - 1)) !== target) return false;
  const slot = slotOfAction(word);
  if (slot === null || counter === null) return slot === counter;
  return slots.mayBe(counter, slot);
}

const NO_ACTION = { target: null, counter: null };

/** The words of a table's actions; null where counters do not fit. */
function actionsOf(
  { slots }: Change,
  before: Uint32Array,
  actions: readonly TableAction[],
  pairs: Int32Array,
): Uint32Array | null {
  // Rules that stay first: what they count in is nobody else's.
  for (const [rule, { counter }] of actions.entries()) {
    const old = pairs[rule] ?? -1;
    const slot = old < 0 ? null : slotOfAction(before[old] ?? 0);
    if (slot !== null && counter !== null && !slots.bind(counter, slot)) return null;
  }
  const words = new Uint32Array(actions.length);
  for (const [rule, { target, counter }] of actions.entries()) {
    const slot = counter === null ? null : slots.slotOf(counter);
    if (slot === null && counter !== null) return null;
    words[rule] = actionWord(target, slot);
  }
  return words;
}

function patchNext(change: Change, { maker, rows, actions }: TableRequest): PatchedTree | null {
  const { base, trees } = change;
  const live = base.tables[trees.length];
  if (live === undefined) return null;
  const table = maker.makeFor(rows, live.table.key);
  if (table === null) return null;
  const before = live.data.actions;
  const wanted = {
    table,
    rules: rows.length,
    doesSame: (old: number, now: number) =>
      doesSame(change, before[old] ?? 0, actions[now] ?? NO_ACTION),
    actionsOf: (pairs: Int32Array) => actionsOf(change, before, actions, pairs),
  };
  return patchTree(live, live.data, wanted, base.generation);
}

function patchOf(
  { base, trees }: Change,
  tables: readonly PlacedTable[],
  generation: number,
): ProgramPatch {
  const words = trees.flatMap(({ words: own }, at) => {
    const offset = tables[at]?.offset ?? 0;
    return own.map((word) => ({ ...word, offset: word.offset + offset }));
  });
  if (base.tables.length !== tables.length) throw new Error('bug: tables were lost');
  const bytes = tables.reduce(
    (end, { offset, data }) => Math.max(end, offset + data.bytes.length),
    0,
  );
  return { words, commit: { offset: 0, value: generation }, generation, bytes };
}

/** The last generation that there is. */
const LAST_GENERATION = 0xfffffffe;

/** Begins to change a program in use: makes its tables what the decision of a new ruleset wants. */
export function openChange(
  base: LiveProgram,
  classifier: Classifier,
): {
  readonly tableSource: TableSource;
  /** Null where it cannot be changed so; `counters` are all that the decision counts. */
  readonly finish: (counters: readonly number[]) => ChangedProgram | null;
} {
  const slots = reuseSlots(base.counters, classifier.counters);
  const change: Change = { base, slots, trees: [], isOff: base.generation >= LAST_GENERATION };
  const [first] = base.tables;
  if (first === undefined) throw new Error('bug: a program in use without tables');
  const generation = base.generation + 1;
  return {
    tableSource: (request) => {
      const patched = change.isOff ? null : patchNext(change, request);
      // Any table will do for a decision that is thrown away.
      if (patched === null) change.isOff = true;
      else change.trees.push(patched);
      return patched ?? first;
    },
    finish: (counters) => {
      if (change.isOff || change.trees.length !== base.tables.length) return null;
      if (counters.some((counter) => slots.slotOf(counter) === null)) return null;
      const data = new Map(change.trees.map((tree) => [tree.table, tree.data]));
      return {
        generation,
        dataOf: ({ table }) => data.get(table) ?? null,
        counters: slots.finish(),
        retired: slots.retired(),
        patchFor: (tables) => patchOf(change, tables, generation),
      };
    },
  };
}
