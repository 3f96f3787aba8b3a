import { expect, it } from 'vitest';
import { assemble } from '../../src/backends/ebpf-offload/assemble.ts';
import { disassemble } from '../../src/backends/ebpf-offload/disassemble.ts';
import { formatInsn, formatListing } from '../../src/backends/ebpf-offload/format.ts';
import {
  add,
  arsh,
  atomicAdd,
  be,
  call,
  exit,
  forRule,
  HELPER,
  type Insn,
  imm,
  ja,
  jeq,
  jne,
  jne32,
  jset,
  jsgt,
  label,
  ldImm64,
  ldMap,
  ldMapValue,
  ldx,
  le,
  mov,
  mov32,
  neg,
  r0,
  r1,
  r2,
  r6,
  r10,
  st,
  stx,
  withNote,
} from '../../src/backends/ebpf-offload/insn.ts';
import { removeUnreachable, threadJumps } from '../../src/backends/ebpf-offload/tidy.ts';
import { toHex } from '../../src/support/bits.ts';
import { assembled } from '../support/ebpf-programs.ts';

/** Bytes as clang 14 emits them (-mcpu=v3), text as kernel/bpf/disasm.c prints it. */
const encodings: readonly (readonly [Insn, string, string])[] = [
  [mov(r1, 5), 'b701000005000000', 'r1 = 5'],
  [mov(r1, r6), 'bf61000000000000', 'r1 = r6'],
  [mov32(r0, 0xffffffff), 'b4000000ffffffff', 'w0 = -1'],
  [add(r2, -8), '07020000f8ffffff', 'r2 += -8'],
  [arsh(r1, 3), 'c701000003000000', 'r1 s>>= 3'],
  [neg(r0), '8700000000000000', 'r0 = -r0'],
  [be(16, r0), 'dc00000010000000', 'r0 = be16 r0'],
  [le(32, r0), 'd400000020000000', 'r0 = le32 r0'],
  [
    ldImm64(r1, 0x1122334455667788n),
    '18010000887766550000000044332211',
    'r1 = 0x1122334455667788 ll',
  ],
  [ldMap(r1, 'counters'), '18010000000000000000000000000000', 'r1 = map[counters]'],
  [ldMapValue(r1, '.data', 24), '18010000180000000000000000000000', 'r1 = map[.data] + 24'],
  [ldx(2, r0, r6, 12), '69600c0000000000', 'r0 = *(u16 *)(r6 + 12)'],
  [ldx(8, r0, r10, -8), '79a0f8ff00000000', 'r0 = *(u64 *)(r10 - 8)'],
  [stx(1, r10, -1, r0), '730affff00000000', '*(u8 *)(r10 - 1) = r0'],
  [st(4, r10, -4, 7), '620afcff07000000', '*(u32 *)(r10 - 4) = 7'],
  [atomicAdd(8, r0, 0, r1), 'db10000000000000', 'lock *(u64 *)(r0 + 0) += r1'],
  [jeq(r0, imm(7), 'end'), '1500000007000000', 'if r0 == 0x7 goto end'],
  [jne32(r0, 0x50, 'end'), '5600000050000000', 'if w0 != 0x50 goto end'],
  [jsgt(r0, r2, 'end'), '6d20000000000000', 'if r0 s> r2 goto end'],
  [jset(r0, 1, 'end'), '4500000001000000', 'if r0 & 0x1 goto end'],
  [ja('end'), '0500000000000000', 'goto end'],
  [call(HELPER.mapLookupElem), '8500000001000000', 'call map_lookup_elem'],
  [exit(), '9500000000000000', 'exit'],
];

it.each(encodings)('encodes %o', (insn, hex, text) => {
  expect(toHex(assembled([insn, label('end')]).code)).toBe(hex);
  expect(formatInsn(insn)).toBe(text);
});

it('says which loads need the loader', () => {
  const { relocations } = assembled([mov(r0, 0), ldMap(r1, 'm'), ldMapValue(r2, '.data', 8)]);
  expect(relocations).toEqual([
    { insnIndex: 1, map: 'm', kind: 'map', offset: 0 },
    { insnIndex: 3, map: '.data', kind: 'value', offset: 8 },
  ]);
});

it('keeps the rule and the note of every slot', () => {
  const rule = 'inet filter input handle 4';
  const insns = [
    ...forRule(rule, [ldImm64(r1, 1n), label('x'), withNote(mov(r0, 1), 'drop')]),
    ...forRule('other', forRule(rule, [exit()])),
  ];
  const { lines } = assembled(insns);
  expect(lines.map((line) => [line.rule, line.note])).toEqual([
    [rule, null],
    [rule, null],
    [rule, 'drop'],
    [rule, null],
  ]);
});

