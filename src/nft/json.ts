/** A JSON object whose shape is not known yet. */
export type Json = Readonly<Record<string, unknown>>;

/** Whether `value` is a JSON object (not an array, not null). */
export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The only key of an expression such as `{"payload": {...}}` with what it holds, or null. */
export function soleEntry(value: unknown): readonly [key: string, body: unknown] | null {
  if (!isObject(value)) return null;
  let found: string | null = null;
  for (const key in value) {
    if (found !== null) return null;
    found = key;
  }
  return found === null ? null : [found, value[found]];
}

/** The member `key` of an object, or undefined for anything else. */
export function member(value: unknown, key: string): unknown {
  return isObject(value) ? value[key] : undefined;
}

/** The member `key` where it is a string, else null. */
export function textMember(value: unknown, key: string): string | null {
  const found = member(value, key);
  return typeof found === 'string' ? found : null;
}

/** The member `key` where it is a finite number, else null. */
export function numberMember(value: unknown, key: string): number | null {
  const found = member(value, key);
  return typeof found === 'number' && Number.isFinite(found) ? found : null;
}
