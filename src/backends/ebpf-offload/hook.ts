import type { AttachHook } from '../backend.ts';
import { SKB, TC_ACT, XDP, XDP_MD } from './insn.ts';

/** What differs between programs of XDP and of cls_bpf with direct action (where XDP is taken). */
export interface Hook {
  /** Section name that loaders go by. */
  readonly section: string;
  /** Byte offsets of the context's words that point at the frame's start and end. */
  readonly data: number;
  readonly dataEnd: number;
  /** Values returned. */
  readonly drop: number;
  readonly pass: number;
  /** NFP instructions around every program: nfp_intro, nfp_outro_* and the prefetch window, jit.c. */
  readonly nfpInsns: number;
}

export const HOOKS: Readonly<Record<AttachHook, Hook>> = {
  xdp: {
    section: 'xdp',
    ...{ data: XDP_MD.data, dataEnd: XDP_MD.dataEnd },
    ...{ drop: XDP.drop, pass: XDP.pass },
    nfpInsns: 23,
  },
  tc: {
    section: 'tc',
    ...{ data: SKB.data, dataEnd: SKB.dataEnd },
    // Not TC_ACT_OK, which the NFP refuses and which would end the walk over other filters.
    ...{ drop: TC_ACT.shot, pass: TC_ACT.unspec },
    nfpInsns: 28,
  },
};
