import type { DecisionNode } from '../../ir/decision-nodes.ts';
import type { Dialect } from './dialect.ts';
import type { Hook } from './hook.ts';
import { type AccessSize, type Insn, ldx, type Reg, r6, r7, r8, r9, r10, stx } from './insn.ts';
import type { SetMap } from './set-map.ts';
import type { PlacedTable } from './tree-format.ts';

/**
 * Registers of a program: `nh` and `th` point at the headers, `end` behind the frame, `proto` is
 * `meta l4proto`; r0-r5 are free between any two questions.
 */
export const NH = r6;
export const TH = r7;
export const END = r8;
export const PROTO = r9;

/** What a program keeps on its stack, when it needs it. */
export type SlotName =
  /** Where the frame starts. */
  | 'frame'
  /** `meta protocol`. */
  | 'protocol'
  /** `meta nfproto`. */
  | 'nfproto'
  /** Length at ingress: all behind the Ethernet header and one tag. */
  | 'ingress-length'
  /** Length of the IP packet. */
  | 'l3-length'
  /** Bytes of the IP packet behind the transport header's start. */
  | 'transport-left'
  /** 1 when an IPv6 packet has a fragment header. */
  | 'fragment'
  /** Zero, but the verifier does not know. */
  | 'zero'
  /** What tables are asked for; see ask-table.ts. */
  | 'generation'
  /** Registers that the walk through a table's trees takes. */
  | 'saved-proto'
  | 'saved-end';

/** Labels every program has. */
export const CONTINUE = 'continue';
export const DROP = 'drop';
export const FLUSH = 'flush';

/** A data section under construction; all of it 8-byte aligned. */
export interface DataSection {
  readonly chunks: Uint8Array[];
  bytes: number;
  readonly known: Map<object, number>;
}

/** Instructions under construction, in order. */
export interface Emitter {
  readonly insns: Insn[];
  readonly slots: Map<SlotName, number>;
  /** Stack bytes given away so far, from the top. */
  stack: number;
  labels: number;
  readonly rodata: DataSection;
  /** Tables; see tree-data.ts. */
  readonly trees: DataSection;
  /** What is in there, in order. */
  readonly tables: PlacedTable[];
  readonly dialect: Dialect;
  readonly hook: Hook;
  /** Sets that became hash maps, by what they hold and how their keys stand; null: they cannot. */
  readonly sets: Map<object, Map<string, SetMap | null>>;
  /** Those that the program looks into, in order of first use. */
  readonly maps: Set<SetMap>;
  /** Where all keys start, from r10; null before it is given away. See `reserveKey`. */
  key: number | null;
}

export function openEmitter(dialect: Dialect, hook: Hook): Emitter {
  return {
    insns: [],
    slots: new Map(),
    stack: 0,
    labels: 0,
    rodata: { chunks: [], bytes: 0, known: new Map() },
    trees: { chunks: [], bytes: 0, known: new Map() },
    tables: [],
    dialect,
    hook,
    sets: new Map(),
    maps: new Set(),
    key: null,
  };
}

export function emit(emitter: Emitter, ...insns: readonly Insn[]): void {
  for (const insn of insns) emitter.insns.push(insn);
}

export function newLabel(emitter: Emitter, stem: string): string {
  emitter.labels += 1;
  return `${stem}.${emitter.labels}`;
}

/**
 * Gives away `count` 8-byte words of stack; returns the lowest one's offset from r10. More than a
 * program has is refused once all of it is known, with the profile's other limits.
 */
export function reserve(emitter: Emitter, count: number): number {
  emitter.stack += 8 * count;
  return -emitter.stack;
}

/**
 * Gives the place for keys away: `words` of 8 bytes, no two keys are alive at once. It comes last,
 * because the NFP reaches the lowest stack bytes (and a map's key there) with fewer instructions.
 */
export function reserveKey(emitter: Emitter, words: number): void {
  emitter.key = reserve(emitter, words);
}

/** The slot's offset from r10; given away at first use. */
export function slot(emitter: Emitter, name: SlotName): number {
  let offset = emitter.slots.get(name);
  if (offset === undefined) {
    offset = reserve(emitter, 1);
    emitter.slots.set(name, offset);
  }
  return offset;
}

export function store(emitter: Emitter, name: SlotName, from: Reg, size: AccessSize = 8): void {
  emit(emitter, stx(size, r10, slot(emitter, name), from));
}

export function fetch(emitter: Emitter, into: Reg, name: SlotName, size: AccessSize = 8): void {
  emit(emitter, ldx(size, into, r10, slot(emitter, name)));
}

/** Adds a block to the data section once per `key`; returns its byte offset. */
export function addData(section: DataSection, key: object, make: () => Uint8Array): number {
  const known = section.known.get(key);
  if (known !== undefined) return known;
  const block = make();
  const padded = new Uint8Array(Math.ceil(block.length / 8) * 8);
  padded.set(block);
  const offset = section.bytes;
  section.chunks.push(padded);
  section.bytes += padded.length;
  section.known.set(key, offset);
  return offset;
}

export function nodeLabel(node: DecisionNode): string {
  if (node.kind !== 'leaf') return `n${node.id}`;
  return node.verdict === 'drop' ? DROP : CONTINUE;
}
