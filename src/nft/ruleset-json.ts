import type { z } from 'zod';
import type { BaseChain, Chain, Family, Ruleset, Table } from '../ir/ruleset.ts';
import {
  type Diagnostic,
  errorAt,
  fail,
  type Place,
  type Result,
  succeed,
} from '../support/diagnostics.ts';
import { isObject, member, soleEntry, textMember } from './json.ts';
import type { RuleState } from './lower-expression.ts';
import { lowerRule } from './lower-rule.ts';
import { openNamedSets, type SetDeclaration } from './named-sets.ts';
import { parseJson } from './parse-json.ts';
import {
  chainSchema,
  counterSchema,
  elementSchema,
  familySchema,
  ruleSchema,
  setSchema,
  tableSchema,
} from './schema.ts';
import { createTestPool, type TestPool } from './test-pool.ts';

type TableJson = z.infer<typeof tableSchema>;
type ChainJson = z.infer<typeof chainSchema>;
type RuleJson = z.infer<typeof ruleSchema>;
type SetJson = z.infer<typeof setSchema>;
type CounterJson = z.infer<typeof counterSchema>;

interface DraftSet {
  readonly declaration: SetJson;
  readonly isMap: boolean;
  readonly elements: unknown[];
}

interface DraftChain {
  readonly declaration: ChainJson;
  readonly rules: RuleJson[];
}

/** A table while its listing is read. */
interface DraftTable {
  readonly declaration: TableJson;
  readonly chains: Map<string, DraftChain>;
  readonly sets: Map<string, DraftSet>;
  readonly counters: CounterJson[];
}

interface Draft {
  readonly tables: Map<string, DraftTable>;
  readonly diagnostics: Diagnostic[];
  readonly file: string;
  /** The text was listed by nft, which leaves some tests out, not written by someone. */
  isLossy: boolean;
}

function placeIn(file: string): Place {
  return { kind: 'file', file, line: null, column: null };
}

function warn(draft: Draft, code: string, message: string, help: string | null = null): void {
  draft.diagnostics.push({ code, severity: 'warning', message, help, place: placeIn(draft.file) });
}

function refuse(draft: Draft, code: string, message: string): void {
  draft.diagnostics.push(errorAt(code, message, { place: placeIn(draft.file) }));
}

function validate<T>(draft: Draft, schema: z.ZodType<T>, kind: string, body: unknown): T | null {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const where = issue === undefined ? '' : ` (${issue.path.join('.')}: ${issue.message})`;
  const name = textMember(body, 'name') ?? textMember(body, 'chain') ?? '';
  refuse(draft, 'read/object', `the ${kind} ${name} is not of the form nft writes${where}`);
  return null;
}

function tableKey(family: string, name: string): string {
  return `${family} ${name}`;
}

function tableOf(draft: Draft, family: Family, name: string): DraftTable {
  const key = tableKey(family, name);
  const known = draft.tables.get(key);
  if (known !== undefined) return known;
  const table: DraftTable = {
    declaration: { family, name },
    chains: new Map(),
    sets: new Map(),
    counters: [],
  };
  draft.tables.set(key, table);
  return table;
}

function addTable(draft: Draft, body: unknown): void {
  const declaration = validate(draft, tableSchema, 'table', body);
  if (declaration === null) return;
  const known = tableOf(draft, declaration.family, declaration.name);
  draft.tables.set(tableKey(declaration.family, declaration.name), { ...known, declaration });
}

function chainOf(table: DraftTable, name: string): DraftChain {
  const known = table.chains.get(name);
  if (known !== undefined) return known;
  const { family, name: tableName } = table.declaration;
  const chain: DraftChain = { declaration: { family, table: tableName, name }, rules: [] };
  table.chains.set(name, chain);
  return chain;
}

function addChain(draft: Draft, body: unknown): void {
  const declaration = validate(draft, chainSchema, 'chain', body);
  if (declaration === null) return;
  const table = tableOf(draft, declaration.family, declaration.table);
  const known = chainOf(table, declaration.name);
  const keep = known.declaration.hook != null && declaration.hook == null;
  if (!keep) table.chains.set(declaration.name, { ...known, declaration });
}

function addRule(draft: Draft, body: unknown, verb: string): void {
  const rule = validate(draft, ruleSchema, 'rule in chain', body);
  if (rule === null) return;
  const { rules } = chainOf(tableOf(draft, rule.family, rule.table), rule.chain);
  if (verb === 'insert') rules.splice(rule.index ?? 0, 0, rule);
  else if (verb === 'add' && rule.index != null) rules.splice(rule.index + 1, 0, rule);
  else rules.push(rule);
}

