import type { Classifier } from '../../ir/classifier.ts';
import { fieldKey, META } from '../../ir/fields.ts';
import { presenceKey } from '../../ir/region.ts';
import { ones, writeUint } from '../../support/bits.ts';
import { type Diagnostic, errorAt } from '../../support/diagnostics.ts';
import { type LowerOptions, lowerPlan, proveTable } from './compile.ts';
import { checksum, columnValues, frameOfKey } from './frame-of-key.ts';
import { protocolColumn } from './layout.ts';
import type { TablePlan } from './plan-tables.ts';
import {
  type Action,
  type Cell,
  cellsOf,
  joinCells,
  type TableRow,
  type TcamTable,
} from './table.ts';

/** Transport headers of which access lists ask more than ports: where that begins, in bits. */
const PORT_BITS = 32; // RFC 9293 section 3.1, RFC 768
const TCP = 6;
const UDP = 17;
/**
 * Extension headers of IPv6 that the kernel's flow dissector takes for the transport protocol where
 * they are cut or, but for fragments, one too many for it (net/core/flow_dissector.c,
 * __skb_flow_dissect, MAX_FLOW_DISSECT_HDRS).
 */
const EXTENSION_HEADERS = [0, 43, 44, 60]; // IANA protocol numbers

/** What a device reads in columns of a key where the frame has something else, or nothing. */
export interface Misreading {
  readonly what: string;
  /** By column. */
  readonly reads: ReadonlyMap<number, bigint>;
  /** Columns that say nothing then. */
  readonly unknown: ReadonlySet<number>;
  /** Bytes of the transport header that such frames have; null: it is not the header that is cut. */
  readonly present: number | null;
  /** The transport protocol that they have, where those of the table may have others. */
  readonly l4proto: number | null;
}

function zeros(columns: readonly number[]): ReadonlyMap<number, bigint> {
  return new Map(columns.map((column) => [column, 0n]));
}

/** How frames of a table may be misread by a device that reads what is cut as 0, as tc's flower does. */
function misreadingsOf(
  { columns, served }: TcamTable,
  { version, guards }: TablePlan,
): readonly Misreading[] {
  const transport = columns.flatMap(({ field }, at) => (field.base === 'th' ? [at] : []));
  const rest = transport.filter((at) => (columns[at]?.field.offset ?? 0) >= PORT_BITS);
  const protocol = protocolColumn({ columns });
  const fixed = served.fixed.find(({ field }) => fieldKey(field) === META.l4proto.name)?.values;
  const unknown = new Set(transport);
  const found: Misreading[] = [];
  if (fixed !== undefined) {
    // Ports are read on their own; of TCP, also a data offset below 5 makes the rest be read as 0.
    if (rest.length > 0 && rest.length < transport.length) {
      const what = 'TCP flags';
      found.push({
        what,
        reads: zeros(rest),
        unknown: new Set(rest),
        present: PORT_BITS / 8,
        l4proto: null,
      });
    }
    const what = fixed.some((one) => one === TCP || one === UDP) ? 'ports' : 'types';
    if (transport.length > 0)
      found.push({ what, reads: zeros(transport), unknown, present: 0, l4proto: null });
  } else if (transport.length > 0 && protocol >= 0) {
    for (const l4proto of [TCP, UDP]) {
      // Tables before this one have decided those of some.
      if (guards?.values.includes(l4proto) === true) continue;
      const reads = new Map([...zeros(transport), [protocol, BigInt(l4proto)]]);
      const all = new Set([...unknown, protocol]);
      found.push({ what: 'ports', reads, unknown: all, present: 0, l4proto });
    }
  }
  if (version === 'ip6' && fixed === undefined && protocol >= 0) {
    for (const header of EXTENSION_HEADERS) {
      const reads = new Map([[protocol, BigInt(header)]]);
      const what = `extension header ${header}`;
      const all = new Set([protocol, ...transport]);
      found.push({ what, reads, unknown: all, present: null, l4proto: null });
    }
  }
  return found;
}

function accepts({ value, mask, range }: Cell, read: bigint): boolean {
  if (range !== null) return range.lo <= Number(read) && Number(read) <= range.hi;
  return ((value ^ read) & mask) === 0n;
}

interface Projected extends Pick<TcamTable, 'columns' | 'rows' | 'default'> {
  /** For every row its place in the table. */
  readonly places: readonly number[];
}

