import fc from 'fast-check';
import { ANCILLARY, ANCILLARY_LOADS, type Insn } from '../../src/backends/cbpf/insn.ts';

const u32 = fc.oneof(fc.nat({ max: 64 }), fc.integer({ min: 0, max: 0xffff_ffff }));
const size = fc.constantFrom(1 as const, 2 as const, 4 as const);
const source = fc.oneof(u32, fc.constant('x' as const));

/** Straight instructions; what the kernel would refuse by itself (bad words, shifts) is left out. */
const straight: fc.Arbitrary<Insn> = fc.oneof(
  fc.record({ kind: fc.constant('ld_abs' as const), size, k: fc.nat({ max: 70 }) }),
  fc.record({ kind: fc.constant('ld_ind' as const), size, k: fc.nat({ max: 40 }) }),
  fc
    .constantFrom(...Object.values(ANCILLARY_LOADS))
    .map((offset): Insn => ({ kind: 'ld_abs', size: 4, k: ANCILLARY + offset })),
  fc.record({ kind: fc.constantFrom('ld_imm' as const, 'ldx_imm' as const), k: u32 }),
  fc.record({ kind: fc.constantFrom('ld_len' as const, 'ldx_len' as const) }),
  fc.record({ kind: fc.constantFrom('st' as const, 'stx' as const), k: fc.nat({ max: 15 }) }),
  fc.record({ kind: fc.constant('ldx_msh' as const), k: fc.nat({ max: 70 }) }),
  fc.record({ kind: fc.constantFrom('neg' as const, 'tax' as const, 'txa' as const) }),
  fc.record({
    kind: fc.constant('alu' as const),
    op: fc.constantFrom(...(['add', 'sub', 'mul', 'or', 'and', 'xor'] as const)),
    src: source,
  }),
  fc.record({
    kind: fc.constant('alu' as const),
    op: fc.constantFrom('div' as const, 'mod' as const),
    src: fc.oneof(fc.integer({ min: 1, max: 0xffff_ffff }), fc.constant('x' as const)),
  }),
  fc.record({
    kind: fc.constant('alu' as const),
    op: fc.constantFrom('lsh' as const, 'rsh' as const),
    src: fc.nat({ max: 31 }),
  }),
);

const returns: fc.Arbitrary<Insn> = fc.record({
  kind: fc.constant('ret' as const),
  value: fc.oneof(u32, fc.constant('a' as const)),
});

const jumps: fc.Arbitrary<Insn> = fc.oneof(
  fc.record({
    kind: fc.constant('jump' as const),
    op: fc.constantFrom('jeq' as const, 'jgt' as const, 'jge' as const, 'jset' as const),
    src: source,
    jt: fc.nat({ max: 255 }),
    jf: fc.nat({ max: 255 }),
  }),
  fc.record({ kind: fc.constant('ja' as const), k: fc.nat({ max: 300 }) }),
);

/** Instructions of every kind, one by one; not a program. */
export const insns: fc.Arbitrary<Insn> = fc.oneof(
  { arbitrary: straight, weight: 4 },
  { arbitrary: jumps, weight: 2 },
  returns,
  fc.record({
    kind: fc.constantFrom('ld_mem' as const, 'ldx_mem' as const),
    k: fc.nat({ max: 15 }),
  }),
);

/** Jumps brought inside the program, which ends with a return. */
function close(body: readonly Insn[], last: Insn): Insn[] {
  const within = (at: number, skipped: number): number => skipped % (body.length - at);
  const closed = body.map((insn, at): Insn => {
    if (insn.kind === 'ja') return { ...insn, k: within(at, insn.k) };
    if (insn.kind !== 'jump') return insn;
    return { ...insn, jt: within(at, insn.jt), jf: within(at, insn.jf) };
  });
  return [...closed, last];
}

/** Programs that the kernel takes. */
export const programs: fc.Arbitrary<Insn[]> = fc
  .tuple(
    fc.array(
      fc.oneof({ arbitrary: straight, weight: 4 }, { arbitrary: jumps, weight: 2 }, returns),
      {
        maxLength: 40,
      },
    ),
    returns,
  )
  .map(([body, last]) => close(body, last));
