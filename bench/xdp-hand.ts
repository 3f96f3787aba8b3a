import type { BpfObject } from '../src/backends/ebpf-offload/elf.ts';
import {
  add,
  call,
  exit,
  HELPER,
  type Insn,
  jeq,
  jgt,
  jne32,
  label,
  ldMap,
  ldx,
  mov,
  mov32,
  r0,
  r1,
  r2,
  r3,
  r4,
  r10,
  stx,
  XDP,
} from '../src/backends/ebpf-offload/insn.ts';
import type { MapDefinition } from '../src/backends/ebpf-offload/maps.ts';
import { objectOf } from './xdp-harness.ts';

/*
 * What one would write by hand for one shape of rules: Ethernet, IPv4 without options, TCP; addresses
 * and ports as they stand in the frame are the key of one map.
 */

const ETH_P_IP = 0x0008; // as a little-endian load reads it
const DROP = [label('drop'), mov(r0, XDP.drop), exit()];
const PASS = [label('pass'), mov(r0, XDP.pass), exit()];

/** r1 points at a frame of at least 54 bytes of IPv4, or control is at `pass`. */
const PARSE: readonly Insn[] = [
  ...[ldx(4, r2, r1, 4), ldx(4, r1, r1, 0), mov(r3, r1), add(r3, 54), jgt(r3, r2, 'pass')],
  ...[ldx(2, r4, r1, 12), jne32(r4, ETH_P_IP, 'pass')],
];

/** Reads the headers and passes everything. */
export const PARSE_ONLY: BpfObject = objectOf([...PARSE, ...PASS]);

const LOOKUP: readonly Insn[] = [
  ...[ldMap(r1, 'keys'), mov(r2, r10), add(r2, -8), call(HELPER.mapLookupElem)],
  ...[jeq(r0, 0, 'pass'), ldx(4, r1, r0, 0), jeq(r1, 0, 'pass')],
];

function mapOf(type: MapDefinition['type'], maxEntries: number): MapDefinition {
  const flags = type === 'lpm_trie' ? 1 : 0; // BPF_F_NO_PREALLOC
  return { name: 'keys', type, keySize: 8, valueSize: 4, maxEntries, flags };
}

/** A hash map of (source address, destination port). */
export function handHash(entries: number): BpfObject {
  const key = [
    ...[ldx(4, r3, r1, 26), stx(4, r10, -8, r3)],
    ...[ldx(2, r3, r1, 36), stx(4, r10, -4, r3)],
  ];
  return objectOf([...PARSE, ...key, ...LOOKUP, ...DROP, ...PASS], [mapOf('hash', entries)]);
}

/** An LPM trie of source prefixes. */
export function handLpm(entries: number): BpfObject {
  const key = [mov32(r3, 32), stx(4, r10, -8, r3), ldx(4, r3, r1, 26), stx(4, r10, -4, r3)];
  return objectOf([...PARSE, ...key, ...LOOKUP, ...DROP, ...PASS], [mapOf('lpm_trie', entries)]);
}

function hex(bytes: readonly number[]): string {
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
}

/** bpftool commands that fill a hand-written program's map; 1 drops, 0 passes. */
export function fillKeys(keys: readonly (readonly number[])[]): string {
  const lines = keys.map((key, index) => {
    const value = hex([index % 2 === 0 ? 1 : 0, 0, 0, 0]);
    return `map update pinned MAPS/keys key hex ${hex(key)} value hex ${value}`;
  });
  return `${lines.join('\n')}\n`;
}