function addSet(draft: Draft, body: unknown, isMap: boolean): void {
  const declaration = validate(draft, setSchema, isMap ? 'map' : 'set', body);
  if (declaration === null) return;
  const table = tableOf(draft, declaration.family, declaration.table);
  const known = table.sets.get(declaration.name);
  const elements = known?.elements ?? [];
  for (const element of declaration.elem ?? []) elements.push(element);
  table.sets.set(declaration.name, { declaration, isMap, elements });
}

function addElements(draft: Draft, body: unknown): void {
  const more = validate(draft, elementSchema, 'element of', body);
  if (more === null) return;
  const set = tableOf(draft, more.family, more.table).sets.get(more.name);
  if (set === undefined) {
    refuse(draft, 'read/object', `elements are added to ${more.name}, which is not declared`);
    return;
  }
  for (const element of Array.isArray(more.elem) ? more.elem : [more.elem]) {
    set.elements.push(element);
  }
}

function addCounter(draft: Draft, body: unknown): void {
  const counter = validate(draft, counterSchema, 'counter', body);
  if (counter === null) return;
  tableOf(draft, counter.family, counter.table).counters.push(counter);
}

/** Objects that say nothing about verdicts by themselves. */
const SILENT: ReadonlySet<string> = new Set([
  'metainfo',
  'quota',
  'limit',
  'ct helper',
  'ct timeout',
  'ct expectation',
  'synproxy',
  'secmark',
  'flowtable',
  'meter',
]);

function addObject(draft: Draft, verb: string, key: string, body: unknown): void {
  if (key === 'metainfo') draft.isLossy = true;
  if (SILENT.has(key)) return;
  if (key === 'table') addTable(draft, body);
  else if (key === 'chain') addChain(draft, body);
  else if (key === 'rule') addRule(draft, body, verb);
  else if (key === 'set') addSet(draft, body, false);
  else if (key === 'map') addSet(draft, body, true);
  else if (key === 'element') addElements(draft, body);
  else if (key === 'counter') addCounter(draft, body);
  else warn(draft, 'read/unknown-object', `${key} is not known and was left out`);
}

/** `flush ruleset`, `flush table T`, `delete table T`: only before anything has been added there. */
function removeObject(draft: Draft, verb: string, key: string, body: unknown): void {
  const name = textMember(body, 'name') ?? textMember(body, 'table') ?? '';
  const family = familySchema.safeParse(member(body, 'family'));
  const touched =
    key === 'ruleset'
      ? draft.tables.size > 0
      : family.success && draft.tables.has(tableKey(family.data, name));
  if (key === 'ruleset') draft.tables.clear();
  else if (key === 'table' && family.success) draft.tables.delete(tableKey(family.data, name));
  else if (touched) {
    refuse(
      draft,
      'read/command',
      `the command ${verb} ${key} ${name} behind its declaration cannot be followed`,
    );
  }
}

function readCommand(draft: Draft, item: unknown): void {
  const entry = soleEntry(item);
  if (entry === null) {
    refuse(draft, 'read/object', `${JSON.stringify(item).slice(0, 60)} is not an nftables object`);
    return;
  }
  const [verb, body] = entry;
  const isAdding = verb === 'add' || verb === 'create' || verb === 'insert' || verb === 'replace';
  const isRemoving =
    verb === 'flush' || verb === 'delete' || verb === 'destroy' || verb === 'reset';
  if (!isAdding && !isRemoving) {
    addObject(draft, 'list', verb, body);
    return;
  }
  const inner = soleEntry(body);
  if (inner === null || verb === 'replace') {
    refuse(draft, 'read/command', `the command ${verb} cannot be followed in a ruleset file`);
  } else if (isAdding) addObject(draft, verb, ...inner);
  else removeObject(draft, verb, ...inner);
}

/** Sets that the statements of a table's rules add to or delete from. */
function dynamicSets(table: DraftTable): ReadonlySet<string> {
  const names = new Set<string>();
  for (const { rules } of table.chains.values()) {
    for (const { expr } of rules) {
      for (const statement of expr) {
        const entry = soleEntry(statement);
        if (entry === null || (entry[0] !== 'set' && entry[0] !== 'map')) continue;
        const name = textMember(entry[1], entry[0]);
        if (name !== null) names.add(name.replace(/^@/, ''));
      }
    }
  }
  return names;
}

