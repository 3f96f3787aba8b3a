import { z } from 'zod';
import { type Field, findField, META } from '../ir/fields.ts';
import { quantity, source, sourced } from './quantity.ts';

/** The widest key there is: struct mlx5_ifc_fte_match_param_bits, include/linux/mlx5/mlx5_ifc.h. */
const MOST_KEY_BITS = 4096;
/** IPv6 addresses: no field is wider. */
const MOST_FIELD_BITS = 128;
/** EtherTypes and port numbers are 16 bits: the widest value that selects a key set. */
const MOST_SELECTOR = 0xffff;

const META_BY_NAME: ReadonlyMap<string, Field> = new Map(
  Object.values(META).map((field) => [field.name, field]),
);

/** The field nft spells `ip saddr` or `meta l4proto`; null when nft has none of that name. */
export function findMatchField(name: string): Field | null {
  const blank = name.indexOf(' ');
  return META_BY_NAME.get(name) ?? findField(name.slice(0, blank), name.slice(blank + 1));
}

const fieldName = z
  .string()
  .refine((name) => findMatchField(name) !== null, 'not a field of nft (as `ip saddr`, `th dport`)')
  .describe('As nft spells it: `ip saddr`, `th dport`, `meta l4proto`.');

const keyField = z.strictObject({
  field: fieldName,
  /** Bits of it the key has, fewer than nft's where the device has a part only (flags). */
  bits: z
    .int()
    .min(1, 'must be at least 1')
    .max(MOST_FIELD_BITS, `impossible: no field is wider than ${MOST_FIELD_BITS}`),
  /** How it is compared; `range`: while there are range units, and as `ternary` beyond. */
  match: z.enum(['exact', 'prefix', 'ternary', 'range']),
});

/** A key set serves only packets with one of these values; rows need no key bits for it. */
const fixedField = z.strictObject({
  field: fieldName,
  values: z.array(z.int().min(0).max(MOST_SELECTOR)).min(1),
});

const keySet = z.strictObject({
  name: z.string().min(1),
  key: z.array(keyField).min(1),
  fixed: z.array(fixedField).optional(),
  /** The whole key as the device has it, with what no rule of nft names. */
  width: quantity('bits', MOST_KEY_BITS, 'no known device has a wider key').optional(),
  /** Rows of the device that one row with this key takes; absent: one. */
  takes: quantity('rows').optional(),
  /** Rows with this key, when there is no other; absent when only the total counts. */
  rows: quantity('rows').optional(),
  /** Where the key's composition comes from. */
  source,
});

/** What carries rows to the device, as `compile --format` calls it. */
const FORMATS = [
  'openflow',
  'sonic',
  'p4runtime',
  'openconfig',
  'tc-flower',
  'rte-flow',
  'eos',
  'nx-os',
  'junos',
] as const;

const rangeUnits = z.strictObject({
  count: quantity('ranges'),
  /** `device`: so many different ranges in all rows together; `row`: so many in each row. */
  scope: sourced(z.enum(['device', 'row'])),
  /** Whether one row may have a range of source ports and one of destination ports. */
  bothInOneRow: sourced(z.boolean()),
  /** Formats whose driver takes no ranges, so that they are expanded there. */
  notBy: sourced(z.array(z.enum(FORMATS))).optional(),
});

/** Rows come in groups of equal size. */
const groups = z.strictObject({
  count: quantity('groups'),
  rows: quantity('rows'),
  /** All rows of a group have the same key set. */
  oneKeySetEach: sourced(z.boolean()),
});

/** Everything absent is not known to be limited. */
const limits = z.strictObject({
  /** Of the narrowest kind; `takes` of a key set says how many of these its rows need. */
  rows: quantity('rows').optional(),
  keyWidth: quantity('bits', MOST_KEY_BITS, 'no known device has a wider key').optional(),
  groups: groups.optional(),
  /** Absent where ranges have to be expanded into rows. */
  rangeUnits: rangeUnits.optional(),
  /** Different priorities a row can have; absent where rows are ordered by their place. */
  priorities: quantity('priorities').optional(),
  /** Different masks in one table; rows with more masks need another table or slower memory. */
  masks: quantity('masks').optional(),
  /** Rows the system has taken before the first one of ours. */
  defaultRows: quantity('rows').optional(),
  /** `doubles-rows`: old and new rows are there together while they change, so half fits. */
  atomicUpdate: sourced(z.enum(['in-place', 'doubles-rows'])).optional(),
  /** Absent where it is not known how many rows can count. */
  counters: quantity('counters').optional(),
});

/** The parts only a TCAM profile has. */
export const tcamShape = {
  keySets: z
    .array(keySet)
    .min(1)
    .refine(
      (sets) => new Set(sets.map(({ name }) => name)).size === sets.length,
      'a key set is listed twice',
    ),
  limits,
  formats: sourced(z.array(z.enum(FORMATS))).optional(),
};

const tcamParts = z.object(tcamShape);
type TcamParts = z.output<typeof tcamParts>;
export type KeySet = TcamParts['keySets'][number];

type Complain = (path: readonly (string | number)[], message: string) => void;

function checkKeySet(set: KeySet, limits: TcamParts['limits'], complain: Complain): void {
  for (const [index, { field, bits, match }] of set.key.entries()) {
    const width = findMatchField(field)?.width;
    if (width !== undefined && bits > width) {
      complain(['key', index, 'bits'], `impossible: ${field} has ${width} bits`);
    }
    if (match === 'range' && limits.rangeUnits === undefined) {
      complain(['key', index, 'match'], 'compared as a range, but limits.rangeUnits is missing');
    }
  }
  const bits = set.key.reduce((sum, field) => sum + field.bits, 0);
  const [width, named] =
    set.width === undefined
      ? [limits.keyWidth?.value, 'keyWidth']
      : [set.width.value, 'its own width'];
  if (width !== undefined && bits > width) {
    complain(['key'], `impossible: this key is ${bits} bits, ${named} allows ${width}`);
  }
  const most = limits.keyWidth?.value;
  if (most !== undefined && set.width !== undefined && set.width.value > most) {
    complain(['width', 'value'], `impossible: keyWidth allows ${most} bits`);
  }
  const needed = (set.rows?.value ?? 1) * (set.takes?.value ?? 1);
  if (limits.rows !== undefined && needed > limits.rows.value) {
    const message = `impossible: they take ${needed} rows, the device has ${limits.rows.value}`;
    complain([set.rows === undefined ? 'takes' : 'rows', 'value'], message);
  }
}

/** Complains about what is contradictory in a profile whose parts are all good. */
export function checkTcam({ keySets, limits }: TcamParts, complain: Complain): void {
  for (const [index, set] of keySets.entries()) {
    checkKeySet(set, limits, (path, message) => complain(['keySets', index, ...path], message));
  }
  const { rows, defaultRows, groups } = limits;
  if (rows === undefined) return;
  if (defaultRows !== undefined && defaultRows.value >= rows.value) {
    const message = `impossible: the device has only ${rows.value} rows`;
    complain(['limits', 'defaultRows', 'value'], message);
  }
  if (groups !== undefined && groups.count.value * groups.rows.value !== rows.value) {
    const product = groups.count.value * groups.rows.value;
    const message = `impossible: all groups have ${product} rows, the device ${rows.value}`;
    complain(['limits', 'groups', 'rows', 'value'], message);
  }
}
