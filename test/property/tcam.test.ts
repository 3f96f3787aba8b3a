import fc from 'fast-check';
import { expect, it } from 'vitest';
import { compileTables, isTcamProfile, type TcamOptions } from '../../src/backends/tcam/compile.ts';
import { interpretTables, keyOf } from '../../src/backends/tcam/interpret.ts';
import { EFFORTS } from '../../src/backends/tcam/minimise.ts';
import type { Classifier } from '../../src/ir/classifier.ts';
import { prepare } from '../../src/ir/evaluate.ts';
import { flatten, PLAIN } from '../../src/ir/flatten.ts';
import { type Packet, parsePacket } from '../../src/ir/packet.ts';
import { loadProfile } from '../../src/profile/load.ts';
import { toHex } from '../../src/support/bits.ts';
import { labFacts, unwrap } from '../support/pipeline.ts';
import { makeFrames } from '../support/random-frames.ts';
import { ARBITRARY_POOL, rulesets } from '../support/ruleset-arbitrary.ts';

const FACTS = labFacts('host');
const FRAMES = makeFrames(23, 400, ARBITRARY_POOL).filter(({ length }) => length >= 14);
const PACKETS = FRAMES.map(parsePacket);

const BASE: TcamOptions = {
  profile: null,
  effort: 'normal',
  stage: 'ternary',
  final: false,
  mayMiscount: true,
  rowLimit: 60,
};

const options = fc
  .tuple(
    fc.constantFrom(...EFFORTS),
    fc.constantFrom('ternary' as const, 'ranges' as const),
    fc.boolean(),
  )
  .map(([effort, stage, mayMiscount]): TcamOptions => ({ ...BASE, effort, stage, mayMiscount }));

/** What counts for whoever gives exact counters up. */
function withoutCounters(classifier: Classifier): Classifier {
  return { ...classifier, entries: classifier.entries.map((entry) => ({ ...entry, counts: [] })) };
}

it('drops only what the reference drops', () => {
  fc.assert(
    fc.property(rulesets, options, (ruleset, chosen) => {
      const { classifier } = flatten(ruleset, FACTS);
      const { tables } = unwrap(compileTables(classifier, chosen));
      const meaning = chosen.mayMiscount ? withoutCounters(classifier) : classifier;
      const reference = prepare(meaning, { mode: 'kernel', mac: FACTS.mac });
      for (const [index, packet] of PACKETS.entries()) {
        if (interpretTables(tables, packet).action !== 'drop') continue;
        const { verdict } = reference(packet);
        expect(['drop', 'lost'], toHex(FRAMES[index] ?? new Uint8Array(0))).toContain(verdict);
      }
    }),
    { numRuns: 40 },
  );
}, 120_000);

/** Whether the key's fields are all there and nothing about the frame is left to the kernel. */
function isPlain({ odd, tags, fragment, ingress }: Packet): boolean {
  return odd === null && tags === 0 && fragment === 'whole' && ingress.l4proto === 6;
}

it('drops all that the same fields decide, of whole TCP packets', () => {
  const plain = PACKETS.filter(isPlain);
  let drops = 0;
  fc.assert(
    fc.property(rulesets, (ruleset) => {
      const { classifier } = flatten(ruleset, FACTS);
      const compiled = compileTables(classifier, BASE);
      const { tables, origins } = unwrap(compiled);
      const [origin] = origins;
      const served = tables.tables[0];
      // A table that had to be cut continues more.
      fc.pre(compiled.diagnostics.length === 0 && origin !== undefined && served !== undefined);
      if (origin === undefined || served === undefined) return;
      fc.pre(served.name === 'ipv4-tcp' || served.name === 'ipv4');
      const tier = prepare(origin.specialised.classifier, { mode: 'tier', mac: FACTS.mac });
      const { guards } = origin.plan;
      for (const packet of plain) {
        if (keyOf(served, packet) === null || guards?.values.includes(6) === true) continue;
        const wanted = tier(packet).verdict === 'drop';
        const { action } = interpretTables(tables, packet);
        expect(action === 'drop', toHex(packet.frame)).toBe(wanted);
        if (wanted) drops += 1;
      }
    }),
    { numRuns: 15 },
  );
  expect(drops).toBeGreaterThan(0);
}, 120_000);

it('lets pass and drops only what the reference does, and traps the rest', async () => {
  const profile = unwrap(await loadProfile('openvswitch'));
  if (!isTcamProfile(profile)) throw new Error('bug: openvswitch is no TCAM profile');
  const seen = { drop: 0, permit: 0, trap: 0, continue: 0 };
  fc.assert(
    fc.property(rulesets, (ruleset) => {
      const { classifier } = flatten(ruleset, FACTS, { ...PLAIN, forwards: true });
      const compiled = compileTables(classifier, { ...BASE, profile, final: true, rowLimit: 400 });
      fc.pre(compiled.ok);
      const { tables } = unwrap(compiled);
      const reference = prepare(classifier, { mode: 'kernel', mac: FACTS.mac });
      for (const [index, packet] of PACKETS.entries()) {
        const { action } = interpretTables(tables, packet);
        seen[action] += 1;
        const { verdict, reason } = reference(packet);
        const hex = toHex(FRAMES[index] ?? new Uint8Array(0));
        // What IP hooks do not see is for the chains at layer 3 neither way.
        if (reason?.code === 'packet/no-l3') continue;
        if (action === 'permit') expect(verdict, hex).toBe('accept');
        if (action === 'drop') expect(verdict, hex).toBe('drop');
      }
    }),
    { numRuns: 25 },
  );
  for (const action of ['drop', 'permit', 'trap'] as const) expect(seen[action]).toBeGreaterThan(0);
}, 120_000);
