import { randomBytes } from 'node:crypto';
import type { z } from 'zod';
import { parseJson } from './machine.ts';
import { quoteWords } from './shell.ts';
import type { CommandResult, Transport } from './transport.ts';

/** Something that is read on the machine: a piece of a POSIX shell, which changes nothing, and its words. */
export interface Look {
  readonly script: string;
  readonly words: readonly string[];
}

/** What a program prints. */
export function program(...argv: readonly string[]): Look {
  return { script: '"$@"', words: argv };
}

/** The numbers in files of /proc/sys, those that there are; `parseSettings` reads them. */
export function settings(paths: readonly string[]): Look {
  // By one program: a shell cannot read these, since their second byte is not to be had alone.
  const script = `for file; do
  shift; test ! -e "$file" || set -- "$@" "$file"
done
printf '%s\\n' $# "$@"; cat -- "$@"`;
  return { script, words: paths };
}

/** Each file that exists with its number; null where one of them could not be read. */
export function parseSettings({ code, stdout }: CommandResult): ReadonlyMap<string, number> | null {
  const [count = '', ...lines] = stdout.trim().split('\n');
  const found = Number(count);
  if (code !== 0 || lines.length !== 2 * found) return null;
  const values = lines.slice(found);
  if (!values.every((value) => /^\d+$/.test(value))) return null;
  return new Map(values.map((value, at) => [lines[at] ?? '', Number(value)]));
}

/** Names in a directory, a line each; nothing where there is none. */
export function names(directory: string): Look {
  const script = `for file in "$1"/*; do
  test ! -e "$file" || printf '%s\\n' "\${file##*/}"
done`;
  return { script, words: [directory] };
}

/**
 * Reads several things at once, in order, by one script: starting a program takes a machine longer than
 * most of them do. Whatever one prints, it is not taken for another's output.
 */
export async function lookAt<K extends string>(
  transport: Transport,
  looks: Readonly<Record<K, Look>>,
): Promise<Readonly<Record<K, CommandResult>>> {
  const mark = randomBytes(16).toString('hex');
  const asked = Object.entries<Look>(looks);
  const pieces = asked.map(
    ([, { script, words }]) =>
      `set -- ${quoteWords(words)}\n{ ${script}\n} </dev/null\nprintf '\\n%s %s\\n' ${mark} $?; printf '\\n%s' ${mark} >&2\n`,
  );
  const ended = await transport.run(['sh', '-c', `: looks\n${pieces.join('')}`, 'sh']);
  const said = ended.stdout.split(`\n${mark} `);
  const complained = ended.stderr.split(`\n${mark}`);
  const results = asked.map(([name], at): [string, CommandResult] => {
    // Behind each mark stands how the look before it ended.
    const end = /^(\d+)\n/.exec(said[at + 1] ?? '');
    const stderr = complained[at] ?? ended.stderr;
    if (end === null) return [name, { code: ended.code || 1, stdout: '', stderr }];
    const stdout = (said[at] ?? '').replace(/^\d+\n/, '');
    return [name, { code: Number(end[1]), stdout: at === 0 ? (said[0] ?? '') : stdout, stderr }];
  });
  return Object.fromEntries(results) as Record<K, CommandResult>; // one for each of `looks`
}

/** Names in one directory; none where there is no such directory. */
export async function listNames(
  transport: Transport,
  directory: string,
): Promise<readonly string[]> {
  const { found } = await lookAt(transport, { found: names(directory) });
  return found.stdout.split('\n').filter((name) => name !== '');
}

/** Generations that have a record (`N.json`) in a directory, the newest first. */
export async function listGenerations(
  transport: Transport,
  directory: string,
): Promise<readonly number[]> {
  const generations = (await listNames(transport, directory)).flatMap((name) => {
    const [, number] = /^([0-9]{1,9})\.json$/.exec(name) ?? [];
    return number === undefined ? [] : [Number(number)];
  });
  return generations.sort((a, b) => b - a);
}

/** What a look printed as JSON; null where it failed or printed something else. */
export function readJson<T>({ code, stdout }: CommandResult, schema: z.ZodType<T>): T | null {
  return code === 0 ? (schema.safeParse(parseJson(stdout)).data ?? null) : null;
}
