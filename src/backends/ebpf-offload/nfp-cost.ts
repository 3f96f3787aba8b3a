/*
 * What the NFP driver's compiler makes of a program, in its own instructions. The rules are those of
 * drivers/net/ethernet/netronome/nfp/bpf/jit.c (Linux 6.1), named beside each; scripts/nfpsim.ts
 * compares with what that compiler really makes.
 */
import type {
  AluInsn,
  AtomicAddInsn,
  EndianInsn,
  Insn,
  JumpInsn,
  LdxInsn,
  RegNumber,
  StxInsn,
} from './insn.ts';
import { HELPER, XDP_MD } from './insn.ts';
import { layOut } from './layout.ts';
import { AT_START, type Known, sourceValue, stackOffset, trackValues } from './track.ts';

/** UR_REG_IMM_MAX and RE_REG_IMM_MAX in nfp_asm.h: constants that an operand holds by itself. */
const UR_IMM_MAX = 0xff;
const RE_IMM_MAX = 0x7f;
/** Bytes of the stack frame's bottom that LMaddr0 reaches: mem_op_stack. */
const NEAR_STACK = 64;
/** RE_REG_LM_IDX_MAX: words of it that parts can be taken from at once. */
const NEAR_PARTS = 7;
/** Bytes that one command fetches from the packet: nfp_bpf_opt_pkt_cache. */
const PACKET_CACHE = 64;

function low(value: number): number {
  return value >>> 0;
}

function high(value: number): number {
  return value < 0 ? 0xffffffff : 0;
}

function packs(value: number): boolean {
  return (value & 0xffff0000) === 0 || (value & 0xff0000ff) === 0 || (value & 0x0000ffff) === 0;
}

/** wrp_immed: one or two instructions load 32 bits. */
function immediate(value: number): number {
  return packs(value) || packs(~value) ? 1 : 2;
}

/** ur_load_imm_any, re_load_imm_any: what it takes before a constant can be an operand. */
function operand(value: number, most = UR_IMM_MAX): number {
  return low(value) <= most ? 0 : immediate(value);
}

/** wrp_alu_imm. */
function aluImmediate(op: AluInsn['op'], value: number): number {
  const isNone = low(value) === 0;
  const isAll = low(value) === 0xffffffff;
  if (op === 'and' && (isNone || isAll)) return isNone ? 1 : 0;
  if (op === 'or' && (isNone || isAll)) return isAll ? 1 : 0;
  if (op === 'xor' && (isNone || isAll)) return isAll ? 1 : 0;
  return operand(value) + 1;
}

/** __shl_imm64 and its relatives; by a register: shl_reg64, shr_reg64. */
function shiftCost(insn: AluInsn, known: Known, zext: number): number {
  const by = sourceValue(insn.src, known.registers, insn.width);
  const { min, max } = by.kind === 'number' ? by : { min: 0, max: 63 };
  if (min === max) {
    if (insn.width === 64) return max === 0 ? 0 : 2;
    return (max === 0 ? 0 : 1) + zext;
  }
  if (insn.width === 32) return 2 + zext;
  if (max < 32) return 5;
  return min >= 32 ? 3 : 10;
}

/** wrp_mul: by halves where both factors have 16 bits. */
function mulCost(insn: AluInsn, known: Known): number {
  const a = sourceValue({ kind: 'reg', reg: insn.dst }, known.registers, insn.width);
  const b = sourceValue(insn.src, known.registers, insn.width);
  const isWide = (value: typeof a): boolean => value.kind !== 'number' || value.max > 0xffff;
  const constant = insn.src.kind === 'imm' ? operand(insn.src.value) : 0;
  return constant + (isWide(a) || isWide(b) ? 7 : 4);
}

function movCost(insn: AluInsn, frame: number): number {
  if (insn.src.kind === 'reg') {
    return insn.width === 64 && insn.src.reg === 10 ? operand(frame) + 2 : 2;
  }
  const { value } = insn.src;
  return immediate(value) + (insn.width === 64 ? immediate(high(value)) : 1);
}

