/**
 * Which features of `ethtool -k` are on (text form: its JSON is younger than Debian 11). Lines are
 * `name: on`, `name: off [fixed]`, some indented.
 */
export function parseFeatures(text: string): ReadonlyMap<string, boolean> {
  const lines = text.matchAll(/^\s*([a-z0-9_-]+): (on|off)\b/gm);
  return new Map([...lines].map(([, name = '', value]) => [name, value === 'on'] as const));
}
