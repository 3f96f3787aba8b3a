import { ones } from '../../../support/bits.ts';
import { fail, type Result, succeed } from '../../../support/diagnostics.ts';
import { parseField } from '../field-names.ts';
import { layersOf, mixedPriority } from '../layers.ts';
import type { Column } from '../layout.ts';
import {
  type Action,
  type Cell,
  cellsOf,
  joinCells,
  type TableRow,
  type TableSet,
  type TcamTable,
} from '../table.ts';
import { refuseText } from './acl-text.ts';
import { parseOnly, spellOnly } from './served.ts';
import { type Message, messagesIn, numberIn, parseTextProto, textIn } from './text-proto.ts';

/** P4Runtime 1.4, "ID Allocation for P4Info Objects": the type of an object is its id's first byte. */
const TABLE_ID = 0x02000000;
const ACTION_IDS = { drop: 0x01000001, pass: 0x01000002, trap: 0x01000003 } as const;

/** Bytes in network order without leading zeros ("canonical binary string"), as a text proto has them. */
function bytesOf(value: bigint): string {
  const digits = value.toString(16);
  const padded = digits.length % 2 === 0 ? digits : `0${digits}`;
  return `"${(padded.match(/../g) ?? []).map((byte) => `\\x${byte}`).join('')}"`;
}

function actionOf(action: TcamTable['default']): string {
  const id = ACTION_IDS[action === 'drop' || action === 'trap' ? action : 'pass'];
  return `action { action { action_id: ${id} } }`;
}

/**
 * A WriteRequest in text form: rows with the highest priority first, don't-care fields left out, and
 * the default action of every table.
 */
export function writeP4Runtime({ tables }: TableSet): Result<string> {
  const lines = ['device_id: 1'];
  for (const [place, table] of tables.entries()) {
    const id = `table_id: ${TABLE_ID + place + 1}`;
    // P4Runtime leaves open which of overlapping entries of one priority matches, also where they agree.
    const layers = layersOf(table, 'apart');
    const top = layers.reduce((most, layer) => Math.max(most, layer), 0) + 1;
    for (const [index, row] of table.rows.entries()) {
      const matches = cellsOf(table.columns, row).flatMap(({ value, mask }, column) => {
        if (mask === 0n) return [];
        const field = `field_id: ${column + 1}`;
        return `match { ${field} ternary { value: ${bytesOf(value)} mask: ${bytesOf(mask)} } }`;
      });
      const entry = [
        id,
        ...matches,
        `priority: ${top - (layers[index] ?? 0)}`,
        actionOf(row.action),
      ];
      lines.push(`updates { type: INSERT entity { table_entry { ${entry.join(' ')} } } }`);
    }
    const end = `${id} ${actionOf(table.default)} is_default_action: true`;
    lines.push(`updates { type: MODIFY entity { table_entry { ${end} } } }`);
  }
  return succeed(`${lines.join('\n')}\n`);
}

function identifier(name: string): string {
  return name.replaceAll(/[^a-z0-9]+/gi, '_');
}

/** The P4Info that `writeP4Runtime`'s request fits. */
export function writeP4Info({ tables }: TableSet): string {
  const lines: string[] = [];
  for (const [place, { name, columns, served, rows }] of tables.entries()) {
    const alias = identifier(name);
    const only = spellOnly(served);
    const about = only === '' ? '' : ` doc { brief: "${only}" }`;
    lines.push('tables {');
    lines.push(
      `  preamble { id: ${TABLE_ID + place + 1} name: "nft.${alias}" alias: "${alias}"${about} }`,
    );
    for (const [index, { field, bits }] of columns.entries()) {
      const key = `id: ${index + 1} name: "${identifier(field.name)}" bitwidth: ${bits}`;
      const doc = `doc { brief: "${field.name}" }`;
      lines.push(`  match_fields { ${key} match_type: TERNARY ${doc} }`);
    }
    for (const id of Object.values(ACTION_IDS)) lines.push(`  action_refs { id: ${id} }`);
    lines.push(`  size: ${Math.max(1, rows.length)}`, '}');
  }
  for (const [name, id] of Object.entries(ACTION_IDS)) {
    lines.push(`actions { preamble { id: ${id} name: "nft.${name}" alias: "${name}" } }`);
  }
  return `${lines.join('\n')}\n`;
}

/** A table as its P4Info describes it, with the rows that were found for it. */
interface Draft {
  readonly table: Pick<TcamTable, 'name' | 'columns' | 'served'>;
  /** Places of columns by the id of their match field. */
  readonly places: ReadonlyMap<number, number>;
  readonly rows: { readonly priority: number; readonly row: TableRow }[];
  default: Action;
}

function readColumn(field: Message): Column | null {
  const [doc] = messagesIn(field, 'doc');
  const named = parseField((doc === undefined ? null : textIn(doc, 'brief')) ?? '');
  const bits = numberIn(field, 'bitwidth') ?? 0;
  if (named === null || bits < 1 || bits > named.width) return null;
  return textIn(field, 'match_type') === 'TERNARY'
    ? { field: named, bits, match: 'ternary', protocols: null }
    : null;
}