/** What is left of a table for frames that are misread: rows without the columns that say nothing. */
function project(table: TcamTable, { reads, unknown }: Misreading): Projected {
  const kept = [...table.columns.keys()].filter((at) => !unknown.has(at));
  const columns = kept.flatMap((at) => table.columns[at] ?? []);
  const places: number[] = [];
  const rows: TableRow[] = [];
  for (const [place, row] of table.rows.entries()) {
    const cells = cellsOf(table.columns, row);
    const isRead = [...reads].every(([at, read]) => {
      const cell = cells[at];
      return cell === undefined || accepts(cell, read);
    });
    if (!isRead) continue;
    const left = kept.map((at, column): Cell => {
      const cell = cells[at] ?? { value: 0n, mask: 0n, range: null };
      return cell.range === null ? cell : { ...cell, range: { ...cell.range, column } };
    });
    rows.push({ ...row, ...joinCells(columns, left) });
    places.push(place);
  }
  return { columns, rows, default: table.default, places };
}

/** The plan of a table for frames that are misread, with what its key still says of them. */
function planFor(
  plan: TablePlan,
  { present, l4proto }: Misreading,
  final: boolean,
  columns: TablePlan['columns'],
): TablePlan {
  const region = new Map(plan.region);
  if (present === null) {
    // Tables before this one serve protocols that such frames may have.
    region.delete(META.l4proto.name);
    return { ...plan, region, columns, guards: null };
  }
  if (l4proto !== null) {
    region.set(META.l4proto.name, { lo: BigInt(l4proto), hi: BigInt(l4proto), without: [] });
  }
  if (final) {
    const known = { lo: BigInt(present), hi: BigInt(present), without: [] };
    for (const view of ['ingress', 'l3'] as const) region.set(presenceKey('th', view), known);
  }
  return { ...plan, region, columns, guards: l4proto === null ? plan.guards : null };
}

/** A frame that is misread and decided as the ruleset does not. */
export interface Misread {
  readonly misreading: Misreading;
  /** Frames that are misread so, of which some should show it; none where no proof was found. */
  readonly frames: readonly Uint8Array[];
  /** The row that decides it; null: the default. */
  readonly row: number | null;
}

/** What a table decides wrongly of frames that are misread in one way, or null. */
function tryMisreading(
  classifier: Classifier,
  table: TcamTable,
  plan: TablePlan,
  options: LowerOptions,
  misreading: Misreading,
): Misread | null {
  const { final } = options;
  const actions: readonly Action[] = [final ? 'permit' : 'continue', 'drop', 'trap'];
  const { places, ...left } = project(table, misreading);
  const seen = planFor(plan, misreading, final, left.columns);
  const { store, layout } = lowerPlan(classifier, seen, options);
  const proof = proveTable(left, store, layout, actions, (one, two) =>
    final ? one !== 2 && one !== two : one !== 1 && two === 1,
  );
  if (proof.kind === 'equal') return null;
  if (proof.kind === 'unknown') return { misreading, frames: [], row: null };
  const values = columnValues(proof.key, proof.layout);
  const all = table.columns.map((column, at) => {
    return misreading.reads.get(at) ?? values[left.columns.indexOf(column)] ?? 0n;
  });
  const whole = frameOfKey(table.columns, all, plan.served);
  return {
    misreading,
    frames: misreadFrames(whole, misreading),
    row: places[proof.origin] ?? null,
  };
}

/**
 * What a table decides wrongly of frames that are misread. In front of nftables it may drop only what
 * the ruleset drops whatever is in the fields that say nothing; on a device that forwards by itself it
 * has to decide as the ruleset does of a header that ends there.
 */
export function findMisread(
  classifier: Classifier,
  table: TcamTable,
  plan: TablePlan,
  options: LowerOptions,
): readonly Misread[] {
  const found: Misread[] = [];
  for (const misreading of misreadingsOf(table, plan)) {
    if (options.final && misreading.present === null) continue;
    // Where the ports are read as 0, so is what is behind them.
    if (found.some((one) => isWithin(misreading, one.misreading))) continue;
    const one = tryMisreading(classifier, table, plan, options, misreading);
    if (one !== null) found.push(one);
  }
  return found;
}

/** Whether what one misreads is, at least, what the other does. */
function isWithin(one: Misreading, other: Misreading): boolean {
  return [...other.reads].every(([at, read]) => one.reads.get(at) === read);
}

const ETH_HLEN = 14;
/** Bytes of the network header as `frameOfKey` writes it. */
const HEADER_BYTES: Readonly<Record<number, number>> = { 4: 20, 6: 40 };
const TCP_HEADER = 20;
/** Bytes at which a header may end: within ports and types, and before and behind TCP's flags. */
const ENDS = [0, 1, 2, 3, 4, 7, 12, 14];
/** What is there before a header ends: ports of 0 and 65535, types. */
const STARTS = [0, 0xff, 3, 8];
/** TCP flags that rules ask for: none, SYN, ACK, both, FIN, RST. */
const FLAGS = [0, 0x02, 0x10, 0x12, 0x01, 0x04];

