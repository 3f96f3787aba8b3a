import { expect, it } from 'vitest';
import {
  add,
  call,
  exit,
  HELPER,
  type Insn,
  ja,
  jeq,
  label,
  ldMap,
  ldMapValue,
  ldx,
  mov,
  mov32,
  r0,
  r1,
  r2,
  r3,
  r6,
  r10,
  st,
  stx,
  XDP_MD,
} from '../../src/backends/ebpf-offload/insn.ts';
import { loadInsns, loadProgram } from '../../src/backends/ebpf-offload/interpret.ts';
import type { MapDefinition } from '../../src/backends/ebpf-offload/maps.ts';
import { createMemory } from '../../src/backends/ebpf-offload/memory.ts';
import { assembled } from '../support/ebpf-programs.ts';

const map: MapDefinition = {
  ...{ name: 'm', type: 'array', keySize: 4 },
  ...{ valueSize: 6, maxEntries: 2, flags: 0 },
};
const packet = Uint8Array.of(0x11, 0x22, 0x33, 0x44);

function run(insns: readonly Insn[]) {
  const memory = createMemory([map], [{ name: '.rodata', content: packet }]);
  return loadProgram(assembled(insns), memory).run(packet);
}

const openPacket = ldx(4, r6, r1, XDP_MD.data);
const find: readonly Insn[] = [
  mov(r2, r10),
  add(r2, -4),
  ldMap(r1, 'm'),
  call(HELPER.mapLookupElem),
];

it('returns the action and how much ran', () => {
  expect(run([openPacket, ldx(2, r0, r6, 1), exit()])).toEqual({ action: 0x3322, executed: 3 });
  expect(run([mov(r0, 2), ja('x'), mov(r0, 1), label('x'), exit()])).toMatchObject({ executed: 3 });
});

it('reads the context', () => {
  const machine = loadInsns([ldx(4, r0, r1, XDP_MD.ingressIfindex), exit()], createMemory([], []));
  expect(machine.run(packet, { ingressIfindex: 9, rxQueueIndex: 0 }).action).toBe(9);
});

it('works on a copy of the packet', () => {
  const machine = loadInsns(
    [openPacket, st(1, r6, 0, 9), mov(r0, 2), exit()],
    createMemory([], []),
  );
  machine.run(packet);
  expect(packet[0]).toBe(0x11);
  expect(machine.packet()).toEqual(Uint8Array.of(9, 0x22, 0x33, 0x44));
});

const traps: readonly (readonly [string, readonly Insn[]])[] = [
  ['bug: insn 0 (r0 = r3): r3 was never set', [mov(r0, r3), exit()]],
  ['bug: insn 0 (exit): r0 was never set', [exit()]],
  [
    'bug: insn 1 (r0 = *(u32 *)(r6 + 1)): reaches for 4 bytes at packet + 1 of 4',
    [openPacket, ldx(4, r0, r6, 1), exit()],
  ],
  ['bug: insn 1 (r0 = *(u8 *)(r6 - 1)): reaches for 1 bytes', [openPacket, ldx(1, r0, r6, -1)]],
  [
    'bug: insn 0 (r0 = *(u64 *)(r10 - 8)): reads 8 bytes at stack + 504, never written',
    [ldx(8, r0, r10, -8), exit()],
  ],
  ['bug: insn 1 (r0 = *(u8 *)(r2 + 0)): r2 is no address', [mov(r2, 5), ldx(1, r0, r2, 0)]],
  ['bug: insn 0 (r0 = *(u64 *)(r1 + 0)): reads 8 bytes at context', [ldx(8, r0, r1, 0)]],
  [
    'bug: insn 2 (*(u8 *)(r2 + 0) = 1): .rodata is read-only',
    [ldMapValue(r2, '.rodata', 0), st(1, r2, 0, 1)],
  ],
  ['bug: insn 0 (call get_prandom_u32): helper 7 is not', [call(HELPER.getPrandomU32)]],
  ['bug: control runs past the last insn', [mov(r0, 1)]],
  [
    'bug: insn 6 (r0 = *(u64 *)(r0 + 0)): reaches for 8 bytes at the end of a value of m',
    [st(4, r10, -4, 0), ...find, ldx(8, r0, r0, 0), exit()],
  ],
  ['bug: insn 4 (call map_lookup_elem): reads 4 bytes at stack', [...find, exit()]],
];

it.each(traps)('traps: %s', (message, insns) => {
  expect(() => run(insns)).toThrow(message);
});

it('forgets argument registers across calls', () => {
  const insns = [st(4, r10, -4, 0), ...find, mov(r0, r2), exit()];
  expect(() => run(insns)).toThrow('r2 was never set');
});

it('ends endless loops', () => {
  expect(() => run([label('x'), ja('x')])).toThrow('more than 1000000 insns');
});

it('keeps what programs store in maps, for programs that share them', () => {
  const memory = createMemory([map], []);
  const write = loadInsns(
    [
      ...[st(4, r10, -4, 1), ...find, jeq(r0, 0, 'out'), st(2, r0, 4, 77)],
      ...[label('out'), mov32(r0, 1), exit()],
    ],
    memory,
  );
  const read = loadInsns(
    [
      ...[mov(r1, 1), stx(4, r10, -4, r1), ...find, jeq(r0, 0, 'out'), ldx(2, r0, r0, 4)],
      ...[label('out'), exit()],
    ],
    memory,
  );
  write.run(packet);
  expect(read.run(packet).action).toBe(77);
  expect(memory.maps.get('m')?.read(Uint8Array.of(1, 0, 0, 0))).toEqual(
    Uint8Array.of(0, 0, 0, 0, 77, 0),
  );
});
