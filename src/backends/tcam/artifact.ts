import type { Classifier } from '../../ir/classifier.ts';
import type { TcamProfile } from '../../profile/schema.ts';
import { errorAt, fail, type Result, succeed } from '../../support/diagnostics.ts';
import type { Artifact } from '../backend.ts';
import { capacityOf, countPriorities, overfull } from './capacity.ts';
import {
  type Compiled,
  compileTables,
  type LowerOptions,
  type Stage,
  type TcamOptions,
} from './compile.ts';
import { type Acl, tablesOf } from './formats/acl.ts';
import { readCsv, writeCsv } from './formats/csv.ts';
import { readJson, writeJson } from './formats/json.ts';
import { readJunos, writeJunos } from './formats/junos.ts';
import { readOpenconfig, writeOpenconfig } from './formats/openconfig.ts';
import { writeOpenflow } from './formats/openflow.ts';
import { readOpenflow } from './formats/openflow-read.ts';
import { readP4Runtime, writeP4Info, writeP4Runtime } from './formats/p4runtime.ts';
import { countRtePriorities, readRteFlow, writeRteFlow } from './formats/rte-flow.ts';
import { readSonic, writeSonic } from './formats/sonic.ts';
import { EOS, NX_OS, readSwitchText, writeSwitchText } from './formats/switch-text.ts';
import { countTcPreferences, readTcFlower, writeTcFlower } from './formats/tc-flower.ts';
import { guardMisread } from './misread.ts';
import type { Action, TableSet } from './table.ts';
import { updateTables, writeUpdate } from './update.ts';

interface Format {
  readonly stage: Stage;
  /** Priorities that rows take, where entries are not ordered within each table by itself. */
  readonly priorities?: (tables: TableSet) => number;
  /** Its devices read what is cut off a header as 0. */
  readonly readsCutAsZero?: true;
  readonly write: (tables: TableSet) => Result<string>;
  /** What stands beside the main file. */
  readonly beside?: { readonly suffix: string; readonly write: (tables: TableSet) => string };
  /** `pass`: what rows do that do not drop; `beside`: what stands beside the main file. */
  readonly read: (
    text: string,
    file: string,
    pass: Action,
    beside: string | null,
  ) => Result<TableSet | readonly Acl[]>;
}

const FORMATS = {
  json: { stage: 'ternary', write: (tables) => succeed(writeJson(tables)), read: readJson },
  csv: { stage: 'ternary', write: (tables) => succeed(writeCsv(tables)), read: readCsv },
  openflow: { stage: 'ternary', write: (tables) => writeOpenflow(tables), read: readOpenflow },
  p4runtime: {
    stage: 'ternary',
    priorities: (tables) => countPriorities(tables, 'apart'),
    write: writeP4Runtime,
    beside: { suffix: '.p4info', write: writeP4Info },
    read: readP4Runtime,
  },
  sonic: { stage: 'ranges', write: writeSonic, read: readSonic },
  openconfig: { stage: 'ranges', write: writeOpenconfig, read: readOpenconfig },
  'tc-flower': {
    stage: 'ranges',
    priorities: countTcPreferences,
    readsCutAsZero: true,
    write: writeTcFlower,
    read: readTcFlower,
  },
  'rte-flow': {
    stage: 'ranges',
    priorities: countRtePriorities,
    write: writeRteFlow,
    read: readRteFlow,
  },
  eos: {
    stage: 'ranges',
    write: (tables) => writeSwitchText(EOS, tables),
    read: (text, file) => readSwitchText(EOS, text, file),
  },
  'nx-os': {
    stage: 'ranges',
    write: (tables) => writeSwitchText(NX_OS, tables),
    read: (text, file) => readSwitchText(NX_OS, text, file),
  },
  junos: { stage: 'ranges', write: writeJunos, read: readJunos },
} as const satisfies Record<string, Format>;

export type TcamFormat = keyof typeof FORMATS;
/** Formats of tables, the default first. */
export const TCAM_FORMATS = Object.keys(FORMATS) as readonly TcamFormat[]; // the keys of a const object
/** What the file is called that stands beside the main one of a format; null when none does. */
export function besideOf(format: TcamFormat): string | null {
  const { beside }: Format = FORMATS[format];
  return beside?.suffix ?? null;
}

