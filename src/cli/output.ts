import { randomBytes } from 'node:crypto';
import { open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Diagnostic } from '../support/diagnostics.ts';
import { formatDiagnostic } from '../support/diagnostics.ts';

/** How text may be drawn on a stream. */
export interface Terminal {
  /** Columns; 100 when the stream is no terminal. */
  readonly width: number;
  readonly colour: boolean;
}

/** Width assumed for pipes and files. */
const PIPE_WIDTH = 100;

export function describeTerminal(stream: NodeJS.WriteStream): Terminal {
  const tty = stream.isTTY === true;
  const noColour = (process.env['NO_COLOR'] ?? '') !== '';
  return { width: tty ? stream.columns : PIPE_WIDTH, colour: tty && !noColour };
}

/** SGR parameters, ECMA-48 8.3.117. */
const SGR = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 } as const;
export type Style = keyof typeof SGR;

/** `text` in that style, where the terminal shows colours. */
export function paint(terminal: Terminal, style: Style, text: string): string {
  return terminal.colour ? `\u001b[${SGR[style]}m${text}\u001b[0m` : text;
}

/** Control characters as `\\u001b`, so that a ruleset's comments cannot drive the terminal. */
export function showControls(text: string): string {
  return text.replace(/\p{Cc}/gu, (char) => {
    return `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

/** At most `width` columns; what is cut off ends in `…`. */
export function cutText(text: string, width: number): string {
  const letters = [...text];
  if (letters.length <= width) return text;
  return width < 1 ? '' : `${letters.slice(0, width - 1).join('')}…`;
}

/** Lines of at most `width` columns, broken at blanks; a longer word stays whole. */
export function wrapText(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/** Left-aligned columns two blanks apart; the last one is cut at the terminal's edge. */
export function renderTable(cells: readonly (readonly string[])[], width: number): string {
  const rows = cells.map((row) => row.map(showControls));
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) {
      widths[column] = Math.max(widths[column] ?? 0, [...cell].length);
    }
  }
  return rows
    .map((row) => {
      const padded = row.map((cell, column) => cell.padEnd(widths[column] ?? 0));
      return cutText(padded.join('  ').trimEnd(), width);
    })
    .join('\n');
}

/** Diagnostics go to standard error, one or two lines each. */
export function reportDiagnostics(diagnostics: readonly Diagnostic[]): void {
  const terminal = describeTerminal(process.stderr);
  for (const diagnostic of diagnostics) {
    const text = formatDiagnostic(diagnostic);
    const end = text.indexOf(']') + 1;
    const style = diagnostic.severity === 'error' ? 'red' : 'yellow';
    console.error(`${paint(terminal, style, text.slice(0, end))}${text.slice(end)}`);
  }
}

/**
 * Writes all files or none that is half written: each goes to a temporary file beside its place,
 * and only when all of them are on the disk are they renamed.
 */
export async function writeFiles(
  files: readonly { readonly path: string; readonly content: Uint8Array }[],
): Promise<void> {
  const pending: { readonly path: string; readonly temporary: string }[] = [];
  try {
    for (const { path, content } of files) {
      const name = `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`;
      const temporary = join(dirname(path), name);
      const mode = await stat(path).then(
        (present) => present.mode & 0o777,
        () => 0o666,
      );
      const handle = await open(temporary, 'wx', mode);
      pending.push({ path, temporary });
      try {
        await handle.writeFile(content);
        await handle.sync();
      } finally {
        await handle.close();
      }
    }
    for (const { path, temporary } of pending) await rename(temporary, path);
  } catch (error) {
    for (const { temporary } of pending) await rm(temporary, { force: true });
    throw error;
  }
}
