import { open, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { Ruleset } from '../ir/ruleset.ts';
import { type Diagnostic, errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { readLive } from './read-live.ts';
import type { RunProgram } from './read-process.ts';
import { readTextWithNft, type TextReader } from './read-text.ts';
import { readJsonText } from './ruleset-json.ts';

/** Where a ruleset comes from. */
export type RulesetSource =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'stdin' }
  /** `run` runs programs where the ruleset is; on this machine without it. */
  | { readonly kind: 'live'; readonly run?: RunProgram };

/** Longest file or standard input that is read, in bytes: room for about 200,000 rules as JSON. */
export const MOST_INPUT = 128 * 1024 * 1024;

function fileError(code: string, file: string, message: string, help?: string): Diagnostic {
  const place = { kind: 'file', file, line: null, column: null } as const;
  return errorAt(code, message, help === undefined ? { place } : { place, help });
}

function tooLong(file: string): Diagnostic {
  const limit = MOST_INPUT / 1024 / 1024;
  return fileError('read/too-long', file, `longer than the limit of ${limit} MiB`);
}

function systemError(file: string, error: unknown): Diagnostic {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return fileError('read/missing', file, 'there is no such file');
    case 'EACCES':
    case 'EPERM':
      return fileError('read/no-permission', file, 'the file may not be read');
    case 'EISDIR':
      return fileError('read/directory', file, 'this is a directory, not a ruleset file');
    default:
      throw error;
  }
}

async function collect(
  chunks: AsyncIterable<Buffer | string>,
  file: string,
): Promise<Result<Buffer>> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const chunk of chunks) {
    const part = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
    length += part.length;
    if (length > MOST_INPUT) return fail(tooLong(file));
    parts.push(part);
  }
  return succeed(Buffer.concat(parts));
}

async function readFileBytes(path: string): Promise<Result<Buffer>> {
  try {
    const info = await stat(path);
    if (info.isDirectory()) {
      return fail(fileError('read/directory', path, 'this is a directory, not a ruleset file'));
    }
    if (info.size > MOST_INPUT) return fail(tooLong(path));
    const handle = await open(path, 'r');
    try {
      return await collect(handle.createReadStream({ autoClose: false }), path);
    } finally {
      await handle.close();
    }
  } catch (error) {
    return fail(systemError(path, error));
  }
}

function decode(data: Buffer, file: string): Result<string> {
  if (data.includes(0)) {
    return fail(fileError('read/binary', file, 'this is binary data, not a ruleset'));
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(data);
    if (text.trim() === '') return fail(fileError('read/empty', file, 'the file is empty'));
    return succeed(text);
  } catch {
    return fail(fileError('read/binary', file, 'this is not UTF-8 text'));
  }
}

/** Whether the text is JSON and not nft's own language, which never begins with these. */
function looksLikeJson(text: string): boolean {
  return /^\s*(\[|"|\{)/.test(text);
}

/**
 * Reads a ruleset: libnftables JSON or nft text, told apart by what it begins with, or the live one.
 * Everything a user can get wrong is a diagnostic; only faults of the disk and our own bugs throw.
 */
export async function readRuleset(
  source: RulesetSource,
  readText: TextReader = readTextWithNft,
): Promise<Result<Ruleset>> {
  if (source.kind === 'live') return readLive(source.run);
  const file = source.kind === 'stdin' ? '<stdin>' : source.path;
  const data =
    source.kind === 'stdin' ? await collect(process.stdin, file) : await readFileBytes(file);
  if (!data.ok) return data;
  const text = decode(data.value, file);
  if (!text.ok) return text;
  if (looksLikeJson(text.value)) return readJsonText(text.value, file);
  const directory = source.kind === 'stdin' ? process.cwd() : dirname(resolve(file));
  return readText({ text: text.value, directory, file });
}
