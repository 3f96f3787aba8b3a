import { quoteWord, quoteWords } from '../shell.ts';

/** Bytes of input that a shell writes itself; more are sent on a channel of their own. */
export const MOST_WRITTEN = 1 << 16;

/** Bytes in one `printf`: where that is a program, an argument has at most 128 KB (MAX_ARG_STRLEN, Linux). */
const CHUNK = 1 << 13;

const PLAIN = /[ !"#$&()*+,\-./0-9:;<=>?@A-Z[\]^_`a-z{|}~\n]/;

/** One word for `printf %b`, which makes these bytes of it (POSIX, printf: `\0ddd`). */
function escapeBytes(content: Uint8Array): string {
  const parts = Array.from(content, (byte) => {
    const char = String.fromCharCode(byte);
    return PLAIN.test(char) ? char : `\\0${byte.toString(8).padStart(3, '0')}`;
  });
  return quoteWord(parts.join(''));
}

/** A command of a POSIX shell that writes these bytes, and starts no program where `printf` is its own. */
export function writeBytes(content: Uint8Array): string {
  const commands = ["printf ''"];
  for (let at = 0; at < content.length; at += CHUNK) {
    commands.push(`printf %b ${escapeBytes(content.subarray(at, at + CHUNK))}`);
  }
  return commands.join(' && ');
}

/**
 * A command of a POSIX shell that does as `argv` would, in a process of its own and with that input. A
 * script (`sh -c SCRIPT sh WORDS...`) is run by a copy of the shell, since starting a program takes
 * longer than most scripts do; its `$$` is the shell's.
 */
export function formatTask(argv: readonly string[], input = ''): string {
  const [program, option, script, , ...words] = argv;
  const isScript = program === 'sh' && option === '-c' && script !== undefined;
  const body = isScript ? `set -- ${quoteWords(words)}\n${script}\n` : `exec ${quoteWords(argv)}`;
  if (input === '') return `(${body}) </dev/null`;
  return `{ ${writeBytes(Buffer.from(input))}; } | (${body})`;
}
