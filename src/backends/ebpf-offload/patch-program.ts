import { assemble } from './assemble.ts';
import type { BpfObject } from './elf.ts';
import { HOOKS } from './hook.ts';
import {
  add,
  add32,
  call,
  exit,
  HELPER,
  ja,
  jeq,
  jeq32,
  jgt,
  jgt32,
  label,
  ldMap,
  ldx,
  mov,
  r0,
  r1,
  r2,
  r4,
  r5,
  r6,
  r7,
  r8,
  r10,
  stx,
} from './insn.ts';
import type { PatchWord } from './tree-patch.ts';

/** The program's name, and that of the map in whose place the section's is taken. */
export const PATCH_PROGRAM = 'nft_patch';
const MAP = 'trees';

/*
 * What the patch program takes as its packet, little-endian, once or more:
 *
 *   31          0 31          0
 *  +-------------+-------------+
 *  |   offset    |    value    |
 *  +-------------+-------------+
 */
const PAIR_BYTES = 8;
/**
 * Pairs of one run: BPF_PROG_TEST_RUN gives XDP programs a page without 256 bytes of headroom
 * (XDP_PACKET_HEADROOM) and those of struct skb_shared_info (320): net/bpf/test_run.c.
 */
export const MOST_PAIRS = 424;
/** A packet has at least an Ethernet header (ETH_HLEN, 14 bytes): two pairs. */
const LEAST_PAIRS = 2;

/** Packets for runs of the patch program, in order. */
export function writePatch(words: readonly PatchWord[]): readonly Uint8Array[] {
  const packets: Uint8Array[] = [];
  for (let from = 0; from < words.length; from += MOST_PAIRS) {
    const part = words.slice(from, from + MOST_PAIRS);
    const packet = new Uint8Array(Math.max(part.length, LEAST_PAIRS) * PAIR_BYTES);
    const view = new DataView(packet.buffer);
    for (let pair = 0; pair * PAIR_BYTES < packet.length; pair += 1) {
      // The same word twice is stored twice.
      const word = part[Math.min(pair, part.length - 1)];
      view.setUint32(pair * PAIR_BYTES, word?.offset ?? 0, true);
      view.setUint32(pair * PAIR_BYTES + 4, word?.value ?? 0, true);
    }
    packets.push(packet);
  }
  return packets;
}

/** The pairs of a packet. */
export function readPatch(packet: Uint8Array): readonly PatchWord[] {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  return Array.from({ length: Math.floor(packet.length / PAIR_BYTES) }, (_, pair) => ({
    offset: view.getUint32(pair * PAIR_BYTES, true),
    value: view.getUint32(pair * PAIR_BYTES + 4, true),
  }));
}

/**
 * An object whose program stores words into a section of tables that is `bytes` long: it takes the
 * section's map of a program that is loaded. It stops at the first pair that is out of bounds, and returns how
 * many it stored.
 */
export function patchObject(bytes: number): BpfObject {
  const assembled = assemble(
    [
      ...[ldx(4, r6, r1, 0), ldx(4, r7, r1, 4), mov(r8, 0), stx(4, r10, -4, r8)],
      ...[ldMap(r1, MAP), mov(r2, r10), add(r2, -4), call(HELPER.mapLookupElem)],
      ...[jeq(r0, 0, 'done'), label('pair')],
      ...[mov(r4, r6), add(r4, PAIR_BYTES), jgt(r4, r7, 'done')],
      ...[ldx(4, r5, r6, 0), ldx(4, r1, r6, 4), jgt32(r5, bytes - 4, 'done')],
      ...[mov(r4, r0), add(r4, r5), stx(4, r4, 0, r1)],
      ...[add(r6, PAIR_BYTES), add32(r8, 1), jeq32(r8, MOST_PAIRS, 'done'), ja('pair')],
      ...[label('done'), mov(r0, r8), exit()],
    ],
    { farJumps: 'islands' },
  );
  if (!assembled.ok) throw new Error('bug: the patch program does not assemble');
  const { section } = HOOKS.xdp;
  return {
    programs: [{ section, name: PATCH_PROGRAM, assembly: assembled.value }],
    license: 'GPL',
    maps: [{ name: MAP, type: 'array', keySize: 4, valueSize: bytes, maxEntries: 1, flags: 0 }],
    data: [],
  };
}
