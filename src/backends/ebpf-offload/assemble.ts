import { type Result, succeed } from '../../support/diagnostics.ts';
import { bridgeFarJumps } from './far-jumps.ts';
import type { Insn, Provenance, RealInsn, Source } from './insn.ts';
import { type FarJumps, isNear, jumpDistance, type Layout } from './layout.ts';
import {
  ALU_CODE,
  CALL,
  CLASS,
  END,
  EXIT,
  JA,
  JA32,
  JUMP_CODE,
  LD_IMM64,
  MODE_ATOMIC,
  MODE_MEM,
  SIZE_CODE,
  SLOT_BYTES,
  X,
} from './opcodes.ts';

/** A two-slot load that the loader completes: the address of a map, or of a data section's byte. */
export interface Relocation {
  /** Slot of the load's first half. */
  readonly insnIndex: number;
  readonly map: string;
  readonly kind: 'map' | 'value';
  /** Byte offset inside the section; 0 for `map`. Also encoded as the first half's constant. */
  readonly offset: number;
}

/** An encoded program. */
export interface Assembly {
  readonly code: Uint8Array;
  readonly relocations: readonly Relocation[];
  /** One element a slot: where it comes from. */
  readonly lines: readonly Provenance[];
}

export interface AssembleOptions {
  readonly farJumps: FarJumps;
}

/** The fields of one slot. */
interface Slot {
  readonly code: number;
  readonly dst: number;
  readonly src: number;
  readonly offset: number;
  readonly imm: number;
}

/*
 * struct bpf_insn (include/uapi/linux/bpf.h), little-endian:
 *
 *   byte 0     byte 1        bytes 2-3       bytes 4-7
 *  +--------+------+------+---------------+-------------------------------+
 *  | opcode | src:4| dst:4|  offset: s16  |           imm: s32            |
 *  +--------+------+------+---------------+-------------------------------+
 *            7..4   3..0
 *
 * ld_imm64 takes two: opcode 0x18 with the low half in imm, then opcode 0 with the high half.
 */
function writeSlot(view: DataView, slot: number, fields: Slot): void {
  const at = slot * SLOT_BYTES;
  if (fields.offset < -0x8000 || fields.offset > 0x7fff) {
    throw new Error(`bug: insn ${slot}: offset ${fields.offset} does not fit 16 bits`);
  }
  view.setUint8(at, fields.code);
  view.setUint8(at + 1, (fields.src << 4) | fields.dst);
  view.setInt16(at + 2, fields.offset, true);
  view.setInt32(at + 4, fields.imm, true);
}

function withSource(code: number, dst: number, src: Source, offset: number): Slot {
  return src.kind === 'reg'
    ? { code: code | X, dst, src: src.reg, offset, imm: 0 }
    : { code, dst, src: 0, offset, imm: src.value };
}

/** First (or only) slot; `distance` is what a jump adds to the slot after it, else 0. */
function encode(insn: RealInsn, distance: number): Slot {
  switch (insn.kind) {
    case 'alu': {
      const code = (insn.width === 64 ? CLASS.alu64 : CLASS.alu) | ALU_CODE[insn.op];
      return withSource(code, insn.dst, insn.src, 0);
    }
    case 'endian': {
      const code = insn.order === 'be' ? END | X : END;
      return { code, dst: insn.dst, src: 0, offset: 0, imm: insn.bits };
    }
    case 'ld_imm64':
      return {
        code: LD_IMM64,
        dst: insn.dst,
        src: 0,
        offset: 0,
        imm: Number(insn.value & LOW) | 0,
      };
    case 'ld_map':
      return { code: LD_IMM64, dst: insn.dst, src: 0, offset: 0, imm: 0 };
    case 'ld_map_value':
      return { code: LD_IMM64, dst: insn.dst, src: 0, offset: 0, imm: insn.offset };
    case 'ldx': {
      const code = CLASS.ldx | MODE_MEM | SIZE_CODE[insn.size];
      return { code, dst: insn.dst, src: insn.src, offset: insn.offset, imm: 0 };
    }
    case 'stx': {
      const code = CLASS.stx | MODE_MEM | SIZE_CODE[insn.size];
      return { code, dst: insn.dst, src: insn.src, offset: insn.offset, imm: 0 };
    }
    case 'st': {
      const code = CLASS.st | MODE_MEM | SIZE_CODE[insn.size];
      return { code, dst: insn.dst, src: 0, offset: insn.offset, imm: insn.value };
    }
    case 'atomic_add': {
      const code = CLASS.stx | MODE_ATOMIC | SIZE_CODE[insn.size];
      return { code, dst: insn.dst, src: insn.src, offset: insn.offset, imm: 0 };
    }
    case 'jump': {
      const code = (insn.width === 64 ? CLASS.jmp : CLASS.jmp32) | JUMP_CODE[insn.op];
      return withSource(code, insn.dst, insn.src, distance);
    }
    case 'ja':
      return isNear(distance)
        ? { code: JA, dst: 0, src: 0, offset: distance, imm: 0 }
        : { code: JA32, dst: 0, src: 0, offset: 0, imm: distance };
    case 'call':
      return { code: CALL, dst: 0, src: 0, offset: 0, imm: insn.helper };
    case 'exit':
      return { code: EXIT, dst: 0, src: 0, offset: 0, imm: 0 };
    case 'raw':
      return insn;
  }
}

const LOW = 0xffffffffn;

/** Second slot of a two-slot load: only the high half of the constant. */
function encodeHigh(insn: RealInsn): Slot {
  const imm = insn.kind === 'ld_imm64' ? Number(insn.value >> 32n) | 0 : 0;
  return { code: 0, dst: 0, src: 0, offset: 0, imm };
}

function relocationOf(insn: RealInsn, insnIndex: number): Relocation | null {
  if (insn.kind === 'ld_map') return { insnIndex, map: insn.map, kind: 'map', offset: 0 };
  if (insn.kind === 'ld_map_value') {
    return { insnIndex, map: insn.map, kind: 'value', offset: insn.offset };
  }
  return null;
}

function encodeAll(insns: readonly Insn[], layout: Layout): Assembly {
  const total = layout.slots[insns.length] ?? 0;
  const code = new Uint8Array(total * SLOT_BYTES);
  const view = new DataView(code.buffer);
  const relocations: Relocation[] = [];
  const lines: Provenance[] = [];
  insns.forEach((insn, index) => {
    if (insn.kind === 'label') return;
    const slot = layout.slots[index] ?? 0;
    writeSlot(view, slot, encode(insn, jumpDistance(layout, index)));
    lines.push(insn);
    if ((layout.slots[index + 1] ?? 0) - slot === 2) {
      writeSlot(view, slot + 1, encodeHigh(insn));
      lines.push(insn);
    }
    const relocation = relocationOf(insn, slot);
    if (relocation !== null) relocations.push(relocation);
  });
  return { code, relocations, lines };
}

/**
 * Encodes a program. Jumps beyond 16 bits are bridged as `farJumps` says; the only diagnostic is
 * `ebpf/jump-too-far`. Labels without a jump are fine; duplicate and undefined ones are bugs.
 */
export function assemble(insns: readonly Insn[], options: AssembleOptions): Result<Assembly> {
  const bridged = bridgeFarJumps(insns, options.farJumps);
  if (!bridged.ok) return bridged;
  return succeed(encodeAll(bridged.value.insns, bridged.value.layout));
}
