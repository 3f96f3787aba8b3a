import type { AluInsn, AluOp, Insn, RegNumber, Source } from './insn.ts';
import { SKB, XDP_MD } from './insn.ts';
import { endsFlow, layOut } from './layout.ts';

/**
 * What a register or a stack word holds, as far as it is known before an instruction runs. `offset`
 * is null where it is not one constant; `base` tells packet pointers apart whose distance is unknown,
 * `most` is how far behind the frame's start they may be.
 */
export type Value =
  | { readonly kind: 'nothing' }
  | { readonly kind: 'number'; readonly min: number; readonly max: number }
  | { readonly kind: 'context' }
  | {
      readonly kind: 'packet';
      readonly base: string;
      readonly offset: number;
      readonly most: number;
    }
  | { readonly kind: 'packet-end' }
  | { readonly kind: 'stack'; readonly offset: number | null }
  | { readonly kind: 'map'; readonly map: string }
  | { readonly kind: 'map-value'; readonly map: string; readonly offset: number | null }
  /** One kind on one way, another on another. */
  | { readonly kind: 'mixed' };

/** Everything known before one instruction. */
export interface Known {
  /** r0 to r10. */
  readonly registers: readonly Value[];
  /** Words of 8 bytes that were stored as a whole, by offset from r10. */
  readonly stack: ReadonlyMap<number, Value>;
}

/** 2^64 - 1 as nearly as a number gets; bounds above 2^53 are rounded, those of 32 bits exact. */
const TOP = 2 ** 64;
const TOP32 = 0xffffffff;

const NOTHING: Value = { kind: 'nothing' };
const ANY: Value = { kind: 'number', min: 0, max: TOP };

function number(min: number, max: number): Value {
  return { kind: 'number', min, max };
}

/** What a program starts with. */
export const AT_START: Known = {
  registers: [
    ...[NOTHING, { kind: 'context' } as const, NOTHING, NOTHING, NOTHING, NOTHING],
    ...[NOTHING, NOTHING, NOTHING, NOTHING, { kind: 'stack', offset: 0 } as const],
  ],
  stack: new Map(),
};

function same(a: Value, b: Value): boolean {
  if (a === b) return true;
  if (a.kind !== b.kind) return false;
  switch (a.kind) {
    case 'number':
      return b.kind === 'number' && a.min === b.min && a.max === b.max;
    case 'packet':
      return b.kind === 'packet' && a.base === b.base && a.offset === b.offset && a.most === b.most;
    case 'stack':
      return b.kind === 'stack' && a.offset === b.offset;
    case 'map':
      return b.kind === 'map' && a.map === b.map;
    case 'map-value':
      return b.kind === 'map-value' && a.map === b.map && a.offset === b.offset;
    case 'nothing':
    case 'context':
    case 'packet-end':
    case 'mixed':
      return true;
  }
}

/** What is known where two ways meet; `place` names the meeting. */
function join(a: Value, b: Value, place: string): Value {
  if (same(a, b)) return a;
  if (a.kind === 'nothing' || b.kind === 'nothing') return NOTHING;
  if (a.kind === 'number' && b.kind === 'number') {
    return number(Math.min(a.min, b.min), Math.max(a.max, b.max));
  }
  if (a.kind === 'packet' && b.kind === 'packet') {
    return { kind: 'packet', base: place, offset: 0, most: Math.max(a.most, b.most) };
  }
  if (a.kind === 'stack' && b.kind === 'stack') return { kind: 'stack', offset: null };
  if (a.kind === 'map-value' && b.kind === 'map-value' && a.map === b.map) {
    return { kind: 'map-value', map: a.map, offset: null };
  }
  return { kind: 'mixed' };
}

function joinKnown(a: Known, b: Known, label: string): Known {
  const registers = a.registers.map((value, reg) =>
    join(value, b.registers[reg] ?? NOTHING, `${label} r${reg}`),
  );
  const stack = new Map<number, Value>();
  for (const [offset, value] of a.stack) {
    const other = b.stack.get(offset);
    if (other !== undefined) stack.set(offset, join(value, other, `${label} ${offset}`));
  }
  return { registers, stack };
}