/** Whether devices that take the format read what is cut off a header as 0. */
export function readsCutAsZero(format: TcamFormat): boolean {
  const { readsCutAsZero: isZero }: Format = FORMATS[format];
  return isZero === true;
}

/** Tables out of a file; `pass`: what rows do that do not drop, `beside`: the file of `besideOf`. */
export function readTables(
  format: TcamFormat,
  text: string,
  file: string,
  pass: Action,
  beside: string | null = null,
): Result<TableSet> {
  const { read }: Format = FORMATS[format];
  const found = read(text, file, pass, beside);
  if (!found.ok) return found;
  return succeed('tables' in found.value ? found.value : tablesOf(found.value, pass));
}

/** Tables with all that explains them. */
export interface TcamArtifact extends Artifact {
  readonly compiled: Compiled;
}

export function isTcamFormat(name: string): name is TcamFormat {
  return Object.hasOwn(FORMATS, name);
}

/** Rows that come from each rule. */
function rowsByRule({ tables }: TableSet): Artifact['costs'] {
  const costs = new Map<string, { readonly rows: number }>();
  for (const rule of tables.flatMap(({ rows }) => rows.flatMap(({ rules }) => rules))) {
    costs.set(rule, { rows: (costs.get(rule)?.rows ?? 0) + 1 });
  }
  return costs;
}

function changesSince(since: TableSet, tables: TableSet): Result<string> {
  const updates = updateTables(since, tables);
  return updates.ok ? succeed(writeUpdate(updates.value)) : updates;
}

/** Tables as the devices of a format may load them, and what is lost by it. */
function guardTables(
  classifier: Classifier,
  format: TcamFormat,
  options: LowerOptions,
  { origins, tables: { profile } }: Compiled,
): Result<TableSet> {
  const guarded = origins.map(({ table, plan }) =>
    readsCutAsZero(format)
      ? guardMisread(format, classifier, table, plan, options)
      : { table, noticed: [] },
  );
  const noticed = guarded.flatMap((one) => one.noticed);
  const errors = noticed.filter(({ severity }) => severity === 'error');
  if (errors.length > 0) return fail(...errors);
  return succeed({ profile, tables: guarded.map(({ table }) => table) }, noticed);
}

/** The format that a device is usually given its rows in; null where none is known. */
export function usualFormat({ formats }: TcamProfile): TcamFormat | null {
  return formats?.value[0] ?? null;
}

/**
 * Compiles a classifier to tables in a format; `since`: only to what changes; `counted`: rows as another format has them. A device with too few rows for them is an error with
 * the numbers; every table has been proven equal to what it comes from.
 */
export function compileTcam(
  classifier: Classifier,
  format: TcamFormat,
  options: Omit<TcamOptions, 'stage' | 'ranges'>,
  since: TableSet | null = null,
  counted: TcamFormat = format,
): Result<TcamArtifact> {
  const { write, beside }: Format = FORMATS[format];
  const { stage, priorities = countPriorities }: Format = FORMATS[counted];
  const compiled = compileTables(classifier, {
    ...options,
    stage,
    ranges:
      options.profile?.limits.rangeUnits?.notBy?.value.some((one) => one === counted) !== true,
  });
  if (!compiled.ok) return compiled;
  const { directRows } = compiled.value;
  const guarded = guardTables(classifier, counted, options, compiled.value);
  if (!guarded.ok) return guarded;
  const tables = guarded.value;
  const usage = capacityOf(tables, options.profile, priorities);
  const over = overfull(usage);
  if (over.length > 0) {
    return fail(
      ...over.map(({ resource, used, limit }) =>
        errorAt(
          'tcam/too-big',
          `${resource}: ${used} needed, ${options.profile?.name} has ${limit}`,
          {
            help: 'use --effort high, a device with more room, or fewer rules',
          },
        ),
      ),
    );
  }
  const text = since === null ? write(tables) : changesSince(since, tables);
  if (!text.ok) return text;
  return succeed(
    {
      files: [
        { suffix: '', content: Buffer.from(text.value) },
        ...(beside === undefined
          ? []
          : [{ suffix: beside.suffix, content: Buffer.from(beside.write(tables)) }]),
      ],
      usage: [...usage, { resource: 'rows if expanded directly', used: directRows, limit: null }],
      costs: rowsByRule(tables),
      listing: () => writeCsv(tables),
      classifier,
      compiled: { ...compiled.value, tables },
    },
    [...compiled.diagnostics, ...guarded.diagnostics],
  );
}
