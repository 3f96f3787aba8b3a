import fc from 'fast-check';
import { expect, it } from 'vitest';
import { decodeInsn, encodeInsn } from '../../src/backends/cbpf/encode.ts';
import { CBPF_FORMATS, readProgram, writeProgram } from '../../src/backends/cbpf/file-formats.ts';
import { loadProgram } from '../../src/backends/cbpf/interpret.ts';
import { validate } from '../../src/backends/cbpf/validate.ts';
import { insns, programs } from '../support/cbpf-arbitrary.ts';
import { unwrap } from '../support/pipeline.ts';

it('encodes and decodes every instruction', () => {
  fc.assert(
    fc.property(insns, (insn) => {
      const raw = encodeInsn(insn);
      expect(decodeInsn(raw)).toEqual(insn);
      expect(encodeInsn(decodeInsn(raw))).toEqual(raw);
    }),
    { numRuns: 3000 },
  );
});

it('decodes any bits and gives those back that are used', () => {
  const raws = fc.record({
    kind: fc.constant('raw' as const),
    code: fc.oneof(fc.nat({ max: 255 }), fc.nat({ max: 0xffff })),
    jt: fc.constantFrom(0, 3),
    jf: fc.constantFrom(0, 4),
    k: fc.constantFrom(0, 7, 0xffff_ffff),
  });
  fc.assert(
    fc.property(raws, (raw) => {
      const decoded = decodeInsn(raw);
      const again = encodeInsn(decoded);
      const isJump = decoded.kind === 'jump' || decoded.kind === 'raw';
      expect(again.code).toBe(raw.code);
      expect(isJump ? [raw.jt, raw.jf] : [0, 0]).toEqual([again.jt, again.jf]);
      expect([raw.k, 0]).toContain(again.k);
      expect(decodeInsn(again)).toEqual(decoded);
    }),
    { numRuns: 3000 },
  );
});

it.each(CBPF_FORMATS)('reads back what it writes: %s', (format) => {
  fc.assert(
    fc.property(programs, (program) => {
      expect(unwrap(readProgram(writeProgram(program, format), format))).toEqual(program);
    }),
    { numRuns: 300 },
  );
});

it('validates and runs every well-formed program', () => {
  fc.assert(
    fc.property(programs, fc.uint8Array({ maxLength: 80 }), (program, packet) => {
      expect(validate(program)).toBeNull();
      const { value, executed } = loadProgram(program)(packet);
      expect(value).toBeGreaterThanOrEqual(0);
      expect(executed).toBeLessThanOrEqual(program.length);
    }),
    { numRuns: 1000 },
  );
});
