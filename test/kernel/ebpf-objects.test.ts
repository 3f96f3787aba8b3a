import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type BpfObject, type ObjectData, writeElf } from '../../src/backends/ebpf-offload/elf.ts';
import {
  add,
  atomicAdd,
  call,
  exit,
  HELPER,
  type Insn,
  ja,
  jeq,
  jeq32,
  jgt,
  jne32,
  jset32,
  label,
  ldMap,
  ldMapValue,
  ldx,
  mov,
  r0,
  r1,
  r2,
  r3,
  r6,
  r7,
  r10,
  stx,
} from '../../src/backends/ebpf-offload/insn.ts';
import { loadProgram } from '../../src/backends/ebpf-offload/interpret.ts';
import type { FarJumps } from '../../src/backends/ebpf-offload/layout.ts';
import {
  BPF_F_NO_PREALLOC,
  type MapDefinition,
  type MapType,
} from '../../src/backends/ebpf-offload/maps.ts';
import { createMemory } from '../../src/backends/ebpf-offload/memory.ts';
import { loadObject, probeBpf, run } from '../support/ebpf-kernel.ts';
import { assembled } from '../support/ebpf-programs.ts';

const obstacle = probeBpf();
const onKernel = it.skipIf(obstacle !== null);
const namespace = `nft-offload-${process.pid}`;
let scratch = '';

beforeAll(() => {
  if (obstacle !== null) return;
  scratch = mkdtempSync(join(tmpdir(), 'nft-offload-test-'));
  run('ip', 'netns', 'add', namespace);
  run('ip', '-n', namespace, 'link', 'add', 'veth0', 'type', 'veth', 'peer', 'name', 'veth1');
});

afterAll(() => {
  if (obstacle !== null) return;
  run('ip', 'netns', 'del', namespace);
  rmSync(scratch, { recursive: true });
});

it('says why the kernel cannot be asked', ({ skip }) => {
  if (obstacle !== null) skip(obstacle);
});

const pass: readonly Insn[] = [mov(r0, 2), exit()];

/** Adds one to the first 64-bit word of entry 0. */
function count(map: string): readonly Insn[] {
  return [
    mov(r1, 0),
    stx(8, r10, -8, r1),
    mov(r2, r10),
    add(r2, -8),
    ldMap(r1, map),
    call(HELPER.mapLookupElem),
    jeq(r0, 0, `${map} absent`),
    mov(r1, 1),
    atomicAdd(8, r0, 0, r1),
    label(`${map} absent`),
  ];
}

/** Returns the 32-bit word at `offset` of a data section. */
function readData(name: string, offset: number): readonly Insn[] {
  return [ldMapValue(r1, name, offset), ldx(4, r0, r1, 0), exit()];
}

function data(name: string, length: number, at: number): ObjectData {
  const content = new Uint8Array(length);
  content[at] = 2;
  return { name, content };
}

function map(name: string, type: MapType, rest: Partial<MapDefinition> = {}): MapDefinition {
  return { name, type, keySize: 4, valueSize: 16, maxEntries: 2, flags: 0, ...rest };
}

function object(insns: readonly Insn[], rest: Partial<BpfObject> = {}): BpfObject {
  const programs = [{ section: 'xdp', name: 'filter', assembly: assembled(insns) }];
  return { programs, license: 'GPL', maps: [], data: [], ...rest };
}

const trie = map('trie', 'lpm_trie', { keySize: 8, flags: BPF_F_NO_PREALLOC });
const large = 1_500_000;

