/** Whether a text matches one pattern of ssh_config(5): `*` any text, `?` any one character. */
function matchesPattern(text: string, pattern: string): boolean {
  const escaped = pattern.replace(/[.+^${}()|[\]\\]/g, '\\$&');
  const regex = escaped.replaceAll('*', '.*').replaceAll('?', '.');
  return new RegExp(`^${regex}$`, 's').test(text);
}

/** Whether a list of patterns matches: one does, and none of those negated by `!` does. */
export function matchesAny(text: string, patterns: readonly string[]): boolean {
  const hits = patterns.filter((pattern) => matchesPattern(text, pattern.replace(/^!/, '')));
  return hits.length > 0 && !hits.some((pattern) => pattern.startsWith('!'));
}
