import fc from 'fast-check';
import { expect, it } from 'vitest';
import { choose } from '../../src/backends/cbpf/choose.ts';
import {
  type Code,
  type CodeTable,
  createCodeTable,
  nodesBelow,
  run,
  test,
} from '../../src/backends/cbpf/code.ts';
import { combineLoads } from '../../src/backends/cbpf/combine-loads.ts';
import type { StraightInsn } from '../../src/backends/cbpf/insn.ts';
import { loadProgram } from '../../src/backends/cbpf/interpret.ts';
import { keepValues } from '../../src/backends/cbpf/keep-values.ts';
import type { Meaning } from '../../src/backends/cbpf/meaning.ts';
import { orderCode } from '../../src/backends/cbpf/order.ts';
import type { Piece } from '../../src/backends/cbpf/pieces.ts';
import { threadCode } from '../../src/backends/cbpf/thread-code.ts';
import { validate } from '../../src/backends/cbpf/validate.ts';
import { createRandom, type Random } from '../support/random.ts';

const SHORTEST = 4;
const MEANING: Meaning = {
  dialect: 'portable',
  linkType: 'EN10MB',
  frames: 'any',
  failedLoad: 'continue',
  ingress: { reads: true, transport: true },
  indexIp6: false,
  leaf: 8,
};

/** Loads close to each other, so that some can be made at once and some are made again. */
function makeLoad(random: Random): StraightInsn[] {
  const size = random.pick([1, 1, 2, 2, 4] as const);
  const k = random.below(8);
  const load = random.chance(0.5)
    ? [{ kind: 'ldx_msh', k: 0 } as const, { kind: 'ld_ind', size, k } as const]
    : [{ kind: 'ld_abs', size, k } as const];
  const mask = random.chance(0.3)
    ? [{ kind: 'alu', op: 'and', src: 1 + random.below(7) } as const]
    : [];
  return [...load, ...mask];
}

/** A choice by some small values, each leading somewhere else. */
function makeChoice(table: CodeTable, random: Random, pick: () => Code, other: Code): Code {
  const op = random.pick(['jeq', 'jeq', 'jeq', 'jset', 'jgt'] as const);
  const count = op === 'jeq' ? 1 + random.below(9) : 1;
  let choice = other;
  for (let value = count; value > 0; value -= 1) {
    choice = test(table, op, value, pick(), choice, null);
  }
  return choice;
}

/** Choices that lead to others made before; many go on with choices by one value, or fail alike. */
function makeCode(table: CodeTable, random: Random): Code {
  const made: Code[] = [table.pass, table.pass, table.drop];
  for (let left = 5; left >= 0; left -= 1) {
    const other = random.chance(0.6) ? table.pass : random.pick(made);
    const second = makeLoad(random);
    const pick =
      left > 0 && random.chance(0.5)
        ? (): Code => random.pick(made)
        : (): Code =>
            run(
              table,
              second,
              makeChoice(table, random, () => random.pick(made), other),
              null,
            );
    made.push(run(table, makeLoad(random), makeChoice(table, random, pick, other), null));
  }
  return made.at(-1) ?? table.pass;
}

/** Short ones too, with bytes that are often compared with. */
function makePackets(random: Random): readonly Uint8Array[] {
  return Array.from({ length: 60 }, () => {
    const bytes = Array.from({ length: SHORTEST + random.below(20) }, () =>
      random.chance(0.4) ? 0 : random.below(10),
    );
    return Uint8Array.from(bytes);
  });
}

const PASSES: readonly (readonly [string, (code: Code, meaning: Meaning) => Code])[] = [
  ['threading', (code) => threadCode(code, SHORTEST)],
  ['combined loads', (code, meaning) => combineLoads(code, meaning, SHORTEST)],
  ['kept values', (code, meaning) => keepValues(code, meaning, SHORTEST)],
];

it.each(PASSES)('%s keep what is dropped, and nothing grows', (_, pass) => {
  let shortened = 0;
  fc.assert(
    fc.property(fc.nat(), fc.boolean(), (seed, rejects) => {
      const random = createRandom(seed);
      const code = threadCode(makeCode(createCodeTable(), random), SHORTEST);
      const after = pass(code, { ...MEANING, failedLoad: rejects ? 'reject' : 'continue' });
      const sizes = [code, after].map((root) => nodesBelow(root).length);
      expect(sizes[1]).toBeLessThanOrEqual(sizes[0] ?? 0);
      if (after !== code && sizes[1] !== sizes[0]) shortened += 1;
      const returns = rejects ? { drop: 0, continue: 1 } : { drop: 1, continue: 0 };
      const programs = [code, after].map((root) =>
        orderCode(root, returns).map(({ insn }) => insn),
      );
      expect(programs.map((insns) => validate(insns))).toEqual([null, null]);
      const [before, then] = programs.map(loadProgram);
      for (const packet of makePackets(random)) {
        expect(then?.(packet).value).toBe(before?.(packet).value);
      }
    }),
    { numRuns: 1000 },
  );
  // Threaded code is as short as threading makes it.
  if (pass !== PASSES[0]?.[1]) expect(shortened).toBeGreaterThan(20);
});

/** Pieces with values close together, of three places. */
const pieces = fc
  .uniqueArray(
    fc.oneof(fc.nat(40), fc.nat(40), fc.integer({ min: 1000, max: 1050 }), fc.nat(0xffff)),
    {
      maxLength: 40,
    },
  )
  .chain((edges) =>
    fc.tuple(
      fc.constant([...new Set([0, ...edges])].sort((a, b) => a - b)),
      fc.array(fc.constantFrom('drop', 'pass', 'pass', 'match'), { minLength: 41, maxLength: 41 }),
    ),
  );

it('a choice leads every value where its piece does', () => {
  fc.assert(
    fc.property(pieces, fc.integer({ min: 0, max: 20 }), ([edges, places], leaf) => {
      const table = createCodeTable();
      const wanted: Piece[] = edges.map((from, at) => ({
        from,
        to: table[places[at] as 'drop' | 'pass' | 'match'],
        rule: null,
      }));
      const choice = choose(table, wanted, { top: 0xffff, leaf });
      const code = run(table, [{ kind: 'ld_abs', size: 2, k: 0 }], choice, null);
      const insns = orderCode(code, { drop: 1, continue: 2, match: 3 }).map(({ insn }) => insn);
      const machine = loadProgram(insns);
      const asked = edges.flatMap((edge) => [
        Math.max(0, edge - 1),
        edge,
        Math.min(0xffff, edge + 1),
      ]);
      for (const value of [...asked, 0xffff]) {
        const { to } = wanted.findLast(({ from }) => from <= value) ?? {};
        const packet = Uint8Array.of(value >> 8, value & 0xff);
        const expected = to === table.drop ? 1 : to === table.pass ? 2 : 3;
        expect(machine(packet).value).toBe(expected);
      }
    }),
    { numRuns: 1500 },
  );
});

it('asks for many values of a word by their bits', () => {
  const table = createCodeTable();
  const values = [0, 3, 5, 8, 11, 13, 15, 17, 30];
  const wanted: Piece[] = values.flatMap((value) => [
    { from: value, to: table.drop, rule: null },
    { from: value + 1, to: table.pass, rule: null },
  ]);
  const choice = choose(table, wanted, { top: 0xff, leaf: 8 });
  expect(nodesBelow(choice).length).toBe(7);
});