const objects: readonly (readonly [string, BpfObject])[] = [
  ['no map', object(pass)],
  ['no license', object(pass, { license: null })],
  ['a counters array', object([...count('a'), ...pass], { maps: [map('a', 'array')] })],
  ['a per-CPU array', object([...count('p'), ...pass], { maps: [map('p', 'percpu_array')] })],
  ['a hash map', object([...count('h'), ...pass], { maps: [map('h', 'hash')] })],
  ['an LPM trie', object([...count('trie'), ...pass], { maps: [trie] })],
  [
    'two maps',
    object([...count('a'), ...count('b'), ...pass], {
      maps: [map('a', 'array'), map('b', 'hash')],
    }),
  ],
  ['.rodata', object(readData('.rodata', 4), { data: [data('.rodata', 8, 4)] })],
  [
    '.data of 1.5 MB and counters',
    object([...count('p'), ...readData('.data', large - 4)], {
      maps: [map('p', 'percpu_array')],
      data: [data('.data', large, large - 4)],
    }),
  ],
  [
    '.data and .rodata',
    object(readData('.data', 8), { data: [data('.data', 64, 8), data('.rodata', 8, 0)] }),
  ],
  [
    'two programs',
    object([...count('a'), ...pass], {
      maps: [map('a', 'array')],
      programs: [
        { section: 'xdp', name: 'filter', assembly: assembled([...count('a'), ...pass]) },
        { section: 'xdp', name: 'patch', assembly: assembled([ja('x'), label('x'), ...pass]) },
      ],
    }),
  ],
];

onKernel.each(objects)('bpftool loads and runs an object with %s', (_, each) => {
  const loaded = loadObject(each);
  try {
    expect(loaded.run(new Uint8Array(64)).action).toBe(2);
  } finally {
    loaded.close();
  }
});

onKernel.each(objects)('ip attaches an object with %s', (_, each) => {
  const file = join(scratch, 'object.o');
  writeFileSync(file, writeElf(each));
  const set = ['-n', namespace, 'link', 'set', 'dev', 'veth0'];
  for (const mode of ['xdpgeneric', 'xdpdrv']) {
    run('ip', ...set, mode, 'obj', file, 'sec', 'xdp');
    expect(run('ip', '-n', namespace, 'link', 'show', 'dev', 'veth0')).toContain('prog/xdp');
    run('ip', ...set, mode, 'off');
  }
});

onKernel('counts what the interpreter counts', () => {
  const maps = [map('counters', 'array')];
  const each = object([...count('counters'), ...pass], { maps });
  const memory = createMemory(maps, []);
  const machine = loadProgram(assembled([...count('counters'), ...pass]), memory);
  const loaded = loadObject(each);
  try {
    for (let packet = 0; packet < 3; packet += 1) {
      loaded.run(new Uint8Array(64));
      machine.run(new Uint8Array(64));
    }
    const key = new Uint8Array(4);
    expect(loaded.lookupMap('counters', key)[0]).toBe(3);
    expect(memory.maps.get('counters')?.read(key)).toEqual(loaded.lookupMap('counters', key));
  } finally {
    loaded.close();
  }
});

/** 14,000 rules on the 32-bit word at byte 0, far from their common verdicts: 42,000 slots. */
function manyRules(): readonly Insn[] {
  const rules = Array.from({ length: 14_000 }, (_, index) => [
    jne32(r3, index * 7, `next ${index}`),
    jset32(r3, 1 << (index % 31), 'drop'),
    jeq32(r3, index * 7, 'tx'),
    label(`next ${index}`),
  ]);
  return [
    ldx(4, r6, r1, 0),
    ldx(4, r7, r1, 4),
    mov(r0, 2),
    mov(r2, r6),
    add(r2, 4),
    jgt(r2, r7, 'pass'),
    ldx(4, r3, r6, 0),
    ...rules.flat(),
    label('pass'),
    exit(),
    label('drop'),
    mov(r0, 1),
    exit(),
    label('tx'),
    mov(r0, 3),
    exit(),
  ];
}

onKernel.each<FarJumps>(['gotol', 'islands'])('the kernel takes far jumps by %s', (farJumps) => {
  const assembly = assembled(manyRules(), farJumps);
  const machine = loadProgram(assembly, createMemory([], []));
  const programs = [{ section: 'xdp', name: 'filter', assembly }];
  const loaded = loadObject({ programs, license: 'GPL', maps: [], data: [] });
  try {
    for (const word of [0, 7, 8, 14, 7 * 4_000, 7 * 13_998, 7 * 13_999, 0xffffffff]) {
      const packet = new Uint8Array(64);
      new DataView(packet.buffer).setUint32(0, word, true);
      expect([word, machine.run(packet).action]).toEqual([word, loaded.run(packet).action]);
    }
  } finally {
    loaded.close();
  }
});