function aluCost(insn: AluInsn, known: Known, frame: number, zext: number): number {
  const { op, width, src } = insn;
  switch (op) {
    case 'mov':
      return movCost(insn, frame);
    case 'lsh':
    case 'rsh':
    case 'arsh':
      return shiftCost(insn, known, zext);
    case 'mul':
      return mulCost(insn, known);
    case 'neg':
      return width === 64 ? 2 : 1 + zext;
    case 'div':
    case 'mod':
      return 40; // by reciprocal, wrp_div_imm; not produced here
    case 'add':
    case 'sub':
    case 'and':
    case 'or':
    case 'xor': {
      if (src.kind === 'reg') return width === 64 ? 2 : 1 + zext;
      // nfp_bpf_opt_neg_add_sub.
      const isSum = op === 'add' || op === 'sub';
      const value = isSum ? Math.abs(src.value) : src.value;
      if (width === 32) return aluImmediate(op, value) + zext;
      if (op === 'and' && value === -1) return 0;
      if ((op === 'or' || op === 'xor') && value === 0) return 0;
      return aluImmediate(op, value) + aluImmediate(op, high(value));
    }
  }
}

/** end_reg32. */
function endianCost({ bits }: EndianInsn): number {
  return bits === 64 ? 5 : 3;
}

/** jeq_imm, jeq32_imm, jne_imm, jset_imm, cmp_imm, and the same with registers. */
function jumpCost({ op, width, src }: JumpInsn): number {
  const isWide = width === 64;
  if (src.kind === 'reg') {
    if (op === 'eq') return isWide ? 4 : 2;
    if (op === 'ne' || op === 'set') return isWide ? 4 : 2;
    return isWide ? 3 : 2;
  }
  const turns = src.value < 0 && ['ge', 'sge', 'lt', 'slt'].includes(op);
  const value = turns ? -src.value : src.value;
  const upper = high(value);
  switch (op) {
    case 'eq':
      if (!isWide) return operand(value) + 2;
      return (value === 0 ? 0 : operand(value) + 1) + (upper === 0 ? 0 : operand(upper) + 1) + 2;
    case 'ne':
      if (value === 0) return 2;
      return operand(value) + 2 + (isWide ? operand(upper) + 2 : 0);
    case 'set':
      return operand(value) + 2 + (isWide && upper !== 0 ? 1 : 0);
    default:
      return operand(value) + 2 + (isWide ? operand(upper) + 1 : 0);
  }
}

/** mem_op_stack with wrp_lmem_load or wrp_lmem_store; `at` counts from the frame's bottom. */
function stackCost(insn: LdxInsn | StxInsn, at: number | null, zext: number): number {
  const { size } = insn;
  const isLoad = insn.kind === 'ldx';
  const clears = isLoad && size < 8 ? zext : 0;
  if (at === null || at + size > NEAR_STACK) {
    const offset = at === null ? 0 : operand(at & ~31);
    const nops = isLoad && size < 8 && zext > 0 ? 2 : 3;
    return offset + 2 + nops + clears + words(at ?? 0, size);
  }
  const far = size < 4 && at >> 2 > NEAR_PARTS ? (isLoad ? 1 : 2) : 0;
  return clears + words(at, size) + far;
}

/** Pieces of an access that lie in one word of the stack and one half of a register each. */
function words(at: number, size: number): number {
  let pieces = 0;
  for (let done = 0; done < size; pieces += 1) {
    const inWord = 4 - ((at + done) & 3);
    done += Math.min(size - done, inWord, 4 - (done & 3));
  }
  return pieces;
}

/** mem_xadd: 16 bits fit the command, more take a way of their own. */
function atomicCost(insn: AtomicAddInsn, known: Known): number {
  const value = known.registers[insn.src];
  const { min, max } = value?.kind === 'number' ? value : { min: 0, max: 2 ** 64 };
  const over = max > 0xffff;
  const maybe = min <= 0xffff;
  const choice = over && maybe ? 5 : 0;
  const address = insn.offset === 0 ? 0 : operand(insn.offset) + 2;
  return choice + address + (maybe ? 3 : 0) + (over ? 2 + (insn.size === 8 ? 1 : 0) : 0);
}