it('lists slots, labels and rules', () => {
  const insns = [
    ...forRule('ip filter input handle 2', [
      ldImm64(r1, 1n),
      jne(r1, 7, 'next'),
      mov(r0, 1),
      exit(),
    ]),
    label('next'),
    withNote(mov(r0, 2), 'policy'),
    exit(),
  ];
  expect(formatListing(assembled(insns))).toBe(`\
0: r1 = 0x1 ll                                   ; ip filter input handle 2
2: if r1 != 0x7 goto L5                          ; ip filter input handle 2
3: r0 = 1                                        ; ip filter input handle 2
4: exit                                          ; ip filter input handle 2
L5:
5: r0 = 2                                        ; policy
6: exit
`);
});

it('gives unknown opcodes back as they are', () => {
  const code = Buffer.from('9700010000000000', 'hex'); // mod with an offset: smod, cpu v4
  expect(disassemble(code)).toEqual([
    { kind: 'raw', code: 0x97, dst: 0, src: 0, offset: 1, imm: 0, rule: null, note: null },
  ]);
});

it('throws on labels that are missing or defined twice', () => {
  expect(() => assembled([ja('x')])).toThrow('bug: label x is not defined');
  expect(() => assembled([label('x'), label('x'), exit()])).toThrow(
    'bug: label x is defined twice',
  );
});

it('throws on constants and offsets that do not fit', () => {
  expect(() => mov(r0, 0x80000000)).toThrow('bug: 2147483648 is no constant of a 64-bit');
  expect(() => mov32(r0, 0x100000000)).toThrow('bug: 4294967296 is no constant of a 32-bit');
  expect(() => assembled([ldx(1, r0, r1, 0x8000)])).toThrow('bug: insn 0: offset 32768');
});

function filler(count: number): readonly Insn[] {
  return Array.from({ length: count }, () => mov(r1, 0));
}

it('keeps 16-bit jumps at their limits and no further', () => {
  const lengthWith = (count: number, farJumps: 'gotol' | 'islands'): number =>
    assembled([jeq(r0, 0, 'end'), ...filler(count), label('end'), exit()], farJumps).lines.length;
  expect(lengthWith(0x7fff, 'gotol')).toBe(0x7fff + 2);
  expect(lengthWith(0x8000, 'gotol')).toBe(0x8000 + 3); // turned around a gotol
  expect(lengthWith(0x8000, 'islands')).toBe(0x8000 + 4); // an island and a jump over it
});

it('shares one island among all jumps to a target', () => {
  const jumps = Array.from({ length: 100 }, () => jeq(r0, 0, 'end'));
  const insns = [...jumps, ...filler(40_000), label('end'), exit()];
  expect(assembled(insns, 'gotol').lines).toHaveLength(40_103);
  expect(assembled(insns, 'islands').lines).toHaveLength(40_103);
});

it('puts islands where control does not come along', () => {
  const insns = [
    jeq(r0, 0, 'end'),
    ja('here'),
    label('here'),
    ...filler(20_000),
    exit(),
    label('more'),
    ...filler(20_000),
    label('end'),
    exit(),
  ];
  expect(assembled([jeq(r1, 0, 'more'), ...insns], 'islands').lines).toHaveLength(40_006);
});

it('says when chains of jumps cannot carry a program', { timeout: 120_000 }, () => {
  const count = 40_000;
  const fronts = Array.from({ length: count }, (_, index) => jeq(r0, index, `body ${index}`));
  const bodies = Array.from({ length: count }, (_, index) => [label(`body ${index}`), exit()]);
  const insns = [...fronts, exit(), ...bodies.flat()];
  expect(assemble(insns, { farJumps: 'islands' })).toMatchObject({
    ok: false,
    diagnostics: [{ code: 'ebpf/jump-too-far' }],
  });
  expect(assemble(insns, { farJumps: 'gotol' }).ok).toBe(true);
});

it('drops what control cannot get to', () => {
  const insns = [ja('a'), mov(r0, 1), label('unused'), exit(), label('a'), mov(r0, 2), exit()];
  expect(removeUnreachable(insns)).toEqual([ja('a'), label('a'), mov(r0, 2), exit()]);
});

it('leads jumps to jumps to the end of the chain', () => {
  const insns = [
    jeq(r0, 0, 'a'),
    exit(),
    label('a'),
    ja('b'),
    label('c'),
    exit(),
    label('b'),
    ja('c'),
  ];
  expect(removeUnreachable(threadJumps(insns))).toEqual([
    jeq(r0, 0, 'c'),
    exit(),
    label('c'),
    exit(),
  ]);
});

it('leaves a loop of plain jumps alone', () => {
  const insns = [label('a'), ja('b'), label('b'), ja('a')];
  expect(assembled(threadJumps(insns)).lines.length).toBeGreaterThan(0);
});