/** The smallest 2^n - 1 that is not below `max`. */
function allBits(max: number): number {
  return max === 0 ? 0 : Math.min(TOP, 2 ** Math.ceil(Math.log2(max + 1)) - 1);
}

interface Range {
  readonly min: number;
  readonly max: number;
}

function calculate(op: AluOp, a: Range, b: Range): Value {
  const fits = (min: number, max: number): Value => (max >= TOP ? ANY : number(min, max));
  switch (op) {
    case 'mov':
      return number(b.min, b.max);
    case 'add':
      return fits(a.min + b.min, a.max + b.max);
    case 'sub':
      return a.min >= b.max ? number(a.min - b.max, a.max - b.min) : ANY;
    case 'mul':
      return ANY; // as verifiers have it, scalar_min_max_mul()
    case 'div':
      return number(0, a.max);
    case 'mod':
      return number(0, b.max);
    case 'and':
      return number(0, Math.min(a.max, b.max));
    case 'or':
    case 'xor':
      return number(0, allBits(Math.max(a.max, b.max)));
    case 'lsh':
      return b.min === b.max ? fits(a.min * 2 ** b.min, a.max * 2 ** b.max) : ANY;
    case 'rsh':
      return number(Math.floor(a.min / 2 ** b.max), Math.floor(a.max / 2 ** b.min));
    case 'neg':
    case 'arsh':
      return ANY;
  }
}

function rangeOf(value: Value): Range {
  return value.kind === 'number' ? value : { min: 0, max: TOP };
}

/** A constant as a register of this width holds it; negative ones of 64 bits count as 2^64. */
export function constantOf(width: 32 | 64, value: number): number {
  if (value >= 0) return value;
  return width === 32 ? value >>> 0 : TOP;
}

/** The pointer moved by a number. */
function move(pointer: Value, by: Range, sign: 1 | -1, place: string): Value {
  const isConstant = by.min === by.max && by.max < TOP;
  switch (pointer.kind) {
    case 'packet': {
      const most = pointer.most + (sign === 1 ? by.max : -by.min);
      if (!isConstant) return { kind: 'packet', base: place, offset: 0, most };
      return { ...pointer, offset: pointer.offset + sign * by.min, most };
    }
    case 'stack':
    case 'map-value': {
      const { offset } = pointer;
      const known = isConstant && offset !== null;
      return { ...pointer, offset: known ? offset + sign * by.min : null };
    }
    default:
      return pointer;
  }
}

function isPointer({ kind }: Value): boolean {
  return kind === 'packet' || kind === 'stack' || kind === 'map-value';
}

function aluValue(insn: AluInsn, registers: readonly Value[], place: string): Value {
  const a = registers[insn.dst] ?? NOTHING;
  const { op, src, width } = insn;
  const b: Value = sourceValue(src, registers, width);
  if (op === 'mov') return width === 64 ? b : narrow(b);
  if (width === 64 && (op === 'add' || op === 'sub')) {
    if (isPointer(a) && b.kind === 'number') {
      // Constants are signed; a number that is one value otherwise is small enough to be exact.
      const by = src.kind === 'imm' ? { min: src.value, max: src.value } : b;
      return move(a, by, op === 'add' ? 1 : -1, place);
    }
    if (op === 'add' && isPointer(b) && a.kind === 'number') return move(b, a, 1, place);
  }
  const result = calculate(op, rangeOf(a), rangeOf(b));
  return width === 64 ? result : narrow(result);
}

function narrow(value: Value): Value {
  const { min, max } = rangeOf(value);
  return max <= TOP32 ? number(min, max) : number(0, TOP32);
}

/** The second operand of an instruction. */
export function sourceValue(source: Source, registers: readonly Value[], width: 32 | 64): Value {
  if (source.kind === 'reg') return registers[source.reg] ?? NOTHING;
  const value = constantOf(width, source.value);
  return number(value, value);
}

/** Offset from r10 that an access reaches, or null. */
export function stackOffset(known: Known, reg: RegNumber, offset: number): number | null {
  const pointer = known.registers[reg] ?? NOTHING;
  if (pointer.kind !== 'stack' || pointer.offset === null) return null;
  return pointer.offset + offset;
}

const PACKET_START: Value = { kind: 'packet', base: 'start', offset: 0, most: 0 };