/** Registers whose upper half is looked at after an instruction, as bits: is_reg64() in verifier.c. */
function upperHalves(insns: readonly Insn[], targets: Int32Array): Uint16Array {
  const after = new Uint16Array(insns.length + 1);
  const before = new Uint16Array(insns.length + 1);
  for (let index = insns.length - 1; index >= 0; index -= 1) {
    const insn = insns[index];
    if (insn === undefined) continue;
    const target = targets[index] ?? -1;
    const jumped = target === -1 ? 0 : (before[target] ?? 0);
    const ends = insn.kind === 'ja' || insn.kind === 'exit';
    const live = jumped | (ends ? 0 : (before[index + 1] ?? 0));
    after[index] = live;
    before[index] = (live & ~definedBy(insn)) | readWhole(insn);
  }
  return after;
}

function bit(reg: RegNumber): number {
  return 1 << reg;
}

function definedBy(insn: Insn): number {
  switch (insn.kind) {
    case 'alu':
    case 'endian':
    case 'ld_imm64':
    case 'ld_map':
    case 'ld_map_value':
    case 'ldx':
      return bit(insn.dst);
    case 'call':
      return 0b11_1111;
    default:
      return 0;
  }
}

/** Registers of which an instruction reads all 64 bits. */
function readWhole(insn: Insn): number {
  switch (insn.kind) {
    case 'alu': {
      if (insn.width === 32) return 0;
      const source = insn.src.kind === 'reg' ? bit(insn.src.reg) : 0;
      return insn.op === 'mov' ? source : source | bit(insn.dst);
    }
    case 'jump': {
      if (insn.width === 32) return 0;
      return bit(insn.dst) | (insn.src.kind === 'reg' ? bit(insn.src.reg) : 0);
    }
    case 'endian':
      return insn.bits === 64 ? bit(insn.dst) : 0;
    case 'ldx':
      return bit(insn.src);
    case 'stx':
    case 'atomic_add':
      return bit(insn.dst) | (insn.size === 8 ? bit(insn.src) : 0);
    case 'call':
      return bit(1) | bit(2);
    case 'exit':
      return bit(0);
    default:
      return 0;
  }
}

/** A run of packet loads that one command fetches: nfp_bpf_opt_pkt_cache. */
interface PacketRun {
  readonly first: number;
  readonly base: string;
  readonly offset: number;
  from: number;
  to: number;
}

/** For each load from the packet, the run it belongs to. */
function packetRuns(
  insns: readonly Insn[],
  values: readonly (Known | null)[],
): ReadonlyMap<number, PacketRun> {
  const runs = new Map<number, PacketRun>();
  let run: PacketRun | null = null;
  for (const [index, insn] of insns.entries()) {
    if (insn.kind === 'label' || insn.kind === 'call') run = null;
    if (insn.kind !== 'ldx') continue;
    const pointer = values[index]?.registers[insn.src];
    if (pointer?.kind !== 'packet') {
      run = null;
      continue;
    }
    const from = Math.min(run?.from ?? insn.offset, insn.offset);
    const to = Math.max(run?.to ?? 0, insn.offset + insn.size);
    const sameBase = run?.base === pointer.base && run.offset === pointer.offset;
    if (run === null || !sameBase || to - from > PACKET_CACHE) {
      const { base, offset } = pointer;
      run = { first: index, base, offset, from: insn.offset, to: insn.offset + insn.size };
    } else {
      run.from = from;
      run.to = to;
    }
    runs.set(index, run);
  }
  return runs;
}

