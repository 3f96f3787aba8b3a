import type { AluOp, JumpOp } from './insn.ts';

/*
 * 64-bit arithmetic on two 32-bit halves, each as a JavaScript integer in -2^31..2^31-1: several
 * times faster than BigInt. Meaning: Documentation/bpf/standardization/instruction-set.rst.
 */

/** All registers' halves; entry i of both is register i. What is stored is taken modulo 2^32. */
export interface Registers {
  readonly low: Int32Array;
  readonly high: Int32Array;
}

/** `registers[dst] = (aHigh, aLow) op (bHigh, bLow)`; narrow operations see only the low halves. */
export type Alu = (
  registers: Registers,
  dst: number,
  aLow: number,
  aHigh: number,
  bLow: number,
  bHigh: number,
) => void;

/** Whether the comparison holds. */
export type Condition = (aLow: number, aHigh: number, bLow: number, bHigh: number) => boolean;

/** 2^32, the weight of the high half. */
const HALF = 0x1_0000_0000;

function set({ low, high }: Registers, dst: number, newLow: number, newHigh: number): void {
  low[dst] = newLow;
  high[dst] = newHigh;
}

/** Upper half of the product of two unsigned 32-bit numbers. */
function multiplyHigh(a: number, b: number): number {
  const aUpper = a >>> 16;
  const aLower = a & 0xffff;
  const bUpper = b >>> 16;
  const bLower = b & 0xffff;
  const middle = aUpper * bLower + ((aLower * bLower) >>> 16);
  const cross = aLower * bUpper + (middle & 0xffff);
  return aUpper * bUpper + (middle >>> 16) + (cross >>> 16);
}

function toBigInt(low: number, high: number): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

function setBigInt(registers: Registers, dst: number, value: bigint): void {
  set(registers, dst, Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn));
}

/** 64-bit operations. */
export const WIDE_ALU: Readonly<Record<AluOp, Alu>> = {
  mov: (r, d, _aLow, _aHigh, bLow, bHigh) => set(r, d, bLow, bHigh),
  add: (r, d, aLow, aHigh, bLow, bHigh) => {
    const sum = (aLow >>> 0) + (bLow >>> 0);
    set(r, d, sum, aHigh + bHigh + (sum >= HALF ? 1 : 0));
  },
  sub: (r, d, aLow, aHigh, bLow, bHigh) => {
    set(r, d, aLow - bLow, aHigh - bHigh - (aLow >>> 0 < bLow >>> 0 ? 1 : 0));
  },
  mul: (r, d, aLow, aHigh, bLow, bHigh) => {
    const cross = Math.imul(aLow, bHigh) + Math.imul(aHigh, bLow);
    set(r, d, Math.imul(aLow, bLow), multiplyHigh(aLow, bLow) + cross);
  },
  div: (r, d, aLow, aHigh, bLow, bHigh) => {
    if (bLow === 0 && bHigh === 0) return set(r, d, 0, 0);
    setBigInt(r, d, toBigInt(aLow, aHigh) / toBigInt(bLow, bHigh));
  },
  mod: (r, d, aLow, aHigh, bLow, bHigh) => {
    if (bLow === 0 && bHigh === 0) return set(r, d, aLow, aHigh);
    setBigInt(r, d, toBigInt(aLow, aHigh) % toBigInt(bLow, bHigh));
  },
  or: (r, d, aLow, aHigh, bLow, bHigh) => set(r, d, aLow | bLow, aHigh | bHigh),
  and: (r, d, aLow, aHigh, bLow, bHigh) => set(r, d, aLow & bLow, aHigh & bHigh),
  xor: (r, d, aLow, aHigh, bLow, bHigh) => set(r, d, aLow ^ bLow, aHigh ^ bHigh),
  neg: (r, d, aLow, aHigh) => set(r, d, -aLow, aLow === 0 ? -aHigh : ~aHigh),
  lsh: (r, d, aLow, aHigh, bLow) => {
    const by = bLow & 63;
    if (by === 0) set(r, d, aLow, aHigh);
    else if (by >= 32) set(r, d, 0, aLow << (by - 32));
    else set(r, d, aLow << by, (aHigh << by) | (aLow >>> (32 - by)));
  },
  rsh: (r, d, aLow, aHigh, bLow) => {
    const by = bLow & 63;
    if (by === 0) set(r, d, aLow, aHigh);
    else if (by >= 32) set(r, d, aHigh >>> (by - 32), 0);
    else set(r, d, (aLow >>> by) | (aHigh << (32 - by)), aHigh >>> by);
  },
  arsh: (r, d, aLow, aHigh, bLow) => {
    const by = bLow & 63;
    if (by === 0) set(r, d, aLow, aHigh);
    else if (by >= 32) set(r, d, aHigh >> (by - 32), aHigh >> 31);
    else set(r, d, (aLow >>> by) | (aHigh << (32 - by)), aHigh >> by);
  },
};