/** A table of a P4Info, by its id; what is wrong with it as text. */
function readInfoTable(message: Message, pass: Action): readonly [number, Draft] | string {
  const [preamble] = messagesIn(message, 'preamble');
  const id = preamble === undefined ? null : numberIn(preamble, 'id');
  if (preamble === undefined || id === null) return 'a table without an id';
  const name = textIn(preamble, 'alias') ?? String(id);
  const [doc] = messagesIn(preamble, 'doc');
  const served = parseOnly((doc === undefined ? null : textIn(doc, 'brief')) ?? '');
  if (served === null) return `table ${name}: its doc does not say which frames it is for`;
  const fields = messagesIn(message, 'match_fields');
  const columns = fields.map(readColumn);
  if (columns.includes(null)) return `table ${name}: a match field that is not understood`;
  const places = new Map(fields.map((field, at) => [numberIn(field, 'id') ?? -1, at] as const));
  const table = { name, columns: columns.flatMap((column) => column ?? []), served };
  return [id, { table, places, rows: [], default: pass }];
}

/** The number that a string of bytes is; null when it has more than `bits` bits. */
function numberOf(bytes: string | null, bits: number): bigint | null {
  if (bytes === null || bytes === '') return null;
  let value = 0n;
  for (const byte of bytes.slice(0, 64)) value = value * 256n + BigInt(byte.charCodeAt(0));
  return bytes.length <= 64 && value <= ones(bits) ? value : null;
}

function readMatch(match: Message, { table, places }: Draft): readonly [number, Cell] | null {
  const place = places.get(numberIn(match, 'field_id') ?? -1);
  const bits = place === undefined ? undefined : table.columns[place]?.bits;
  const [ternary] = messagesIn(match, 'ternary');
  if (place === undefined || bits === undefined || ternary === undefined) return null;
  const value = numberOf(textIn(ternary, 'value'), bits);
  const mask = numberOf(textIn(ternary, 'mask'), bits);
  if (value === null || mask === null || (value & ~mask) !== 0n) return null;
  return [place, { value, mask, range: null }];
}

function readAction(entry: Message, passes: ReadonlyMap<number, Action>): Action | null {
  const [outer] = messagesIn(entry, 'action');
  const [inner] = outer === undefined ? [] : messagesIn(outer, 'action');
  const id = inner === undefined ? null : numberIn(inner, 'action_id');
  return id === null ? null : (passes.get(id) ?? null);
}

/** Takes in one table entry; what is wrong with it, or null. */
function readEntry(entry: Message, draft: Draft, actions: ReadonlyMap<number, Action>) {
  const action = readAction(entry, actions);
  if (action === null) return 'an action that the P4Info does not have';
  if (entry.fields.some(([name, value]) => name === 'is_default_action' && value === true)) {
    draft.default = action;
    return null;
  }
  const priority = numberIn(entry, 'priority') ?? 0;
  if (priority <= 0) return 'a priority must be greater than 0';
  const matches = messagesIn(entry, 'match').map((match) => readMatch(match, draft));
  if (matches.includes(null)) return 'a match that the P4Info does not have';
  const asked = new Map(matches.flatMap((match) => (match === null ? [] : [match])));
  const none: Cell = { value: 0n, mask: 0n, range: null };
  const { columns } = draft.table;
  const cells = columns.map((_, at) => asked.get(at) ?? none);
  draft.rows.push({ priority, row: { ...joinCells(columns, cells), action, rules: [] } });
  return null;
}

const ACTIONS: Readonly<Record<string, (pass: Action) => Action>> = {
  drop: () => 'drop',
  pass: (pass) => pass,
  trap: () => 'trap',
};

/** The inverse of `writeP4Runtime`, given the P4Info that stands beside it. */
export function readP4Runtime(
  text: string,
  file: string,
  pass: Action,
  beside: string | null,
): Result<TableSet> {
  const refuse = (what: string) => fail(refuseText(what, file));
  if (beside === null) return refuse('the P4Info beside it is missing');
  const info = parseTextProto(beside);
  const request = parseTextProto(text);
  if (info === null) return refuse('the P4Info beside it is no text proto');
  if (request === null) return refuse('this is no text proto');
  const drafts = new Map<number, Draft>();
  for (const message of messagesIn(info, 'tables')) {
    const draft = readInfoTable(message, pass);
    if (typeof draft === 'string') return refuse(draft);
    drafts.set(...draft);
  }
  const preambles = messagesIn(info, 'actions').flatMap((one) => messagesIn(one, 'preamble'));
  const actions = new Map(
    preambles.flatMap((one): [number, Action][] => {
      const meaning = ACTIONS[textIn(one, 'alias') ?? ''];
      return meaning === undefined ? [] : [[numberIn(one, 'id') ?? -1, meaning(pass)]];
    }),
  );
  for (const [index, update] of messagesIn(request, 'updates').entries()) {
    const [entity] = messagesIn(update, 'entity');
    const [entry] = entity === undefined ? [] : messagesIn(entity, 'table_entry');
    const draft = entry === undefined ? undefined : drafts.get(numberIn(entry, 'table_id') ?? -1);
    const type = textIn(update, 'type');
    const isKnown = type === 'INSERT' || type === 'MODIFY';
    if (entry === undefined || draft === undefined || !isKnown) {
      return refuse(`update ${index + 1} is no entry of a table of the P4Info`);
    }
    const problem = readEntry(entry, draft, actions);
    if (problem !== null) return refuse(`update ${index + 1}: ${problem}`);
  }
  const tables: TcamTable[] = [];
  for (const { table, rows, default: last } of drafts.values()) {
    rows.sort((a, b) => b.priority - a.priority);
    const whole = { ...table, rows: rows.map(({ row }) => row), default: last };
    const priorities = rows.map(({ priority }) => priority);
    const twice = mixedPriority(whole, priorities, 'apart');
    if (twice !== null) {
      return refuse(`table ${table.name}: entries of priority ${twice} overlap`);
    }
    tables.push(whole);
  }
  return succeed({ profile: null, tables });
}
