import fc from 'fast-check';
import { expect, it } from 'vitest';
import { layersOf, mixedPriority, type Sharing } from '../../src/backends/tcam/layers.ts';
import type { Action, TableRow, TcamTable } from '../../src/backends/tcam/table.ts';
import { findMatchField } from '../../src/profile/tcam-schema.ts';

const PORT = findMatchField('th dport');
const PROTOCOL = findMatchField('meta l4proto');
if (PORT === null || PROTOCOL === null) throw new Error('bug: nft has these');
const COLUMNS: TcamTable['columns'] = [
  { field: PROTOCOL, bits: 8, match: 'ternary', protocols: null },
  { field: PORT, bits: 16, match: 'range', protocols: null },
];
const TOP = 7;

/** Three bits of a protocol and ports 0 to 7. */
const row = fc
  .record({
    value: fc.nat(TOP),
    mask: fc.nat(TOP),
    ports: fc.tuple(fc.nat(TOP), fc.nat(TOP)),
    action: fc.constantFrom<Action>('drop', 'continue'),
  })
  .map(({ value, mask, ports, action }): TableRow => {
    const [a, b] = ports;
    const range = { column: 1, lo: Math.min(a, b), hi: Math.max(a, b) };
    const key = BigInt(value & mask) << 16n;
    return { value: key, mask: BigInt(mask) << 16n, ranges: [range], action, rules: [] };
  });

function holds({ value, mask, ranges }: TableRow, protocol: number, port: number): boolean {
  const [range] = ranges;
  const isIn = range === undefined || (range.lo <= port && port <= range.hi);
  return isIn && (((BigInt(protocol) << 16n) ^ value) & mask) === 0n;
}

function keys(): readonly (readonly [number, number])[] {
  const all = Array.from({ length: TOP + 1 }, (_, value) => value);
  return all.flatMap((protocol) => all.map((port) => [protocol, port] as const));
}

const KEYS = keys();

it.each(['agreeing', 'apart'] as const)(
  'rows of one layer may be in any order, and there are as few layers as can be (%s)',
  (sharing: Sharing) => {
    fc.assert(
      fc.property(fc.array(row, { maxLength: 14 }), fc.nat(), (rows, seed) => {
        const layers = layersOf({ columns: COLUMNS, rows }, sharing);
        expect(mixedPriority({ columns: COLUMNS, rows }, layers, sharing)).toBeNull();
        const shuffled = [...rows.keys()].sort(
          (a, b) =>
            (layers[a] ?? 0) - (layers[b] ?? 0) ||
            (((a + 1) * (seed + 7)) % 31) - (((b + 1) * (seed + 7)) % 31),
        );
        for (const [protocol, port] of KEYS) {
          const first = rows.find((one) => holds(one, protocol, port));
          const found = shuffled.find((at) => holds(rows[at] as TableRow, protocol, port));
          const other = found === undefined ? undefined : rows[found];
          expect(other?.action).toBe(first?.action);
          if (sharing === 'apart') expect(other).toBe(first);
        }
        // The longest chain, counted pair by pair.
        const chain = rows.map(() => 1);
        for (const [at, one] of rows.entries()) {
          for (const [before, other] of rows.slice(0, at).entries()) {
            const isBound = sharing === 'apart' || one.action !== other.action;
            const meets = KEYS.some((key) => holds(one, ...key) && holds(other, ...key));
            if (isBound && meets) chain[at] = Math.max(chain[at] ?? 1, (chain[before] ?? 0) + 1);
          }
        }
        expect(Math.max(0, ...layers.map((layer) => layer + 1))).toBe(Math.max(0, ...chain));
      }),
      { numRuns: 150 },
    );
  },
);