/** An untagged IP frame that ends so many bytes behind its network header, with lengths that say so. */
function cutFrame(whole: Uint8Array, present: number): Uint8Array {
  const version = (whole[ETH_HLEN] ?? 0) >> 4;
  const frame = whole.slice(0, ETH_HLEN + (HEADER_BYTES[version] ?? 0) + present);
  if (version === 6) frame.set([0, present], ETH_HLEN + 4);
  if (version === 4) {
    frame.set([0, 20 + present], ETH_HLEN + 2);
    frame.set([0, 0], ETH_HLEN + 10);
    frame.set(writeUint(BigInt(checksum(frame, ETH_HLEN, 20)), 2), ETH_HLEN + 10);
  }
  return frame;
}

/** Frames of which the device reads what it does of a whole one. */
function misreadFrames(whole: Uint8Array, { present }: Misreading): readonly Uint8Array[] {
  const header = ETH_HLEN + (HEADER_BYTES[(whole[ETH_HLEN] ?? 0) >> 4] ?? 0);
  const change = (at: number, bytes: readonly number[]): Uint8Array => {
    const frame = whole.slice();
    frame.set(bytes, at);
    return frame;
  };
  if (present === null) return [cutFrame(whole, 1)];
  const starts =
    present > 0 ? [whole] : STARTS.map((start) => change(header, [start, start, 0, 0]));
  const cut = ENDS.filter((end) => end >= present).flatMap((end) =>
    starts.map((start) => cutFrame(start, end)),
  );
  if (present === 0) return cut;
  // A data offset of 0, and flags that are not looked at then.
  const short = FLAGS.map((flags) => change(header + TCP_HEADER - 8, [0, flags]));
  return [...cut, ...short];
}

/** Rows in front of all others: what such frames are read as continues. */
function guardFor(table: TcamTable, { reads }: Misreading): TableRow {
  const cells = table.columns.map(({ bits }, at): Cell => {
    const read = reads.get(at);
    const mask = read === undefined ? 0n : ones(bits);
    return { value: read ?? 0n, mask, range: null };
  });
  return { ...joinCells(table.columns, cells), action: 'continue', rules: [] };
}

/** Rules that ask for what is read of a frame that is cut: it may be the frame that they are about. */
function rulesAsking(table: TcamTable, { reads, present }: Misreading): readonly string[] {
  const protocol = protocolColumn(table);
  return table.rows.flatMap((row) => {
    if (present === null || row.action !== 'drop') return [];
    const cells = cellsOf(table.columns, row);
    const all = [...reads].every(([at, read]) => accepts(cells[at] as Cell, read));
    const asks = [...reads.keys()].some((at) => {
      const cell = cells[at];
      return at !== protocol && cell !== undefined && (cell.mask !== 0n || cell.range !== null);
    });
    return all && asks ? row.rules : [];
  });
}

/**
 * A table that a device may load which reads what is cut off a header as 0, with rows in front that
 * continue what such headers look like where the table would drop more than the ruleset does; says
 * which rules lose by it. On a device that forwards by itself there is nothing to continue to: an error.
 */
export function guardMisread(
  format: string,
  classifier: Classifier,
  table: TcamTable,
  plan: TablePlan,
  options: LowerOptions,
): { readonly table: TcamTable; readonly noticed: readonly Diagnostic[] } {
  const found = findMisread(classifier, table, plan, options);
  const help = options.final
    ? 'use another format, or compile without --final for a table in front of nftables'
    : 'nftables decides such frames itself';
  const noticed = found.flatMap(({ misreading, row }): Diagnostic[] => {
    const { what } = misreading;
    const at = row === null ? [] : (table.rows[row]?.rules ?? []);
    const rules = new Set(options.final ? at : rulesAsking(table, misreading));
    const message = `${format} reads ${what} of a header that is cut as 0`;
    if (options.final) {
      const [path] = rules;
      const place = path === undefined ? {} : { place: { kind: 'ruleset', path } as const };
      const whole = `${message}, and would decide such frames of ${table.name} otherwise`;
      return [errorAt('tcam/cut-header', whole, { help, ...place })];
    }
    return [...rules].map((path) => ({
      ...errorAt('tcam/cut-header', `${message}: packets with all of these 0 are not dropped`, {
        help,
        place: { kind: 'ruleset', path },
      }),
      severity: 'warning',
    }));
  });
  const guards = options.final ? [] : found.map(({ misreading }) => guardFor(table, misreading));
  return { table: { ...table, rows: [...guards, ...table.rows] }, noticed };
}
