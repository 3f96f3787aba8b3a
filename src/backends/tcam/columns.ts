import { type Base, type Field, fieldKey, META, PROTOCOLS, rawField } from '../../ir/fields.ts';
import { bits } from '../../support/bits.ts';
import type { Column } from './layout.ts';
import type { Version } from './rewrite-frame.ts';

const BASES: readonly Base[] = ['ll', 'nh', 'meta', 'th'];
const HEADERS: Readonly<Record<Version, readonly string[]>> = {
  ip: ['ether', 'vlan', 'ip'],
  ip6: ['ether', 'vlan', 'ip6'],
  other: ['ether', 'vlan', 'arp'],
};

/** nft's name for a stretch of bits, or its raw spelling. */
function nameStretch(
  base: Exclude<Base, 'meta'>,
  from: number,
  to: number,
  headers: readonly string[],
): Field {
  for (const { name, base: own, fields } of PROTOCOLS) {
    if (own !== base || !headers.includes(name)) continue;
    for (const [field, [offset, width]] of Object.entries(fields)) {
      if (offset === from && offset + width === to) {
        return { name: `${name} ${field}`, base, offset: bits(offset), width: bits(width) };
      }
    }
  }
  return rawField(base, from, to - from);
}

/**
 * Columns for the fields that rules look at: every bit once. Fields that overlap are cut where the
 * others begin and end. `transport` names the header behind IP, `th` where it may be any.
 */
export function columnsFor(
  fields: readonly Field[],
  version: Version,
  transport: string,
): readonly Column[] {
  const headers = [...HEADERS[version], transport, 'th'];
  const columns: Column[] = [];
  const push = (field: Field): void => {
    columns.push({ field, bits: field.width, match: 'ternary', protocols: null });
  };
  for (const base of BASES) {
    const own = fields.filter((field) => field.base === base);
    if (base === 'meta') {
      const keys = new Set(own.map(fieldKey));
      for (const field of Object.values(META)) if (keys.has(fieldKey(field))) push(field);
      continue;
    }
    const cuts = [...new Set(own.flatMap(({ offset, width }) => [offset, offset + width]))];
    cuts.sort((a, b) => a - b);
    for (const [index, from] of cuts.entries()) {
      const to = cuts[index + 1];
      if (to === undefined) break;
      const isUsed = own.some(({ offset, width }) => offset <= from && to <= offset + width);
      if (isUsed) push(nameStretch(base, from, to, headers));
    }
  }
  return columns;
}
