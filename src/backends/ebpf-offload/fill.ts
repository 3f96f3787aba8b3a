import { toHex } from '../../support/bits.ts';
import type { Memory } from './memory.ts';
import { READY } from './ready.ts';
import { keysOf, SET_VALUE, type SetMap } from './set-map.ts';

/** The ready cell's key, and what sets it. */
const READY_KEY = Uint8Array.of(0, 0, 0, 0);
const READY_VALUE = Uint8Array.of(1, 0, 0, 0);

function spaced(data: Uint8Array): string {
  return toHex(data).replace(/..(?=.)/g, '$& ');
}

function update(map: string, key: Uint8Array, value: Uint8Array): string {
  return `map update name ${map} key hex ${spaced(key)} value hex ${spaced(value)}`;
}

/**
 * A bpftool batch file that fills the maps and, last of all, sets the ready cell: `bpftool batch
 * file FILE`. Lines with `#` are for people.
 */
export function writeBatch(sets: readonly SetMap[]): Uint8Array {
  const lines = sets.flatMap((set) => {
    const { definition, name } = set;
    const keys = keysOf(set);
    return [
      `# ${definition.name}: ${name === null ? 'an anonymous set' : `set ${name}`}, ${keys.length} keys`,
      ...keys.map((key) => update(definition.name, key, SET_VALUE)),
    ];
  });
  lines.push('# from here on the program decides', update(READY.name, READY_KEY, READY_VALUE));
  return new TextEncoder().encode(`${lines.join('\n')}\n`);
}

/** Does to our interpreter's maps what the batch file does to the kernel's. */
export function fillMemory({ maps }: Memory, sets: readonly SetMap[]): void {
  if (sets.length === 0) return;
  for (const set of sets) {
    const map = maps.get(set.definition.name);
    for (const key of keysOf(set)) map?.update(key, SET_VALUE);
  }
  maps.get(READY.name)?.update(READY_KEY, READY_VALUE);
}
