import { encodeInsn } from './encode.ts';
import { ANCILLARY, ANCILLARY_LOADS, type AncillaryName, type Insn } from './insn.ts';
import { describeProblem, MEMORY_WORDS, validate } from './validate.ts';

/** What one run gave. */
export interface Run {
  /** The value returned, unsigned; 0 also where a load reached beyond the packet. */
  readonly value: number;
  /** Instructions executed. */
  readonly executed: number;
}

/** What ancillary loads give; a datum that is not there loads as 0. */
export type Ancillary = Readonly<Partial<Record<AncillaryName, number>>>;

/** A program made ready to run. */
export type Machine = (packet: Uint8Array, beside?: Ancillary) => Run;

const NOTHING: Ancillary = {};
const DONE = -1;

function byteAt(packet: Uint8Array, at: number): number {
  return packet[at] ?? 0;
}

/** Unsigned big-endian, or -1 beyond the packet. */
function load(packet: Uint8Array, at: number, size: number): number {
  if (at + size > packet.length) return -1;
  if (size === 1) return byteAt(packet, at);
  const half = (byteAt(packet, at) << 8) | byteAt(packet, at + 1);
  if (size === 2) return half;
  return half * 0x1_0000 + ((byteAt(packet, at + 2) << 8) | byteAt(packet, at + 3));
}

interface State {
  packet: Uint8Array;
  beside: Ancillary;
  a: number;
  x: number;
  result: number;
  readonly memory: Uint32Array;
}

/** Executes one instruction and gives the index of the next, or DONE. */
type Step = (state: State) => number;

function fail(state: State): number {
  state.result = 0;
  return DONE;
}

type Alu = Extract<Insn, { kind: 'alu' }>;

function compute(op: Alu['op'], a: number, b: number): number {
  switch (op) {
    case 'add':
      return (a + b) >>> 0;
    case 'sub':
      return (a - b) >>> 0;
    case 'mul':
      return Math.imul(a, b) >>> 0;
    case 'div':
      return Math.floor(a / b);
    case 'mod':
      return a % b;
    case 'or':
      return (a | b) >>> 0;
    case 'and':
      return (a & b) >>> 0;
    case 'xor':
      return (a ^ b) >>> 0;
    case 'lsh':
      return (a << b) >>> 0;
    case 'rsh':
      return a >>> b;
  }
}

function prepareAlu({ op, src }: Alu, next: number): Step {
  const divides = op === 'div' || op === 'mod';
  return (state) => {
    const b = src === 'x' ? state.x : src;
    if (divides && b === 0) return fail(state);
    state.a = compute(op, state.a, b);
    return next;
  };
}

function prepareJump(insn: Extract<Insn, { kind: 'jump' }>, next: number): Step {
  const { op, src } = insn;
  const yes = next + insn.jt;
  const no = next + insn.jf;
  switch (op) {
    case 'jeq':
      return (state) => (state.a === (src === 'x' ? state.x : src) ? yes : no);
    case 'jgt':
      return (state) => (state.a > (src === 'x' ? state.x : src) ? yes : no);
    case 'jge':
      return (state) => (state.a >= (src === 'x' ? state.x : src) ? yes : no);
    case 'jset':
      return (state) => ((state.a & (src === 'x' ? state.x : src)) !== 0 ? yes : no);
  }
}

function ancillaryOf(k: number): AncillaryName {
  for (const [name, offset] of Object.entries(ANCILLARY_LOADS)) {
    // Object.entries widens the keys of a constant.
    if (ANCILLARY + offset === k) return name as AncillaryName;
  }
  throw new Error('bug: a validated program has an unknown ancillary load');
}

function prepareLoad(insn: Extract<Insn, { kind: 'ld_abs' | 'ld_ind' }>, next: number): Step {
  const { size, k } = insn;
  if (insn.kind === 'ld_abs' && k >= ANCILLARY) {
    const name = ancillaryOf(k);
    return (state) => {
      state.a = name === 'xor_x' ? (state.a ^ state.x) >>> 0 : (state.beside[name] ?? 0);
      return next;
    };
  }
  const indexed = insn.kind === 'ld_ind';
  return (state) => {
    // The sum wraps: X is added to an int in bpf_convert_filter(), net/core/filter.c.
    const at = indexed ? (state.x + k) >>> 0 : k;
    const value = load(state.packet, at, size);
    if (value < 0) return fail(state);
    state.a = value;
    return next;
  };
}

function prepareStep(insn: Insn, at: number): Step {
  const next = at + 1;
  switch (insn.kind) {
    case 'ld_abs':
    case 'ld_ind':
      return prepareLoad(insn, next);
    case 'alu':
      return prepareAlu(insn, next);
    case 'jump':
      return prepareJump(insn, next);
    case 'ldx_msh':
      return (state) => {
        const value = load(state.packet, insn.k, 1);
        if (value < 0) return fail(state);
        state.x = (value & 15) * 4;
        return next;
      };
    case 'ja':
      return () => next + insn.k;
    case 'ret':
      return (state) => {
        state.result = insn.value === 'a' ? state.a : insn.value;
        return DONE;
      };
    case 'raw':
      throw new Error(`bug: insn ${at} has code ${encodeInsn(insn).code}`);
    default:
      return (state) => {
        move(insn, state);
        return next;
      };
  }
}

type Move = Exclude<
  Insn,
  { kind: 'ld_abs' | 'ld_ind' | 'alu' | 'jump' | 'ldx_msh' | 'ja' | 'ret' | 'raw' }
>;

function move(insn: Move, state: State): void {
  switch (insn.kind) {
    case 'ld_imm':
      state.a = insn.k;
      return;
    case 'ldx_imm':
      state.x = insn.k;
      return;
    case 'ld_len':
      state.a = state.packet.length;
      return;
    case 'ldx_len':
      state.x = state.packet.length;
      return;
    case 'ld_mem':
      state.a = state.memory[insn.k] ?? 0;
      return;
    case 'ldx_mem':
      state.x = state.memory[insn.k] ?? 0;
      return;
    case 'st':
      state.memory[insn.k] = state.a;
      return;
    case 'stx':
      state.memory[insn.k] = state.x;
      return;
    case 'neg':
      state.a = -state.a >>> 0;
      return;
    case 'tax':
      state.x = state.a;
      return;
    case 'txa':
      state.a = state.x;
  }
}

/**
 * Loads a program as the kernel does; throws `bug: ...` where the kernel would refuse it. Every run
 * starts with A and X at 0 (bpf_convert_filter() clears both, net/core/filter.c).
 */
export function loadProgram(insns: readonly Insn[]): Machine {
  const problem = validate(insns);
  if (problem !== null) throw new Error(`bug: ${describeProblem(problem, insns)}`);
  const steps = insns.map(prepareStep);
  const memory = new Uint32Array(MEMORY_WORDS);
  const state: State = {
    packet: new Uint8Array(0),
    beside: NOTHING,
    a: 0,
    x: 0,
    result: 0,
    memory,
  };
  return (packet, beside = NOTHING) => {
    state.packet = packet;
    state.beside = beside;
    state.a = 0;
    state.x = 0;
    let executed = 0;
    for (let at = 0; at !== DONE; executed += 1) at = steps[at]?.(state) ?? fail(state);
    return { value: state.result, executed };
  };
}
