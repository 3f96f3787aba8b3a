import { type Field, rawField } from '../../ir/fields.ts';
import { findMatchField } from '../../profile/tcam-schema.ts';

const RAW = /^@(ll|nh|th),(\d{1,5}),(\d{1,3})$/;

/** The field that a table file names: as nft spells it, `@nh,96,32` included; null when there is none. */
export function parseField(name: string): Field | null {
  const raw = RAW.exec(name);
  if (raw === null) return findMatchField(name);
  const [, base, offset, width] = raw;
  if (base !== 'll' && base !== 'nh' && base !== 'th') return null;
  return rawField(base, Number(offset), Number(width));
}
