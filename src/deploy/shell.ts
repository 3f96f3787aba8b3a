/** One word of a POSIX shell, whatever is in it. */
export function quoteWord(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

/** A command line of a POSIX shell that runs a program with exactly these arguments. */
export function quoteWords(argv: readonly string[]): string {
  return argv.map(quoteWord).join(' ');
}

/** What `printf %b` of every shell makes these bytes of. */
export function printBytes(bytes: Uint8Array): string {
  return bytes.reduce((text, byte) => `${text}\\0${byte.toString(8).padStart(3, '0')}`, '');
}
