import { CONTINUE, type Emitter, openEmitter } from './emitter.ts';
import { type Insn, jeq, jeq32, ldx, mov32, r0, r1, r10, stx } from './insn.ts';
import { keyArea } from './lookup-key.ts';
import { emitMapLookup } from './lookup-map.ts';
import type { MapDefinition } from './maps.ts';

/** One word that is not 0 once all sets have been filled. */
export const READY: MapDefinition = {
  ...{ name: 'ready', type: 'array', keySize: 4, valueSize: 4, maxEntries: 1, flags: 0 },
};

/**
 * Hands every frame on until the ready cell is set. It stands before all look-ups, not before the
 * drop: a frame must not look into a half-filled set and then find the cell set. r0-r5 are lost.
 */
export function readyCheck(within: Emitter): readonly Insn[] {
  const key = keyArea(within);
  const emitter: Emitter = { ...openEmitter(within.dialect, within.hook), key };
  emitter.insns.push(mov32(r1, 0), stx(4, r10, key, r1));
  emitMapLookup(emitter, READY.name, key);
  emitter.insns.push(jeq(r0, 0, CONTINUE), ldx(4, r1, r0, 0), jeq32(r1, 0, CONTINUE));
  return emitter.insns;
}
