import type { CounterLayout } from '../backend.ts';
import { DROP, type Emitter, emit, FLUSH, fetch, newLabel, PROTO } from './emitter.ts';
import {
  add,
  and32,
  atomicAdd,
  ja,
  jeq,
  jge,
  jgt,
  label,
  ldx,
  lsh,
  mov,
  mov32,
  r0,
  r1,
  r2,
  r10,
  rsh32,
  stx,
  xor,
} from './insn.ts';
import { keyArea } from './lookup-key.ts';
import { emitMapLookup } from './lookup-map.ts';

/** What the program counts into. */
export interface CounterPlan {
  readonly layout: CounterLayout;
  /** Counters below this index use the length at ingress, the others the IP packet's. */
  readonly ingress: number;
  /** Offset from r10 of the pending words: each 0, or a counter's index plus 1. */
  readonly pending: readonly number[];
}

/** Notes that counter `index` counts if the frame is dropped. r0 and r1 are lost. */
export function emitPend(emitter: Emitter, offset: number, index: number): void {
  // By xor, after which the verifier no longer ties the word to the zero's other copies.
  fetch(emitter, r1, 'zero');
  emit(emitter, xor(r1, index + 1), stx(8, r10, offset, r1));
}

/** No counter is pending yet. */
export function emitNothingPending(emitter: Emitter, pending: readonly number[]): void {
  if (pending.length === 0) return;
  for (const offset of pending) {
    fetch(emitter, r1, 'zero');
    emit(emitter, xor(r1, 0), stx(8, r10, offset, r1));
  }
}

/** Counts what is pending, then drops. */
export function emitFlush(emitter: Emitter, plan: CounterPlan): void {
  emit(emitter, label(FLUSH));
  for (const offset of plan.pending) emitCount(emitter, plan, offset);
  emit(emitter, ja(DROP));
}

function emitCount(emitter: Emitter, plan: CounterPlan, offset: number): void {
  const { layout } = plan;
  const next = newLabel(emitter, 'counted');
  emit(emitter, ldx(8, PROTO, r10, offset), jeq(PROTO, 0, next), add(PROTO, -1));
  emit(emitter, jgt(PROTO, layout.slots - 1, next));
  const key = keyArea(emitter);
  const oneEach = layout.slotsPerEntry === 1;
  if (oneEach) emit(emitter, stx(4, r10, key, PROTO));
  else {
    emit(emitter, mov32(r1, PROTO), rsh32(r1, Math.log2(layout.slotsPerEntry)));
    emit(emitter, stx(4, r10, key, r1));
  }
  emitMapLookup(emitter, layout.map, key);
  emit(emitter, jeq(r0, 0, next));
  const ingress = newLabel(emitter, 'length');
  const both = plan.ingress > 0 && plan.ingress < layout.slots;
  if (plan.ingress < layout.slots) fetch(emitter, r2, 'l3-length');
  if (both) emit(emitter, jge(PROTO, plan.ingress, ingress));
  if (plan.ingress > 0) fetch(emitter, r2, 'ingress-length');
  emit(emitter, label(ingress));
  if (!oneEach) {
    emit(emitter, and32(PROTO, layout.slotsPerEntry - 1), lsh(PROTO, 4), add(r0, PROTO));
  }
  if (layout.perCpu) {
    emit(emitter, ldx(8, r1, r0, 0), add(r1, 1), stx(8, r0, 0, r1));
    emit(emitter, ldx(8, r1, r0, 8), add(r1, r2), stx(8, r0, 8, r1));
  } else {
    emit(emitter, mov(r1, 1), atomicAdd(8, r0, 0, r1), atomicAdd(8, r0, 8, r2));
  }
  emit(emitter, label(next));
}
