import fc from 'fast-check';
import { expect, it } from 'vitest';
import { disassemble } from '../../src/backends/ebpf-offload/disassemble.ts';
import { type BpfObject, writeElf } from '../../src/backends/ebpf-offload/elf.ts';
import { readObject } from '../../src/backends/ebpf-offload/elf-read.ts';
import { formatInsns, formatListing } from '../../src/backends/ebpf-offload/format.ts';
import {
  call,
  exit,
  type Insn,
  ja,
  ldMap,
  ldMapValue,
  mov,
  r0,
  r1,
} from '../../src/backends/ebpf-offload/insn.ts';
import type { MapDefinition, MapType } from '../../src/backends/ebpf-offload/maps.ts';
import { assembled, blockArbitrary } from '../support/ebpf-programs.ts';

const program: fc.Arbitrary<readonly Insn[]> = blockArbitrary('b').map((block) => [
  ...block,
  ldMap(r1, 'first'),
  ldMapValue(r0, '.data', 8),
  call(1),
  ja('end'),
  { kind: 'label', name: 'end' },
  mov(r0, 2),
  exit(),
]);

it('disassembles what it assembled and assembles the same bytes again', () => {
  fc.assert(
    fc.property(program, (insns) => {
      const once = assembled(insns);
      const back = disassemble(once.code, once);
      expect(assembled(back)).toMatchObject({ code: once.code, relocations: once.relocations });
      const withoutLabels = (list: readonly Insn[]) => list.filter(({ kind }) => kind !== 'label');
      const names = (list: readonly Insn[]) =>
        withoutLabels(list).map((insn) => ('target' in insn ? { ...insn, target: '' } : insn));
      expect(names(back)).toEqual(names(insns));
    }),
  );
});

it('lists every slot of a program once', () => {
  fc.assert(
    fc.property(program, (insns) => {
      const once = assembled(insns);
      expect(formatListing(once)).toBe(formatInsns(disassemble(once.code, once)));
    }),
    { numRuns: 20 },
  );
});

it('disassembles any bytes to instructions that assemble to them', () => {
  const opcodes = fc.oneof(fc.nat(255), fc.constantFrom(0x05, 0x06, 0x18, 0x85, 0x95, 0xb7, 0x61));
  const slot = fc
    .tuple(
      opcodes,
      fc.oneof(fc.nat(255), fc.constantFrom(0, 0x10)),
      fc.integer({ min: -5, max: 5 }),
      fc.oneof(fc.constant(0), fc.integer()),
    )
    .map(([code, regs, offset, imm]) => {
      const bytes = Buffer.alloc(8);
      bytes.writeUInt8(code, 0);
      bytes.writeUInt8(regs, 1);
      bytes.writeInt16LE(offset, 2);
      bytes.writeInt32LE(imm, 4);
      return bytes;
    });
  fc.assert(
    fc.property(fc.array(slot, { maxLength: 20 }), (slots) => {
      const code = new Uint8Array(Buffer.concat(slots));
      expect(assembled(disassemble(code)).code).toEqual(code);
    }),
    { numRuns: 500 },
  );
});

const mapType: fc.Arbitrary<MapType> = fc.constantFrom('array', 'percpu_array', 'hash', 'lpm_trie');
const mapShape: fc.Arbitrary<Omit<MapDefinition, 'name'>> = fc.record({
  type: mapType,
  keySize: fc.integer({ min: 1, max: 64 }),
  valueSize: fc.integer({ min: 1, max: 8192 }),
  maxEntries: fc.integer({ min: 1, max: 0x7fffffff }),
  flags: fc.nat(15),
});

it('reads back the objects it writes', () => {
  fc.assert(
    fc.property(
      program,
      fc.array(mapShape, { maxLength: 4 }),
      fc.uint8Array({ minLength: 8, maxLength: 100 }),
      fc.option(fc.constantFrom('GPL', 'Dual BSD/GPL')),
      fc.boolean(),
      (insns, shapes, content, license, isDouble) => {
        const assembly = assembled(insns);
        const { code, relocations } = assembly;
        const one = { section: 'xdp', name: 'filter', assembly: { code, relocations } };
        const object: BpfObject = {
          programs: isDouble ? [one, { ...one, name: 'patch' }] : [one],
          license,
          maps: [{ type: 'array' as const, keySize: 4, valueSize: 8, maxEntries: 2, flags: 0 }]
            .concat(shapes.map((shape) => ({ ...shape, type: 'array' as const })))
            .map((shape, index) => ({
              ...shape,
              type: shapes[index - 1]?.type ?? shape.type,
              name: index === 0 ? 'first' : `map_${index}`,
            })),
          data: [
            { name: '.data', content },
            { name: '.rodata.tree', content },
          ],
        };
        const file = writeElf(object);
        expect(writeElf(object)).toEqual(file);
        expect(readObject(file)).toMatchObject({ ok: true, value: object });
      },
    ),
    { numRuns: 60 },
  );
});

it('refuses objects that are cut short with a diagnostic', () => {
  const assembly = assembled([mov(r0, 2), exit()]);
  const programs = [{ section: 'xdp', name: 'filter', assembly }];
  const file = writeElf({ programs, license: 'GPL', maps: [], data: [] });
  for (let length = 0; length < file.length; length += 1) {
    expect(readObject(file.subarray(0, length))).toMatchObject({
      ok: false,
      diagnostics: [{ code: 'ebpf/bad-object' }],
    });
  }
});
