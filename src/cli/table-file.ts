import { readFile } from 'node:fs/promises';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';

/** A file of tables, not looked into yet. */
export interface TableText {
  readonly path: string;
  readonly text: string;
}

export async function readTableText(path: string): Promise<Result<TableText>> {
  try {
    return succeed({ path, text: await readFile(path, 'utf8') });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return fail(errorAt('tcam/unreadable', `cannot read the tables: ${why}`));
  }
}
