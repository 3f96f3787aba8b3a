/*
 * Classic BPF (McCanne and Jacobson, USENIX 1993): an accumulator A, an index register X, both 32
 * bits and unsigned, 16 words of scratch memory M, and jumps that only go forward.
 */

/** Bytes a packet load takes; always big-endian. */
export type Size = 1 | 2 | 4;
export type AluOp = 'add' | 'sub' | 'mul' | 'div' | 'mod' | 'or' | 'and' | 'xor' | 'lsh' | 'rsh';
export type JumpOp = 'jeq' | 'jgt' | 'jge' | 'jset';
/** A constant (u32), or X. */
export type Source = number | 'x';

/** Sets A, X or M; control goes on with the next instruction. */
export type StraightInsn =
  /** A = packet at byte `k`; from `ANCILLARY` on, what the kernel knows beside the packet. */
  | { readonly kind: 'ld_abs'; readonly size: Size; readonly k: number }
  /** A = packet at byte X + `k`. */
  | { readonly kind: 'ld_ind'; readonly size: Size; readonly k: number }
  | { readonly kind: 'ld_imm' | 'ldx_imm'; readonly k: number }
  /** Bytes in the packet, also those that were not captured. */
  | { readonly kind: 'ld_len' | 'ldx_len' }
  /** Word `k` of M. */
  | { readonly kind: 'ld_mem' | 'ldx_mem' | 'st' | 'stx'; readonly k: number }
  /** X = 4 * (byte `k` & 15): the length of an IPv4 header. */
  | { readonly kind: 'ldx_msh'; readonly k: number }
  /** A = A op source; a shift is 0 to 31, and division by an X of 0 rejects the packet. */
  | { readonly kind: 'alu'; readonly op: AluOp; readonly src: Source }
  | { readonly kind: 'neg' | 'tax' | 'txa' };

/** One instruction. */
export type Insn =
  | StraightInsn
  /** Skips `k` instructions (u32). */
  | { readonly kind: 'ja'; readonly k: number }
  /** Skips `jt` instructions when `A op source` holds, else `jf`; both 0 to 255. */
  | {
      readonly kind: 'jump';
      readonly op: JumpOp;
      readonly src: Source;
      readonly jt: number;
      readonly jf: number;
    }
  /** Ends with how many bytes to keep (u32); 0 rejects the packet. */
  | { readonly kind: 'ret'; readonly value: number | 'a' }
  /** A code that means nothing to us. */
  | RawInsn;

/** `struct sock_filter`: code u16, jt and jf u8, k u32 (include/uapi/linux/filter.h). */
export interface RawInsn {
  readonly kind: 'raw';
  readonly code: number;
  readonly jt: number;
  readonly jf: number;
  readonly k: number;
}

/** SKF_AD_OFF as u32: loads from here on are ancillary data (include/uapi/linux/filter.h). */
export const ANCILLARY = 0xffff_f000;

/**
 * What Linux knows beside the packet, by the names of bpf_asm, as offset from `ANCILLARY` (SKF_AD_*,
 * include/uapi/linux/filter.h; tools/bpf/bpf_exp.l).
 */
export const ANCILLARY_LOADS = {
  proto: 0,
  type: 4,
  ifidx: 8,
  nla: 12,
  nlan: 16,
  mark: 20,
  queue: 24,
  hatype: 28,
  rxhash: 32,
  cpu: 36,
  xor_x: 40,
  vlan_tci: 44,
  vlan_avail: 48,
  poff: 52,
  rand: 56,
  vlan_tpid: 60,
} as const satisfies Record<string, number>;

export type AncillaryName = keyof typeof ANCILLARY_LOADS;

const NAME_OF: ReadonlyMap<number, AncillaryName> = new Map(
  Object.entries(ANCILLARY_LOADS).map(([name, offset]) => [
    ANCILLARY + offset,
    // Object.entries widens the keys of a constant.
    name as AncillaryName,
  ]),
);

/** The ancillary datum an absolute load reads, or null where it reads the packet (or nothing). */
export function ancillaryName(k: number): AncillaryName | null {
  return NAME_OF.get(k) ?? null;
}

/** A load of one ancillary datum. */
export function ancillary(name: AncillaryName): StraightInsn {
  return { kind: 'ld_abs', size: 4, k: ANCILLARY + ANCILLARY_LOADS[name] };
}
