import type { ViewName } from '../../ir/classifier.ts';
import { type Field, FRAME, fieldEnd, fieldKey, META } from '../../ir/fields.ts';
import type { Operand } from '../../ir/ruleset.ts';
import { ones } from '../../support/bits.ts';
import { type Emitter, emit, fetch, NH, PROTO, TH } from './emitter.ts';
import {
  type AccessSize,
  and,
  and32,
  be,
  ldImm64,
  ldx,
  lsh,
  mov,
  or,
  type Reg,
  r0,
  r5,
  rsh,
  xor,
} from './insn.ts';

/** The register that points at a header; `ll` is fetched from the stack into r5. */
export function baseRegister(emitter: Emitter, base: Exclude<Field['base'], 'meta'>): Reg {
  if (base === 'nh') return NH;
  if (base === 'th') return TH;
  fetch(emitter, r5, 'frame');
  return r5;
}

/** One load of 1, 2, 4 or 8 bytes. */
export interface Piece {
  readonly offset: number;
  readonly size: AccessSize;
}

/** Splits `length` bytes at `offset` into loads, largest first. */
export function pieces(offset: number, length: number, largest: AccessSize): Piece[] {
  const result: Piece[] = [];
  let at = offset;
  let left = length;
  for (const size of [8, 4, 2, 1] as const) {
    while (size <= largest && left >= size) {
      result.push({ offset: at, size });
      at += size;
      left -= size;
    }
  }
  return result;
}

function toHostOrder(emitter: Emitter, size: AccessSize, register: Reg): void {
  if (size === 2) emit(emitter, be(16, register));
  else if (size === 4) emit(emitter, be(32, register));
  else if (size === 8) emit(emitter, be(64, register));
}

/** `register &= mask`, whatever its width; uses r0 for masks that do not fit an instruction. */
export function andMask(emitter: Emitter, register: Reg, mask: bigint): void {
  if (mask <= 0x7fffffffn) emit(emitter, and(register, Number(mask)));
  else if (mask <= 0xffffffffn) emit(emitter, and32(register, Number(mask)));
  else if (mask !== ones(64)) emit(emitter, ldImm64(r0, mask), and(register, r0));
}

/** `length` <= 8 bytes behind `base` as a number; `into` must not be r0. */
function loadBytes(emitter: Emitter, into: Reg, base: Reg, offset: number, length: number): void {
  const [first, ...rest] = pieces(offset, length, 8);
  if (first === undefined) throw new Error('bug: a load of no bytes');
  const last = rest.at(-1);
  // The base register may be `into` itself: then the last load must come from it.
  if (last !== undefined && base === into) throw new Error('bug: load over its own base');
  emit(emitter, ldx(first.size, into, base, first.offset));
  toHostOrder(emitter, first.size, into);
  for (const piece of rest) {
    emit(emitter, lsh(into, piece.size * 8), ldx(piece.size, r0, base, piece.offset));
    toHostOrder(emitter, piece.size, r0);
    emit(emitter, or(into, r0));
  }
}

/** Metadata a program has at hand. */
function loadMeta(emitter: Emitter, into: Reg, field: Field, view: ViewName): void {
  switch (fieldKey(field)) {
    case META.l4proto.name:
      emit(emitter, mov(into, PROTO));
      return;
    case META.protocol.name:
      fetch(emitter, into, 'protocol');
      return;
    case META.nfproto.name:
      fetch(emitter, into, 'nfproto');
      return;
    case META.length.name:
      fetch(emitter, into, view === 'ingress' ? 'ingress-length' : 'l3-length');
      return;
    case FRAME.fragment.name:
      fetch(emitter, into, 'fragment');
      return;
    default:
      throw new Error(`bug: ${field.name} is not at hand in a program`);
  }
}

/**
 * A field of at most 64 bits, or bits `from`..`from + width` of a wider one, as a number in host
 * order. `into` is not r0 or r5; r0 and r5 are lost.
 */
export function loadField(
  emitter: Emitter,
  into: Reg,
  field: Field,
  view: ViewName,
  from = 0,
  width: number = field.width,
): void {
  if (field.base === 'meta') {
    loadMeta(emitter, into, field, view);
    return;
  }
  const start = field.offset + from;
  const first = start >> 3;
  const length = Math.ceil((start + width) / 8) - first;
  if (length > 8) throw new Error(`bug: ${field.name} does not fit a register`);
  loadBytes(emitter, into, baseRegister(emitter, field.base), first, length);
  const below = (first + length) * 8 - (start + width);
  if (below > 0) emit(emitter, rsh(into, below));
  if (width < length * 8 - below) andMask(emitter, into, ones(width));
}

/** An operand of at most 64 bits; `into` is not r0 or r5. */
export function loadOperand(emitter: Emitter, into: Reg, operand: Operand, view: ViewName): void {
  const { field, mask, shift } = operand;
  loadField(emitter, into, field, view);
  if (mask !== ones(field.width)) andMask(emitter, into, mask);
  if (operand.xor !== 0n) emit(emitter, ldImm64(r0, operand.xor), xor(into, r0));
  if (shift > 0) {
    emit(emitter, lsh(into, shift));
    andMask(emitter, into, ones(field.width));
  } else if (shift < 0) emit(emitter, rsh(into, -shift));
}

/** Deepest byte a field needs behind its base. */
export function depthOf(field: Field): number {
  return field.base === 'meta' ? 0 : fieldEnd(field);
}
