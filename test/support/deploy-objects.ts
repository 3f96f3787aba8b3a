import type { CounterLayout } from '../../src/backends/backend.ts';
import { assemble } from '../../src/backends/ebpf-offload/assemble.ts';
import { writeElf } from '../../src/backends/ebpf-offload/elf.ts';
import {
  add,
  call,
  exit,
  HELPER,
  type Insn,
  jeq,
  jgt,
  jne,
  label,
  ldMap,
  ldx,
  mov,
  r0,
  r1,
  r2,
  r3,
  r6,
  r7,
  r10,
  st,
  stx,
  sub,
  XDP,
  XDP_MD,
} from '../../src/backends/ebpf-offload/insn.ts';
import type { MapDefinition } from '../../src/backends/ebpf-offload/maps.ts';

/** EtherType of the frames that the test programs count and drop: IEEE 802, local experiments. */
export const TEST_ETHERTYPE = 0x88b5;

/** The same as the program reads it, two bytes little-endian. */
const TEST_ETHERTYPE_LE = 0xb588;

/** Two counters in an entry of a per-CPU map; the program counts in the second one. */
export const TEST_LAYOUT: CounterLayout = {
  map: 'counters',
  perCpu: true,
  slotsPerEntry: 2,
  slots: 2,
};

/** The one slot that counts. */
export const COUNTING_SLOT = 1;

const COUNTERS: MapDefinition = {
  name: 'counters',
  type: 'percpu_array',
  keySize: 4,
  valueSize: 32,
  maxEntries: 1,
  flags: 0,
};

const READY: MapDefinition = {
  name: 'ready',
  type: 'array',
  keySize: 4,
  valueSize: 4,
  maxEntries: 1,
  flags: 0,
};

/** bpftool commands that make a `gated` program start. */
export const READY_BATCH = 'map update name ready key 0 0 0 0 value 1 0 0 0\n';

function lookUp(map: string): readonly Insn[] {
  return [
    st(4, r10, -4, 0),
    mov(r2, r10),
    add(r2, -4),
    ldMap(r1, map),
    call(HELPER.mapLookupElem),
    jeq(r0, 0, 'pass'),
  ];
}

function increment(offset: number, by: typeof r7 | number): readonly Insn[] {
  return [ldx(8, r3, r0, offset), add(r3, by), stx(8, r0, offset, r3)];
}

function program(gated: boolean, action: number): readonly Insn[] {
  const counter = COUNTING_SLOT * 16;
  return [
    ldx(4, r6, r1, XDP_MD.data),
    ldx(4, r7, r1, XDP_MD.dataEnd),
    mov(r2, r6),
    add(r2, 14),
    jgt(r2, r7, 'pass'),
    ldx(2, r3, r6, 12),
    jne(r3, TEST_ETHERTYPE_LE, 'pass'),
    sub(r7, r6),
    ...(gated ? [...lookUp('ready'), ldx(4, r3, r0, 0), jeq(r3, 0, 'pass')] : []),
    ...lookUp('counters'),
    ...increment(counter, 1),
    ...increment(counter + 8, r7),
    mov(r0, action),
    exit(),
    label('pass'),
    mov(r0, XDP.pass),
    exit(),
  ];
}

/**
 * An object that counts frames of the test's EtherType (their whole length) and drops or passes
 * them; everything else passes. A gated one does nothing before `READY_BATCH`.
 */
export function testObject(
  options: {
    readonly gated?: boolean;
    readonly action?: 'drop' | 'pass';
    /** One copy of the counters instead of one a CPU, for what takes no per-CPU maps. */
    readonly shared?: boolean;
  } = {},
): Uint8Array {
  const { gated = false, action = 'drop', shared = false } = options;
  const counters: MapDefinition = shared ? { ...COUNTERS, type: 'array' } : COUNTERS;
  const assembly = assemble(program(gated, XDP[action]), { farJumps: 'islands' });
  if (!assembly.ok) throw new Error('bug: the test program does not assemble');
  return writeElf({
    programs: [{ section: 'xdp', name: 'filter', assembly: assembly.value }],
    license: 'GPL',
    maps: gated ? [counters, READY] : [counters],
    data: [],
  });
}
