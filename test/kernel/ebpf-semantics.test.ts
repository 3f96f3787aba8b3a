import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { BpfObject } from '../../src/backends/ebpf-offload/elf.ts';
import {
  add,
  call,
  exit,
  HELPER,
  type Insn,
  jeq,
  jgt,
  label,
  ldMap,
  ldx,
  mov,
  type Reg,
  r0,
  r1,
  r2,
  r3,
  r4,
  r5,
  r6,
  r7,
  r10,
  st,
  stx,
} from '../../src/backends/ebpf-offload/insn.ts';
import { loadProgram } from '../../src/backends/ebpf-offload/interpret.ts';
import type { MapDefinition } from '../../src/backends/ebpf-offload/maps.ts';
import { createMemory } from '../../src/backends/ebpf-offload/memory.ts';
import { loadObject, probeBpf } from '../support/ebpf-kernel.ts';
import { assembled, blockArbitrary, value64 } from '../support/ebpf-programs.ts';

const obstacle = probeBpf();
const onKernel = it.skipIf(obstacle !== null);

it('says why the kernel cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

const registers: readonly Reg[] = [r0, r1, r2, r3, r4, r5];
/** Bytes of all registers. */
const saved = registers.length * 8;

/** r6 = packet, with `length` bytes to reach for; shorter ones go to `short`. */
function openPacket(length: number): readonly Insn[] {
  return [ldx(4, r6, r1, 0), ldx(4, r7, r1, 4), mov(r2, r6), add(r2, length), jgt(r2, r7, 'short')];
}

const closePacket: readonly Insn[] = [mov(r0, 2), exit(), label('short'), mov(r0, 1), exit()];

/** Runs each block on registers read from the packet's head; block `i` leaves its results behind. */
function programOf(blocks: readonly (readonly Insn[])[]): readonly Insn[] {
  const length = saved * (blocks.length + 1);
  const bodies = blocks.flatMap((block, index) => [
    ...registers.map((reg, place) => ldx(8, reg, r6, place * 8)),
    ...registers.map((reg, place) => stx(8, r10, place * 8 - 64, reg)),
    st(8, r10, -16, -2),
    st(8, r10, -8, index),
    ...block,
    ...registers.map((reg, place) => stx(8, r6, saved * (index + 1) + place * 8, reg)),
  ]);
  return [...openPacket(length), ...bodies, ...closePacket];
}

function objectOf(insns: readonly Insn[], maps: readonly MapDefinition[] = []): BpfObject {
  const programs = [{ section: 'xdp', name: 'test', assembly: assembled(insns) }];
  return { programs, license: 'GPL', maps, data: [] };
}

/** Blocks a program and programs; 600 blocks in all, on six inputs each. */
const blocksEach = 60;
const programCount = 10;

onKernel('computes what the kernel computes, for random programs', () => {
  const seed = 20_240_901;
  const blocks = Array.from({ length: blocksEach }, (_, index) => blockArbitrary(`b${index}`));
  const programs = fc.sample(fc.tuple(...blocks), { seed, numRuns: programCount });
  const inputs = fc.sample(fc.tuple(...registers.map(() => value64)), { seed, numRuns: 6 });
  for (const program of programs) {
    const object = objectOf(programOf(program));
    const [{ assembly }] = object.programs as [BpfObject['programs'][0]]; // made with one program
    const machine = loadProgram(assembly, createMemory([], []));
    const kernel = loadObject(object);
    try {
      for (const input of inputs) {
        const packet = new Uint8Array(saved * (blocksEach + 1));
        const view = new DataView(packet.buffer);
        input.forEach((value, place) => {
          view.setBigUint64(place * 8, value, true);
        });
        const { action } = machine.run(packet);
        expect({ action, packet: machine.packet() }).toEqual(kernel.run(packet));
      }
    } finally {
      kernel.close();
    }
  }
});

const keyBytes = 8;

/** The key at the packet's head looked up in `map`; the value's first byte is the action. */
function lookUp(map: string, keySize: number): readonly Insn[] {
  return [
    ...openPacket(16),
    ldx(8, r3, r6, 0),
    stx(8, r10, -8, r3),
    mov(r2, r10),
    add(r2, -keyBytes),
    ldMap(r1, map),
    call(HELPER.mapLookupElem),
    jeq(r0, 0, 'absent'),
    ldx(1, r0, r0, keySize % 8),
    exit(),
    label('absent'),
    mov(r0, 3),
    exit(),
    label('short'),
    mov(r0, 4),
    exit(),
  ];
}

const lookups: readonly (readonly [MapDefinition, readonly string[], readonly string[]])[] = [
  [
    { name: 'm', type: 'array', keySize: 4, valueSize: 12, maxEntries: 3, flags: 0 },
    ['00000000', '02000000'],
    ['00000000', '01000000', '02000000', '03000000', 'ffffffff'],
  ],
  [
    { name: 'm', type: 'hash', keySize: 6, valueSize: 12, maxEntries: 3, flags: 0 },
    ['010203040506', '000000000000'],
    ['010203040506', '000000000000', '010203040507', '110203040506'],
  ],
  [
    { name: 'm', type: 'lpm_trie', keySize: 8, valueSize: 12, maxEntries: 8, flags: 1 },
    ['080000000a000000', '0f0000000a020000', '200000000a030303', '000000007f000001'],
    [
      ...['200000000a010101', '200000000a020101', '200000000a030101', '200000000a030303'],
      ...['20000000c0a80001', '080000000a030303', '070000000a030303', '1f0000000a030303'],
    ],
  ],
];

onKernel.each(lookups)('looks up like the kernel in %o', (definition, present, asked) => {
  const object = objectOf(lookUp('m', definition.keySize), [definition]);
  const memory = createMemory([definition], []);
  const [{ assembly }] = object.programs as [BpfObject['programs'][0]]; // made with one program
  const machine = loadProgram(assembly, memory);
  const kernel = loadObject(object);
  try {
    present.forEach((hex, index) => {
      const key = Buffer.from(hex, 'hex');
      const value = new Uint8Array(12).fill(0x10 + index);
      kernel.updateMap('m', key, value);
      memory.maps.get('m')?.update(key, value);
    });
    for (const hex of asked) {
      const packet = new Uint8Array(64);
      packet.set(Buffer.from(hex, 'hex'));
      expect([hex, machine.run(packet).action]).toEqual([hex, kernel.run(packet).action]);
    }
  } finally {
    kernel.close();
  }
});
