import type { Classifier } from '../../ir/classifier.ts';
import { errorAt, fail, type Result, succeed } from '../../support/diagnostics.ts';
import type { Artifact } from '../backend.ts';
import { capacityOf, overfull } from './capacity.ts';
import { type Compiled, compileTables, type Stage, type TcamOptions } from './compile.ts';
import { writeCsv } from './formats/csv.ts';
import { writeJson } from './formats/json.ts';
import { writeOpenflow } from './formats/openflow.ts';
import type { TableSet } from './table.ts';

interface Format {
  readonly stage: Stage;
  readonly write: (tables: TableSet) => Result<string>;
}

const WRITERS = {
  json: { stage: 'ternary', write: (tables) => succeed(writeJson(tables)) },
  csv: { stage: 'ternary', write: (tables) => succeed(writeCsv(tables)) },
  openflow: { stage: 'ternary', write: (tables) => writeOpenflow(tables) },
} as const satisfies Record<string, Format>;

export type TcamFormat = keyof typeof WRITERS;
/** Formats of tables, the default first. */
export const TCAM_FORMATS = Object.keys(WRITERS) as readonly TcamFormat[]; // the keys of a const object

/** Tables with all that explains them. */
export interface TcamArtifact extends Artifact {
  readonly compiled: Compiled;
}

export function isTcamFormat(name: string): name is TcamFormat {
  return Object.hasOwn(WRITERS, name);
}

/**
 * Compiles a classifier to tables in a format. A device with too few rows for them is an error with
 * the numbers; every table has been proven equal to what it comes from.
 */
export function compileTcam(
  classifier: Classifier,
  format: TcamFormat,
  options: Omit<TcamOptions, 'stage'>,
): Result<TcamArtifact> {
  const { stage, write } = WRITERS[format];
  const compiled = compileTables(classifier, { ...options, stage });
  if (!compiled.ok) return compiled;
  const { tables, directRows } = compiled.value;
  const usage = capacityOf(tables, options.profile);
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
  const text = write(tables);
  if (!text.ok) return text;
  return succeed(
    {
      files: [{ suffix: '', content: Buffer.from(text.value) }],
      usage: [...usage, { resource: 'rows if expanded directly', used: directRows, limit: null }],
      listing: () => writeCsv(tables),
      classifier,
      compiled: compiled.value,
    },
    compiled.diagnostics,
  );
}
