import type { Relocation } from './assemble.ts';
import type { AccessSize, Insn, Provenance, RealInsn, RegNumber, Source } from './insn.ts';
import { isNear } from './layout.ts';
import {
  ALU_NAME,
  CALL,
  CLASS,
  END,
  EXIT,
  JA,
  JA32,
  JUMP_NAME,
  LD_IMM64,
  MODE_ATOMIC,
  MODE_MEM,
  SIZE_BYTES,
  SLOT_BYTES,
  X,
} from './opcodes.ts';

/** What is known of a program beside its bytes. */
export interface DisassembleOptions {
  readonly relocations: readonly Relocation[];
  /** One element a slot, as `assemble` gives them; without it nothing has an origin. */
  readonly lines: readonly Provenance[];
}

interface Slot {
  readonly code: number;
  readonly dst: number;
  readonly src: number;
  readonly offset: number;
  readonly imm: number;
}

const none: Provenance = { rule: null, note: null };

function readSlot(view: DataView, slot: number): Slot {
  const at = slot * SLOT_BYTES;
  const regs = view.getUint8(at + 1);
  return {
    code: view.getUint8(at),
    dst: regs & 0x0f,
    src: regs >> 4,
    offset: view.getInt16(at + 2, true),
    imm: view.getInt32(at + 4, true),
  };
}

function isRegister(number: number): number is RegNumber {
  return number <= 10;
}

/** The second operand, or null when the field that is not used holds something. */
function readSource({ code, src, imm }: Slot): Source | null {
  if ((code & X) === 0) return src === 0 ? { kind: 'imm', value: imm } : null;
  return isRegister(src) && imm === 0 ? { kind: 'reg', reg: src } : null;
}

function readAlu(slot: Slot, dst: RegNumber, from: Provenance): RealInsn | null {
  const op = ALU_NAME.get(slot.code & 0xf0);
  const src = readSource(slot);
  if (op === undefined || src === null || slot.offset !== 0) return null;
  if (op === 'neg' && (src.kind === 'reg' || src.value !== 0)) return null;
  const width = (slot.code & 0x07) === CLASS.alu64 ? 64 : 32;
  return { kind: 'alu', op, width, dst, src, rule: from.rule, note: from.note };
}

function readEndian(slot: Slot, dst: RegNumber, from: Provenance): RealInsn | null {
  const { imm } = slot;
  if (slot.src !== 0 || slot.offset !== 0 || (imm !== 16 && imm !== 32 && imm !== 64)) return null;
  const order = slot.code === END ? 'le' : 'be';
  return { kind: 'endian', order, bits: imm, dst, rule: from.rule, note: from.note };
}

function readStore(
  slot: Slot,
  size: AccessSize,
  dst: RegNumber,
  src: RegNumber,
  from: Provenance,
): RealInsn | null {
  const { offset, imm } = slot;
  const { rule, note } = from;
  if (slot.imm !== 0) return null;
  switch (slot.code & 0xe0) {
    case MODE_MEM:
      return { kind: 'stx', size, dst, offset, src, rule, note };
    case MODE_ATOMIC:
      if ((size !== 4 && size !== 8) || imm !== 0) return null;
      return { kind: 'atomic_add', size, dst, offset, src, rule, note };
    default:
      return null;
  }
}

function readMemory(slot: Slot, dst: RegNumber, from: Provenance): RealInsn | null {
  const { src, offset, imm } = slot;
  const { rule, note } = from;
  const size = SIZE_BYTES.get(slot.code & 0x18);
  if (size === undefined || !isRegister(src)) return null;
  const isPlain = (slot.code & 0xe0) === MODE_MEM;
  switch (slot.code & 0x07) {
    case CLASS.ldx:
      return isPlain && imm === 0 ? { kind: 'ldx', size, dst, src, offset, rule, note } : null;
    case CLASS.st:
      return isPlain && src === 0
        ? { kind: 'st', size, dst, offset, value: imm, rule, note }
        : null;
    case CLASS.stx:
      return readStore(slot, size, dst, src, from);
    default:
      return null;
  }
}

/** A two-slot load, or null when it is none; `relocation` is the one at this slot. */
function readWide(
  slot: Slot,
  high: Slot | null,
  dst: RegNumber,
  relocation: Relocation | undefined,
  from: Provenance,
): RealInsn | null {
  const { rule, note } = from;
  if (high === null || high.code !== 0 || high.dst !== 0 || high.src !== 0 || high.offset !== 0) {
    return null;
  }
  if (slot.src !== 0 || slot.offset !== 0) return null;
  if (relocation === undefined) {
    const value = (BigInt(high.imm >>> 0) << 32n) | BigInt(slot.imm >>> 0);
    return { kind: 'ld_imm64', dst, value, rule, note };
  }
  if (high.imm !== 0 || slot.imm !== relocation.offset) return null;
  const { map, offset } = relocation;
  return relocation.kind === 'map'
    ? { kind: 'ld_map', dst, map, rule, note }
    : { kind: 'ld_map_value', dst, map, offset, rule, note };
}