/** 32-bit operations; the upper half becomes zero. */
export const NARROW_ALU: Readonly<Record<AluOp, Alu>> = {
  mov: (r, d, _aLow, _aHigh, bLow) => set(r, d, bLow, 0),
  add: (r, d, aLow, _aHigh, bLow) => set(r, d, aLow + bLow, 0),
  sub: (r, d, aLow, _aHigh, bLow) => set(r, d, aLow - bLow, 0),
  mul: (r, d, aLow, _aHigh, bLow) => set(r, d, Math.imul(aLow, bLow), 0),
  div: (r, d, aLow, _aHigh, bLow) => {
    set(r, d, bLow === 0 ? 0 : Math.floor((aLow >>> 0) / (bLow >>> 0)), 0);
  },
  mod: (r, d, aLow, _aHigh, bLow) => {
    set(r, d, bLow === 0 ? aLow : (aLow >>> 0) % (bLow >>> 0), 0);
  },
  or: (r, d, aLow, _aHigh, bLow) => set(r, d, aLow | bLow, 0),
  and: (r, d, aLow, _aHigh, bLow) => set(r, d, aLow & bLow, 0),
  xor: (r, d, aLow, _aHigh, bLow) => set(r, d, aLow ^ bLow, 0),
  neg: (r, d, aLow) => set(r, d, -aLow, 0),
  lsh: (r, d, aLow, _aHigh, bLow) => set(r, d, aLow << (bLow & 31), 0),
  rsh: (r, d, aLow, _aHigh, bLow) => set(r, d, aLow >>> (bLow & 31), 0),
  arsh: (r, d, aLow, _aHigh, bLow) => set(r, d, aLow >> (bLow & 31), 0),
};

function isBelow(aLow: number, aHigh: number, bLow: number, bHigh: number): boolean {
  return aHigh === bHigh ? aLow >>> 0 < bLow >>> 0 : aHigh >>> 0 < bHigh >>> 0;
}

function isLess(aLow: number, aHigh: number, bLow: number, bHigh: number): boolean {
  return aHigh === bHigh ? aLow >>> 0 < bLow >>> 0 : aHigh < bHigh;
}

/** 64-bit comparisons. */
export const WIDE_CONDITION: Readonly<Record<JumpOp, Condition>> = {
  eq: (aLow, aHigh, bLow, bHigh) => aLow === bLow && aHigh === bHigh,
  ne: (aLow, aHigh, bLow, bHigh) => aLow !== bLow || aHigh !== bHigh,
  lt: (aLow, aHigh, bLow, bHigh) => isBelow(aLow, aHigh, bLow, bHigh),
  ge: (aLow, aHigh, bLow, bHigh) => !isBelow(aLow, aHigh, bLow, bHigh),
  gt: (aLow, aHigh, bLow, bHigh) => isBelow(bLow, bHigh, aLow, aHigh),
  le: (aLow, aHigh, bLow, bHigh) => !isBelow(bLow, bHigh, aLow, aHigh),
  slt: (aLow, aHigh, bLow, bHigh) => isLess(aLow, aHigh, bLow, bHigh),
  sge: (aLow, aHigh, bLow, bHigh) => !isLess(aLow, aHigh, bLow, bHigh),
  sgt: (aLow, aHigh, bLow, bHigh) => isLess(bLow, bHigh, aLow, aHigh),
  sle: (aLow, aHigh, bLow, bHigh) => !isLess(bLow, bHigh, aLow, aHigh),
  set: (aLow, aHigh, bLow, bHigh) => (aLow & bLow) !== 0 || (aHigh & bHigh) !== 0,
};

/** 32-bit comparisons. */
export const NARROW_CONDITION: Readonly<Record<JumpOp, Condition>> = {
  eq: (aLow, _aHigh, bLow) => aLow === bLow,
  ne: (aLow, _aHigh, bLow) => aLow !== bLow,
  lt: (aLow, _aHigh, bLow) => aLow >>> 0 < bLow >>> 0,
  ge: (aLow, _aHigh, bLow) => aLow >>> 0 >= bLow >>> 0,
  gt: (aLow, _aHigh, bLow) => aLow >>> 0 > bLow >>> 0,
  le: (aLow, _aHigh, bLow) => aLow >>> 0 <= bLow >>> 0,
  slt: (aLow, _aHigh, bLow) => aLow < bLow,
  sge: (aLow, _aHigh, bLow) => aLow >= bLow,
  sgt: (aLow, _aHigh, bLow) => aLow > bLow,
  sle: (aLow, _aHigh, bLow) => aLow <= bLow,
  set: (aLow, _aHigh, bLow) => (aLow & bLow) !== 0,
};

/** Bytes of a 32-bit number the other way round. */
export function swap32(value: number): number {
  return (
    (value << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | ((value >>> 24) & 0xff)
  );
}
