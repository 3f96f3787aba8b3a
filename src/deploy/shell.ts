/** One word of a POSIX shell, whatever is in it. */
export function quoteWord(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

/** A command line of a POSIX shell that runs a program with exactly these arguments. */
export function quoteWords(argv: readonly string[]): string {
  return argv.map(quoteWord).join(' ');
}