/** Slots to jump over, or null for what is no jump in its canonical form. */
function readDistance({ code, dst, src, offset, imm }: Slot): number | null {
  if (code === JA) return dst === 0 && src === 0 && imm === 0 ? offset : null;
  if (code === JA32) {
    return dst === 0 && src === 0 && offset === 0 && !isNear(imm) ? imm : null;
  }
  const isConditional = (code & 0x07) === CLASS.jmp || (code & 0x07) === CLASS.jmp32;
  return isConditional && JUMP_NAME.has(code & 0xf0) ? offset : null;
}

function readJump(slot: Slot, dst: RegNumber, target: string, from: Provenance): RealInsn | null {
  const { rule, note } = from;
  if (slot.code === JA || slot.code === JA32) return { kind: 'ja', target, rule, note };
  const op = JUMP_NAME.get(slot.code & 0xf0);
  const src = readSource(slot);
  if (op === undefined || src === null) return null;
  const width = (slot.code & 0x07) === CLASS.jmp ? 64 : 32;
  return { kind: 'jump', op, width, dst, src, target, rule, note };
}

/** Everything of one slot that does not jump, or null when this form has no name. */
function readPlain(slot: Slot, dst: RegNumber, from: Provenance): RealInsn | null {
  const { rule, note } = from;
  const isBare = slot.dst === 0 && slot.src === 0 && slot.offset === 0;
  if (slot.code === EXIT) return isBare && slot.imm === 0 ? { kind: 'exit', rule, note } : null;
  if (slot.code === CALL) return isBare ? { kind: 'call', helper: slot.imm, rule, note } : null;
  if (slot.code === END || slot.code === (END | X)) return readEndian(slot, dst, from);
  switch (slot.code & 0x07) {
    case CLASS.alu:
    case CLASS.alu64:
      return readAlu(slot, dst, from);
    case CLASS.ldx:
    case CLASS.st:
    case CLASS.stx:
      return readMemory(slot, dst, from);
    default:
      return null;
  }
}

/** Name of the label at a slot. */
function labelName(slot: number): string {
  return `L${slot}`;
}

/**
 * The instructions of an encoded program, with a label `L<slot>` wherever a jump goes. Assembling
 * them gives the same bytes again: what has no name, or unused fields that are not zero, or jumps
 * nowhere, comes as `raw`.
 */
export function disassemble(
  code: Uint8Array,
  { relocations, lines }: DisassembleOptions = { relocations: [], lines: [] },
): readonly Insn[] {
  const view = new DataView(code.buffer, code.byteOffset, code.byteLength);
  const total = Math.floor(code.length / SLOT_BYTES);
  const loads = new Map(relocations.map((relocation) => [relocation.insnIndex, relocation]));
  const starts = findStarts(view, total, loads);
  const found: { readonly slot: number; readonly insn: RealInsn }[] = [];
  const wanted = new Set<number>();
  for (let slot = 0; slot < total; slot += 1) {
    if (starts[slot] === 0) continue;
    const fields = readSlot(view, slot);
    const { rule, note } = lines[slot] ?? none;
    const raw: RealInsn = { kind: 'raw', ...fields, rule, note };
    const from = { rule, note };
    const distance = readDistance(fields);
    const target = distance === null ? null : slot + 1 + distance;
    let insn: RealInsn | null = null;
    if (!isRegister(fields.dst)) {
      insn = null;
    } else if (starts[slot] === 2) {
      insn = readWide(fields, readSlot(view, slot + 1), fields.dst, loads.get(slot), from);
    } else if (target === null) {
      insn = readPlain(fields, fields.dst, from);
    } else if (starts[target] !== undefined && starts[target] !== 0) {
      insn = readJump(fields, fields.dst, labelName(target), from);
      if (insn !== null) wanted.add(target);
    }
    found.push({ slot, insn: insn ?? raw });
  }
  return found.flatMap(({ slot, insn }): readonly Insn[] =>
    wanted.has(slot) ? [{ kind: 'label', name: labelName(slot) }, insn] : [insn],
  );
}

/** For each slot how many slots the instruction that starts there takes; 0 inside one. */
function findStarts(
  view: DataView,
  total: number,
  loads: ReadonlyMap<number, Relocation>,
): Uint8Array {
  const starts = new Uint8Array(total).fill(1);
  for (let slot = 0; slot < total; slot += 1) {
    const fields = readSlot(view, slot);
    if (fields.code !== LD_IMM64 || !isRegister(fields.dst)) continue;
    const high = slot + 1 < total ? readSlot(view, slot + 1) : null;
    if (readWide(fields, high, fields.dst, loads.get(slot), none) === null) continue;
    starts[slot] = 2;
    starts[slot + 1] = 0;
    slot += 1;
  }
  return starts;
}
