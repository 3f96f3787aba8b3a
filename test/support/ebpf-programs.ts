import fc from 'fast-check';
import { type Assembly, assemble } from '../../src/backends/ebpf-offload/assemble.ts';
import {
  type AluOp,
  atomicAdd,
  type Insn,
  type JumpOp,
  jump,
  label,
  ldImm64,
  ldx,
  type Reg,
  type RegNumber,
  r10,
  type Source,
  st,
  stx,
} from '../../src/backends/ebpf-offload/insn.ts';
import type { FarJumps } from '../../src/backends/ebpf-offload/layout.ts';

/** The encoded program; a diagnostic fails the test. */
export function assembled(insns: readonly Insn[], farJumps: FarJumps = 'gotol'): Assembly {
  const result = assemble(insns, { farJumps });
  if (!result.ok) throw new Error(result.diagnostics.map(({ message }) => message).join('\n'));
  return result.value;
}

const aluOps: readonly AluOp[] = [
  ...(['add', 'sub', 'mul', 'div', 'or', 'and', 'lsh', 'rsh'] as const),
  ...(['neg', 'mod', 'xor', 'mov', 'arsh'] as const),
];
const jumpOps: readonly JumpOp[] = [
  ...(['eq', 'ne', 'gt', 'ge', 'lt', 'le', 'set', 'sgt', 'sge', 'slt', 'sle'] as const),
];

/** 32-bit constants, often at an edge. */
export const constant32: fc.Arbitrary<number> = fc.oneof(
  fc.integer({ min: -0x80000000, max: 0x7fffffff }),
  fc.integer({ min: -3, max: 70 }),
  fc.constantFrom(0x7fffffff, -0x80000000, 0xffff, 0x10000),
);

/** 64-bit values, often at an edge. */
export const value64: fc.Arbitrary<bigint> = fc.oneof(
  fc.bigInt({ min: 0n, max: 0xffffffffffffffffn }),
  fc.bigInt({ min: 0n, max: 70n }),
  fc.constantFrom(0x7fffffffn, 0x80000000n, 0xffffffffn, 0x100000000n, 0xffffffff80000000n),
  fc.constantFrom(0x7fffffffffffffffn, 0x8000000000000000n, 0xffffffffffffffffn),
);

/** Registers that a block may use. */
export const blockRegisters = 6;

const width = fc.constantFrom(32 as const, 64 as const);
const scratch: fc.Arbitrary<RegNumber> = fc.constantFrom(0, 1, 2, 3, 4, 5);
const scratchReg: fc.Arbitrary<Reg> = scratch.map((reg) => ({ kind: 'reg', reg }));
const plain = { rule: null, note: null };

/** Constants that the verifier refuses: division by zero, shifts by the width or more. */
function legalConstant(op: AluOp, bits: 32 | 64, value: number): number {
  if ((op === 'div' || op === 'mod') && value === 0) return 1;
  if (op === 'lsh' || op === 'rsh' || op === 'arsh') return value & (bits - 1);
  return op === 'neg' ? 0 : value;
}

const aluInsn: fc.Arbitrary<Insn> = fc
  .record({
    op: fc.constantFrom(...aluOps),
    bits: width,
    dst: scratch,
    reg: scratchReg,
    value: constant32,
    isReg: fc.boolean(),
  })
  .map(({ op, bits, dst, reg, value, isReg }) => {
    const constant: Source = { kind: 'imm', value: legalConstant(op, bits, value) };
    const src = isReg && op !== 'neg' ? reg : constant;
    return { kind: 'alu', op, width: bits, dst, src, ...plain };
  });

const endianInsn: fc.Arbitrary<Insn> = fc
  .record({
    order: fc.constantFrom('be' as const, 'le' as const),
    bits: fc.constantFrom(16 as const, 32 as const, 64 as const),
    dst: scratch,
  })
  .map((fields) => ({ kind: 'endian', ...fields, ...plain }));

/** Aligned places in the highest 64 bytes of the stack. */
const stackPlace = fc
  .record({ size: fc.constantFrom(1 as const, 2 as const, 4 as const, 8 as const), at: fc.nat(63) })
  .map(({ size, at }) => ({ size, offset: at - (at % size) - 64 }));

const memoryInsn: fc.Arbitrary<Insn> = fc
  .record({ place: stackPlace, reg: scratchReg, value: constant32, kind: fc.nat(3) })
  .map(({ place: { size, offset }, reg, value, kind }) => {
    if (kind === 0) return ldx(size, reg, r10, offset);
    if (kind === 1) return st(size, r10, offset, value);
    if (kind === 2 && size >= 4) return atomicAdd(size === 8 ? 8 : 4, r10, offset, reg);
    return stx(size, r10, offset, reg);
  });

const jumpShape = fc.record({
  kind: fc.constant('jump shape' as const),
  op: fc.constantFrom(...jumpOps),
  bits: width,
  dst: scratchReg,
  src: fc.oneof(scratchReg, constant32),
  skip: fc.integer({ min: 1, max: 6 }),
});

/**
 * Random instructions on r0-r5 (all set before) and the highest 64 bytes of the stack (written
 * before), with jumps forward inside the block; `name` makes the labels unique.
 */
export function blockArbitrary(name: string): fc.Arbitrary<readonly Insn[]> {
  const constant = fc
    .record({ dst: scratchReg, value: value64 })
    .map(({ dst, value }) => ldImm64(dst, value));
  const element = fc.oneof(
    { weight: 8, arbitrary: aluInsn },
    { weight: 1, arbitrary: endianInsn },
    { weight: 1, arbitrary: constant },
    { weight: 2, arbitrary: memoryInsn },
    { weight: 2, arbitrary: jumpShape },
  );
  return fc.array(element, { minLength: 1, maxLength: 40 }).map((elements) => [
    ...elements.flatMap((insn, index): readonly Insn[] => {
      const here = label(`${name}.${index}`);
      if (insn.kind !== 'jump shape') return [here, insn];
      const target = `${name}.${Math.min(index + insn.skip, elements.length)}`;
      return [here, jump(insn.op, insn.bits, insn.dst, insn.src, target)];
    }),
    label(`${name}.${elements.length}`),
  ]);
}
