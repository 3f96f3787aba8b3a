import { expect, it } from 'vitest';
import { loadProgram } from '../../src/backends/ebpf-offload/interpret.ts';
import type { LiveProgram } from '../../src/backends/ebpf-offload/live-program.ts';
import { createMemory } from '../../src/backends/ebpf-offload/memory.ts';
import {
  MOST_PAIRS,
  patchObject,
  readPatch,
  writePatch,
} from '../../src/backends/ebpf-offload/patch-program.ts';
import type { PatchWord } from '../../src/backends/ebpf-offload/tree-patch.ts';
import { readLive, writeLive } from '../../src/deploy/live-record.ts';

const BYTES = 4096;

function wordsOf(count: number): PatchWord[] {
  return Array.from({ length: count }, (_, at) => ({
    offset: (at * 4) % BYTES,
    value: at ^ 0xabc,
  }));
}

/** Runs packets through the patch program; how many pairs each stored, and what is there then. */
function store(packets: readonly Uint8Array[]) {
  const object = patchObject(BYTES);
  const memory = createMemory(object.maps, []);
  const [program] = object.programs;
  if (program === undefined) throw new Error('bug: no program');
  const machine = loadProgram(program.assembly, memory);
  const stored = packets.map((packet) => machine.run(packet).action);
  return { stored, value: memory.maps.get('trees')?.read(new Uint8Array(4)) ?? new Uint8Array() };
}

it.each([1, 2, MOST_PAIRS, MOST_PAIRS + 1, 1000])('%i words arrive, in order', (count) => {
  const words = wordsOf(count);
  const packets = writePatch(words);
  const pairs = packets.flatMap(readPatch);
  // The last pair of a packet may be there twice: it has to be as long as a frame.
  expect(pairs.filter((pair, at) => at === 0 || pair.offset !== pairs[at - 1]?.offset)).toEqual(
    words,
  );
  const { stored, value } = store(packets);
  expect(stored).toEqual(packets.map(({ length }) => length / 8));
  const wanted = new DataView(new ArrayBuffer(BYTES));
  for (const { offset, value: word } of words) wanted.setUint32(offset, word, true);
  expect(value).toEqual(new Uint8Array(wanted.buffer));
});

it('stores nothing out of bounds, and nothing behind that', () => {
  const words = [
    { offset: BYTES - 4, value: 1 },
    { offset: BYTES - 3, value: 2 },
    { offset: 0, value: 3 },
  ];
  const { stored, value } = store(writePatch(words));
  expect(stored).toEqual([1]);
  expect([value[0], value[BYTES - 4]]).toEqual([0, 1]);
});

it('reads back what it takes to change a program, and nothing else', () => {
  const live: LiveProgram = {
    format: 'nft-offload/live@1',
    code: {
      programs: [{ section: 'xdp', code: new Uint8Array([1, 2, 3]), relocations: [] }],
      maps: [],
      data: [{ name: '.rodata', content: new Uint8Array(0) }],
    },
    generation: 7,
    tables: [],
    counters: {
      layout: { map: 'counters', perCpu: true, slotsPerEntry: 512, slots: 70 },
      ingress: 70,
      owners: [],
      retired: new Set([3, 4]),
    },
  };
  expect(readLive(writeLive(live))).toEqual(live);
  expect(readLive(writeLive(live).slice(0, -20))).toBeNull();
  expect(readLive(new TextEncoder().encode('{}'))).toBeNull();
});
