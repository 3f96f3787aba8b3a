import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Classifier, Entry } from '../../src/ir/classifier.ts';
import { prepare } from '../../src/ir/evaluate.ts';
import { type Field, findField, META } from '../../src/ir/fields.ts';
import { mergeAlternatives } from '../../src/ir/merge-alternatives.ts';
import { equals, within } from '../../src/ir/operand.ts';
import { parsePacket } from '../../src/ir/packet.ts';
import type { Test } from '../../src/ir/ruleset.ts';
import { ethernet, ipv4, tcp, udp } from '../support/frames.ts';

function field(protocol: string, name: string): Field {
  const found = findField(protocol, name);
  if (found === null) throw new Error(`bug: no field ${protocol} ${name}`);
  return found;
}

const PORT = field('th', 'dport');
const TTL = field('ip', 'ttl');

const test: fc.Arbitrary<Test> = fc.oneof(
  fc.integer({ min: 1, max: 6 }).map((value) => equals(PORT, BigInt(value))),
  fc.integer({ min: 1, max: 6 }).map((value) => within(PORT, BigInt(value), BigInt(value + 2))),
  fc.integer({ min: 1, max: 4 }).map((value) => equals(TTL, BigInt(value))),
  fc.constantFrom(6n, 17n).map((value) => equals(META.l4proto, value)),
);

/** Mostly one of many alternatives that drop. */
function anyEntry() {
  return fc
    .tuple(
      fc.array(test, { minLength: 1, maxLength: 2 }),
      fc.constantFrom(...Array.from({ length: 12 }, () => 'drop' as const), 'accept', 'skip'),
      fc.boolean(),
    )
    .map(([tests, kind, counts]) => ({ tests, kind, counts: counts && kind === 'skip' }));
}

const classifier: fc.Arbitrary<Classifier> = fc
  .array(anyEntry(), { minLength: 12, maxLength: 24 })
  .map((list) => {
    const entries = list.map(({ tests, kind, counts }, index): Entry => {
      const end = { kind: 'accept' } as const;
      const to = (at: number) =>
        at < list.length ? ({ kind: 'entry', index: at, uncertain: false } as const) : end;
      const then = kind === 'skip' ? to(index + 2) : ({ kind } as const);
      return {
        ...{ rule: null, label: `${index}`, view: 'ingress', tests, effects: [] },
        ...{ counts: counts ? [0] : [], then: then as Entry['then'], otherwise: to(index + 1) },
      };
    });
    const counter = {
      family: 'netdev',
      table: 't',
      rule: null,
      name: 'n',
      view: 'ingress',
    } as const;
    return { device: 'eth0', entries, stages: [], counters: [counter] };
  });

const PACKETS = [1, 2, 3, 4, 5, 6, 7, 8, 9].flatMap((dport) =>
  [1, 2, 3, 4, 5].flatMap((ttl) =>
    [tcp({ dport }), udp({ dport })].map((payload) =>
      parsePacket(ethernet({}, ipv4({ ttl }, payload))),
    ),
  ),
);

it('changes no verdict and no count', () => {
  let merged = 0;
  fc.assert(
    fc.property(classifier, (whole) => {
      const { classifier: fewer } = mergeAlternatives(whole);
      if (fewer.entries.some(({ tests }) => tests.some(({ kind }) => kind === 'lookup')))
        merged += 1;
      const [before, after] = [whole, fewer].map((each) =>
        prepare(each, { mode: 'tier', mac: null }),
      );
      for (const packet of PACKETS) {
        const wanted = before?.(packet);
        const got = after?.(packet);
        expect([got?.verdict, got?.counts]).toEqual([wanted?.verdict, wanted?.counts]);
      }
    }),
    { numRuns: 200 },
  );
  expect(merged).toBeGreaterThan(20);
});
