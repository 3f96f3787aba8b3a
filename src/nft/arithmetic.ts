import type { Operand } from '../ir/ruleset.ts';
import { ones } from '../support/bits.ts';

/** `c` as seen before the operand's shift, or null when bits of it have no place there. */
function unshift(operand: Operand, c: bigint): bigint | null {
  const { shift } = operand;
  if (shift >= 0) {
    const low = BigInt(shift);
    return (c >> low) << low === c ? c >> low : null;
  }
  return c << BigInt(-shift);
}

/** `operand & c`. */
export function applyAnd(operand: Operand, c: bigint): Operand {
  const { shift } = operand;
  const back = shift >= 0 ? c >> BigInt(shift) : c << BigInt(-shift);
  return { ...operand, mask: operand.mask & back, xor: operand.xor & back };
}

/** `operand ^ c`; null when bits of `c` have been shifted in from outside of the field. */
export function applyXor(operand: Operand, c: bigint): Operand | null {
  const back = unshift(operand, c);
  if (back === null || back > ones(operand.field.width)) return null;
  return { ...operand, xor: operand.xor ^ back };
}

/** Shifts further (positive is left), dropping the bits that the kernel's register drops. */
export function applyShift(operand: Operand, by: number): Operand | null {
  const width: number = operand.field.width;
  // nft computes shifts in registers of whole bytes, so bits leave a narrower field only there.
  if (width % 8 !== 0 && by > 0) return null;
  const before = operand.shift;
  const all = ones(width);
  const visible = before >= 0 ? all >> BigInt(before) : (all >> BigInt(-before)) << BigInt(-before);
  const kept = { ...operand, mask: operand.mask & visible, xor: operand.xor & visible };
  const after = before + by;
  const low = after < 0 ? (all >> BigInt(-after)) << BigInt(-after) : all >> BigInt(after);
  return { ...kept, mask: kept.mask & low, xor: kept.xor & low, shift: after };
}