/** mem_ldx_data_init_pktcache once a run, then mem_ldx_data_from_pktcache. */
function packetCost(insn: LdxInsn, index: number, run: PacketRun, zext: number): number {
  const length = run.to - run.from;
  const fetch = run.first === index ? operand(run.from, RE_IMM_MAX) + 1 + (length > 32 ? 1 : 0) : 0;
  const within = (insn.offset - run.from) & 3;
  const clears = insn.size < 8 ? zext : 0;
  if (within === 0) return fetch + clears + (insn.size === 8 ? 2 : 1);
  if (insn.size === 8) return fetch + 4;
  return fetch + clears + (insn.size > 4 - within ? 2 : 1);
}

interface Costing {
  readonly known: Known;
  readonly index: number;
  readonly zext: number;
  readonly frame: number;
  readonly runs: ReadonlyMap<number, PacketRun>;
}

function loadCost(insn: LdxInsn, costing: Costing): number {
  const { known, index, zext, frame, runs } = costing;
  const pointer = known.registers[insn.src];
  switch (pointer?.kind) {
    case 'context':
      return insn.offset === XDP_MD.dataMeta ? 0 : 2;
    case 'packet': {
      const run = runs.get(index);
      return run === undefined ? 0 : packetCost(insn, index, run, zext);
    }
    case 'map-value': {
      const address = insn.offset === 0 && pointer.offset === 0 ? 0 : 2;
      return address + 1 + (insn.size === 8 ? 2 : 1) + (insn.size < 8 ? zext : 0);
    }
    default: {
      const at = stackOffset(known, insn.src, insn.offset);
      return stackCost(insn, at === null ? null : frame + at, zext);
    }
  }
}

/** map_call_stack_common: the key pointer is set and reset unless the key is the frame's bottom. */
function callCost(helper: number, { known, frame }: Costing): number {
  if (helper !== HELPER.mapLookupElem) return 0;
  return stackOffset(known, 2, 0) === -frame ? 3 : 8;
}

function costOf(insn: Insn, costing: Costing): number {
  const { known, zext, frame } = costing;
  switch (insn.kind) {
    case 'label':
    case 'raw':
      return 0;
    case 'alu':
      return aluCost(insn, known, frame, zext);
    case 'endian':
      return endianCost(insn);
    case 'ld_imm64': {
      const lower = Number(insn.value & 0xffffffffn);
      const upper = Number(insn.value >> 32n);
      return immediate(lower) + (lower === upper ? 1 : immediate(upper));
    }
    case 'ld_map':
    case 'ld_map_value':
      return 2;
    case 'ldx':
      return loadCost(insn, costing);
    case 'stx': {
      const at = stackOffset(known, insn.dst, insn.offset);
      return stackCost(insn, at === null ? null : frame + at, 0);
    }
    case 'st':
      return 3;
    case 'atomic_add':
      return atomicCost(insn, known);
    case 'jump':
      return jumpCost(insn);
    case 'call':
      return callCost(insn.helper, costing);
    case 'ja':
    case 'exit':
      return 1;
  }
}

/**
 * NFP instructions that each instruction becomes; what stands around a program (`Hook`) comes on
 * top. `stackBytes` is the depth of the stack that the whole program uses; a part of a program is
 * costed by saying what is known where it starts.
 */
export function nfpCosts(
  insns: readonly Insn[],
  stackBytes: number,
  start: Known = AT_START,
): readonly number[] {
  const values = trackValues(insns, start);
  if (values === null) throw new Error('bug: a program with a jump back');
  const { targets } = layOut(insns);
  const halves = upperHalves(insns, targets);
  const runs = packetRuns(insns, values);
  const frame = Math.ceil(stackBytes / 4) * 4;
  return insns.map((insn, index) => {
    const known = values[index] ?? null;
    if (known === null) return 0;
    const dst = 'dst' in insn && insn.kind !== 'raw' ? insn.dst : null;
    const zext = dst !== null && ((halves[index] ?? 0) & bit(dst)) !== 0 ? 1 : 0;
    return costOf(insn, { known, index, zext, frame, runs });
  });
}
