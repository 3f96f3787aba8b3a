import { FRAME } from '../../../ir/fields.ts';
import { findMatchField } from '../../../profile/tcam-schema.ts';
import type { Served } from '../table.ts';

/** A field that all frames of a table have one of these values in, by nft's name. */
export interface Only {
  readonly field: string;
  readonly values: readonly number[];
}

/** Which frames a table is for, as files say it. */
export function listOnly({ fixed, untagged, whole }: Served): readonly Only[] {
  return [
    ...(untagged ? [{ field: FRAME.tags.name, values: [0] }] : []),
    ...(whole ? [{ field: FRAME.fragment.name, values: [0] }] : []),
    ...fixed.map(({ field, values }) => ({ field: field.name, values })),
  ];
}

/** The inverse of `listOnly`; fields that nft does not have are left out. */
export function servedOf(only: readonly Only[]): Served {
  const isThere = (name: string): boolean => only.some(({ field }) => field === name);
  const fixed = only.flatMap(({ field: name, values }) => {
    const field = findMatchField(name);
    return field === null ? [] : [{ field, values }];
  });
  return { fixed, untagged: isThere(FRAME.tags.name), whole: isThere(FRAME.fragment.name) };
}

/** `meta protocol 2048; meta l4proto 6|17`; nothing where a table is for every frame. */
export function spellOnly(served: Served): string {
  return listOnly(served)
    .map(({ field, values }) => `${field} ${values.join('|')}`)
    .join('; ');
}

/** The inverse of `spellOnly`; null when it is not understood. */
export function parseOnly(text: string): Served | null {
  const parts = text === '' ? [] : text.split('; ');
  const only = parts.flatMap((part): Only[] => {
    const [, field, values] = /^(.+) (\d{1,5}(?:\|\d{1,5})*)$/.exec(part) ?? [];
    if (field === undefined || values === undefined) return [];
    const isKnown = servedOf([{ field, values: [0] }]);
    if (isKnown.fixed.length === 0 && !isKnown.untagged && !isKnown.whole) return [];
    return [{ field, values: values.split('|').map(Number) }];
  });
  return only.length === parts.length ? servedOf(only) : null;
}
