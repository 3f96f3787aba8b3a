import { type Result, succeed } from '../support/diagnostics.ts';
import { readTextFile } from './read-file.ts';

/** A file of tables, not looked into yet. */
export interface TableText {
  readonly path: string;
  readonly text: string;
}

export async function readTableText(path: string): Promise<Result<TableText>> {
  const text = await readTextFile(path, 'tcam/unreadable', 'the tables');
  return text.ok ? succeed({ path, text: text.value }) : text;
}