function typeNames(type: unknown): readonly string[] | null {
  if (typeof type === 'string') return type.split(' . ');
  return Array.isArray(type) && type.every((part) => typeof part === 'string') ? type : null;
}

function declareSet({ declaration, isMap, elements }: DraftSet): SetDeclaration {
  return {
    name: declaration.name,
    types: typeNames(declaration.type),
    content: !isMap ? 'set' : declaration.map === 'verdict' ? 'verdicts' : 'data',
    flags: declaration.flags ?? [],
    statements: Array.isArray(declaration.stmt) && declaration.stmt.length > 0,
    elements,
  };
}

function baseOf(declaration: ChainJson): BaseChain | null {
  if (declaration.hook == null) return null;
  return {
    type: declaration.type ?? 'filter',
    hook: declaration.hook,
    priority: declaration.prio ?? 0,
    policy: declaration.policy ?? 'accept',
    devices: declaration.devs ?? declaration.dev ?? null,
  };
}

function finishChain(
  table: DraftTable,
  chain: DraftChain,
  shared: Pick<RuleState, 'sets' | 'pool'>,
  isLossy: boolean,
): Chain {
  const { family, name: tableName } = table.declaration;
  const { name, handle } = chain.declaration;
  return {
    name,
    handle: handle ?? null,
    base: baseOf(chain.declaration),
    rules: chain.rules.map((rule, index) => {
      const id = { family, table: tableName, chain: name, handle: rule.handle ?? null, index };
      return lowerRule(id, rule.expr, rule.comment ?? null, shared, isLossy);
    }),
  };
}

/**
 * Flags of tables whose chains run. nft 1.0.6 prints the table's name where it means `dormant` (or
 * `owner`): what is not known to run is taken not to, and then nothing of it moves.
 */
const LIVE_FLAGS: ReadonlySet<string> = new Set(['owner', 'persist']);

function finishTable(table: DraftTable, pool: TestPool, isLossy: boolean): Table {
  const sets = openNamedSets([...table.sets.values()].map(declareSet), dynamicSets(table));
  const chains = [...table.chains.values()].map((chain) =>
    finishChain(table, chain, { sets, pool }, isLossy),
  );
  const { family, name, handle, flags } = table.declaration;
  return {
    family,
    name,
    handle: handle ?? null,
    dormant: (flags ?? []).some((flag) => !LIVE_FLAGS.has(flag)),
    chains,
    sets: sets.all(),
    counters: table.counters.map((counter) => ({
      name: counter.name,
      packets: counter.packets ?? 0,
      bytes: counter.bytes ?? 0,
    })),
  };
}

const HELP = 'a ruleset is what `nft -j list ruleset` prints: {"nftables": [...]}';

/** What is known about the JSON besides its text. */
export interface JsonOptions {
  /** Nothing is missing, although nft may have listed it. */
  readonly isComplete: boolean;
}

/** Reads parsed libnftables JSON, a listing or commands that build a ruleset. */
export function readJsonValue(
  value: unknown,
  file: string,
  options: JsonOptions = { isComplete: false },
): Result<Ruleset> {
  const place = placeIn(file);
  const list = isObject(value) ? member(value, 'nftables') : undefined;
  if (!Array.isArray(list)) {
    const message = 'this JSON is not an nftables ruleset: it has no array "nftables"';
    return fail(errorAt('read/json-kind', message, { place, help: HELP }));
  }
  const draft: Draft = { tables: new Map(), diagnostics: [], file, isLossy: false };
  for (const item of list) readCommand(draft, item);
  const errors = draft.diagnostics.filter(({ severity }) => severity === 'error');
  if (errors.length > 0) return fail(...errors.slice(0, MOST_ERRORS));
  const isLossy = draft.isLossy && !options.isComplete;
  const pool = createTestPool();
  const tables = [...draft.tables.values()].map((table) => finishTable(table, pool, isLossy));
  return succeed({ tables }, draft.diagnostics);
}

const MOST_ERRORS = 10;

/** Reads libnftables JSON text; `file` is only for diagnostics. */
export function readJsonText(
  text: string,
  file: string,
  options: JsonOptions = { isComplete: false },
): Result<Ruleset> {
  const parsed = parseJson(text, file);
  return parsed.ok ? readJsonValue(parsed.value, file, options) : parsed;
}
