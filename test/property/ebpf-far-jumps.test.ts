import fc from 'fast-check';
import { expect, it } from 'vitest';
import { disassemble } from '../../src/backends/ebpf-offload/disassemble.ts';
import {
  add,
  exit,
  type Insn,
  ja,
  jeq,
  jlt,
  jset,
  label,
  ldx,
  mov,
  mul32,
  r0,
  r1,
  r2,
  r6,
  r7,
  r8,
  sub,
} from '../../src/backends/ebpf-offload/insn.ts';
import { loadInsns, loadProgram } from '../../src/backends/ebpf-offload/interpret.ts';
import type { FarJumps } from '../../src/backends/ebpf-offload/layout.ts';
import { createMemory } from '../../src/backends/ebpf-offload/memory.ts';
import { removeUnreachable, threadJumps } from '../../src/backends/ebpf-offload/tidy.ts';
import { assembled } from '../support/ebpf-programs.ts';

interface Point {
  /** Instructions in front of it. */
  readonly gap: number;
  readonly kind: 'lt' | 'set' | 'ja' | 'stop';
  readonly operand: number;
  /** Number of the point it jumps to, taken modulo their count. */
  readonly target: number;
}

const point: fc.Arbitrary<Point> = fc.record({
  gap: fc.oneof(fc.nat(3), fc.nat(9_000)),
  kind: fc.constantFrom('lt' as const, 'set' as const, 'ja' as const, 'stop' as const),
  operand: fc.integer({ min: 0, max: 0x7fffffff }),
  target: fc.nat(),
});

/** Jumps all over a long program; r0 hashes the way taken, r8 ends loops. */
function programOf(points: readonly Point[]): readonly Insn[] {
  const body = points.flatMap(({ gap, kind, operand, target }, index): readonly Insn[] => {
    const to = `p${target % points.length}`;
    const jumps: Readonly<Record<Point['kind'], Insn>> = {
      lt: jlt(r7, operand, to),
      set: jset(r7, operand, to),
      ja: ja(to),
      stop: exit(),
    };
    return [
      ...Array.from({ length: gap }, () => add(r1, 1)),
      label(`p${index}`),
      sub(r8, 1),
      jeq(r8, 0, 'out'),
      mul32(r0, 31),
      add(r0, index + 1),
      mul32(r7, 0x41c64e6d),
      add(r7, 12345),
      jumps[kind],
    ];
  });
  return [
    ldx(4, r6, r1, 0),
    ldx(4, r2, r1, 4),
    ldx(4, r7, r6, 0),
    mov(r8, 60),
    mov(r0, 0),
    mov(r1, 0),
    ...body,
    label('out'),
    exit(),
  ];
}

const memory = createMemory([], []);

function actions(run: (packet: Uint8Array) => { readonly action: number }): readonly number[] {
  return [0, 1, 0x7fffffff, 0xdeadbeef].map((word) => {
    const packet = new Uint8Array(4);
    new DataView(packet.buffer).setUint32(0, word, true);
    return run(packet).action;
  });
}

const modes: readonly FarJumps[] = ['gotol', 'islands'];

it.each(modes)('jumps far by %s to where the program says', (farJumps) => {
  fc.assert(
    fc.property(fc.array(point, { minLength: 2, maxLength: 40 }), (points) => {
      const insns = removeUnreachable(programOf(points));
      const expected = actions(loadInsns(insns, memory).run);
      const assembly = assembled(insns, farJumps);
      expect(actions(loadProgram(assembly, memory).run)).toEqual(expected);
      const back = disassemble(assembly.code, assembly);
      expect(removeUnreachable(back)).toEqual(back); // nothing the kernel would refuse
      expect(assembled(back, farJumps).code).toEqual(assembly.code);
      if (farJumps === 'islands') expect(assembly.code.some(isJa32)).toBe(false);
    }),
    { numRuns: 15 },
  );
});

/** Whether a slot begins here with BPF_JMP32 | BPF_JA. */
function isJa32(byte: number, index: number): boolean {
  return index % 8 === 0 && byte === 0x06;
}

it('keeps the meaning when it tidies', () => {
  const near = point.map((each) => ({ ...each, gap: each.gap % 3 }));
  fc.assert(
    fc.property(fc.array(near, { minLength: 2, maxLength: 40 }), (points) => {
      const insns = programOf(points);
      const tidy = removeUnreachable(threadJumps(insns));
      expect(tidy.length).toBeLessThanOrEqual(insns.length);
      expect(actions(loadInsns(tidy, memory).run)).toEqual(actions(loadInsns(insns, memory).run));
      expect(removeUnreachable(tidy)).toEqual(tidy);
    }),
  );
});