/** Words of the contexts that are pointers; programs here read no others. */
const CONTEXT: ReadonlyMap<number, Value> = new Map<number, Value>([
  [XDP_MD.data, PACKET_START],
  [XDP_MD.dataEnd, { kind: 'packet-end' }],
  [SKB.data, PACKET_START],
  [SKB.dataEnd, { kind: 'packet-end' }],
]);

function loadValue(known: Known, insn: Extract<Insn, { kind: 'ldx' }>): Value {
  const pointer = known.registers[insn.src] ?? NOTHING;
  if (pointer.kind === 'context') return CONTEXT.get(insn.offset) ?? number(0, TOP32);
  const at = stackOffset(known, insn.src, insn.offset);
  const word = at === null || insn.size !== 8 ? undefined : known.stack.get(at);
  return word ?? number(0, insn.size === 8 ? TOP : 2 ** (8 * insn.size) - 1);
}

function storeValue(known: Known, insn: Extract<Insn, { kind: 'stx' | 'st' }>): Known {
  const at = stackOffset(known, insn.dst, insn.offset);
  if (at === null) return known;
  const stack = new Map(known.stack);
  for (let byte = at - 7; byte < at + insn.size; byte += 1) stack.delete(byte);
  if (insn.kind === 'stx' && insn.size === 8) {
    stack.set(at, known.registers[insn.src] ?? NOTHING);
  }
  return { ...known, stack };
}

function withRegister(known: Known, reg: RegNumber, value: Value): Known {
  const registers = [...known.registers];
  registers[reg] = value;
  return { ...known, registers };
}

/** What is known behind an instruction that goes on. */
function follow(known: Known, insn: Insn, place: string): Known {
  switch (insn.kind) {
    case 'alu':
      return withRegister(known, insn.dst, aluValue(insn, known.registers, place));
    case 'endian':
      return withRegister(known, insn.dst, number(0, insn.bits === 64 ? TOP : 2 ** insn.bits - 1));
    case 'ld_imm64': {
      const value = Number(insn.value);
      return withRegister(known, insn.dst, number(value, value));
    }
    case 'ld_map':
      return withRegister(known, insn.dst, { kind: 'map', map: insn.map });
    case 'ld_map_value':
      return withRegister(known, insn.dst, {
        kind: 'map-value',
        map: insn.map,
        offset: insn.offset,
      });
    case 'ldx':
      return withRegister(known, insn.dst, loadValue(known, insn));
    case 'stx':
    case 'st':
      return storeValue(known, insn);
    case 'call': {
      const map = known.registers[1] ?? NOTHING;
      const result: Value =
        map.kind === 'map' ? { kind: 'map-value', map: map.map, offset: 0 } : ANY;
      const registers = known.registers.map((value, reg) => {
        if (reg === 0) return result;
        return reg <= 5 ? NOTHING : value;
      });
      return { ...known, registers };
    }
    case 'atomic_add':
    case 'jump':
    case 'ja':
    case 'exit':
    case 'raw':
    case 'label':
      return known;
  }
}

/**
 * What is known before each instruction, null where control does not get to. Jumps must go forward,
 * as those of this backend do; `null` in place of the list where one does not.
 */
export function trackValues(
  insns: readonly Insn[],
  start: Known = AT_START,
): readonly (Known | null)[] | null {
  const { targets } = layOut(insns);
  const waiting = new Map<number, Known>();
  const result: (Known | null)[] = [];
  let known: Known | null = start;
  for (const [index, insn] of insns.entries()) {
    const arrived = waiting.get(index);
    if (arrived !== undefined && insn.kind === 'label') {
      known = known === null ? arrived : joinKnown(known, arrived, insn.name);
    }
    result.push(known);
    if (known === null) continue;
    const target = targets[index] ?? -1;
    if (target !== -1) {
      if (target <= index) return null;
      const before = waiting.get(target);
      const name = insn.kind === 'jump' || insn.kind === 'ja' ? insn.target : '';
      waiting.set(target, before === undefined ? known : joinKnown(before, known, name));
    }
    known = endsFlow(insn) ? null : follow(known, insn, `@${index}`);
  }
  return result;
}
