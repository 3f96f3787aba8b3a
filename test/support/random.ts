/** A deterministic source of numbers; the same seed gives the same sequence everywhere. */
export interface Random {
  /** 0 to 2^32 - 1. */
  next(): number;
  /** 0 to `limit` - 1. */
  below(limit: number): number;
  /** `low` to `high`, both included. */
  between(low: number, high: number): number;
  /** True with this probability. */
  chance(probability: number): boolean;
  /** One of the items; throws on an empty list. */
  pick<T>(items: readonly T[]): T;
  bytes(length: number): Uint8Array;
}

/** splitmix32 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), 32-bit. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = state ^ (state >>> 16);
    mixed = Math.imul(mixed, 0x21f0aaad);
    mixed ^= mixed >>> 15;
    mixed = Math.imul(mixed, 0x735a2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  };
  const below = (limit: number): number => Math.floor((next() / 0x1_0000_0000) * limit);
  return {
    next,
    below,
    between: (low, high) => low + below(high - low + 1),
    chance: (probability) => next() / 0x1_0000_0000 < probability,
    pick: <T>(items: readonly T[]): T => {
      const item = items[below(items.length)];
      if (item === undefined) throw new Error('bug: pick from an empty list');
      return item;
    },
    bytes: (length) => {
      const data = new Uint8Array(length);
      let bits = 0;
      for (let index = 0; index < length; index += 1) {
        bits = index % 4 === 0 ? next() : bits >>> 8;
        data[index] = bits;
      }
      return data;
    },
  };
}
