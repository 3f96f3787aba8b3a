import { toHex } from '../../support/bits.ts';
import type { ObjectData } from './elf.ts';
import type { MapDefinition } from './maps.ts';

/*
 * Addresses of the interpreter: the high half says which region, the low half which byte of it.
 * Regions begin at a low half of REGION_START, so that stepping out on either side stays visible.
 *
 *  63                    32 31                     0
 *  +-----------------------+-----------------------+
 *  | REGION_BASE + region  | REGION_START + byte   |
 *  +-----------------------+-----------------------+
 */

/** High half of region 0's addresses; anything that is no plausible number will do. */
export const REGION_BASE = 0x0bf0_0000;
/** High half of the address of map 0 itself, which helpers take and programs cannot look into. */
export const MAP_BASE = 0x0bf8_0000;
/** Low half of a region's first byte. */
export const REGION_START = 0x1000_0000;

/** Bytes that a program may reach. */
export interface Region {
  readonly name: string;
  readonly view: DataView;
  readonly isWritable: boolean;
  /** Bytes from one element to the next, and how many of them belong to it. */
  readonly stride: number;
  readonly elementSize: number;
  /** 1 for each byte that holds something; null when all do. */
  readonly written: Uint8Array | null;
  /** Bytes that exist; packets shrink and grow. */
  size: number;
}

/** A map with its contents, as the program and those outside see it. */
export interface MapStore {
  readonly definition: MapDefinition;
  readonly region: Region;
  /** Byte of the region where the value of `key` begins, or -1. */
  readonly find: (key: Uint8Array) => number;
  /** A copy of the value, or null when the key is absent. */
  readonly read: (key: Uint8Array) => Uint8Array | null;
  /** Adds or replaces; a full map or a wrong size is a bug of the caller. */
  readonly update: (key: Uint8Array, value: Uint8Array) => void;
}

/** What programs of one object share. */
export interface Memory {
  readonly maps: ReadonlyMap<string, MapStore>;
  readonly data: ReadonlyMap<string, Region>;
}

export function createRegion(name: string, bytes: Uint8Array, isWritable: boolean): Region {
  return {
    name,
    view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    isWritable,
    stride: Math.max(bytes.length, 1),
    elementSize: bytes.length,
    written: null,
    size: bytes.length,
  };
}

/** Finds the element number of a key, or makes one for it. */
interface Keys {
  /** -1 when the key is absent. */
  readonly find: (key: Uint8Array) => number;
  /** -1 when the map is full or cannot hold the key. */
  readonly insert: (key: Uint8Array) => number;
}

/** Array maps: the key is the element's number, 32 bits in host order. */
function arrayKeys(maxEntries: number): Keys {
  const find = (key: Uint8Array): number => {
    const [a = 0, b = 0, c = 0, d = 0] = key;
    const index = (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
    return index < maxEntries ? index : -1;
  };
  return { find, insert: find };
}

function hashKeys(maxEntries: number): Keys {
  const numbers = new Map<string, number>();
  return {
    find: (key) => numbers.get(toHex(key)) ?? -1,
    insert: (key) => {
      const text = toHex(key);
      const known = numbers.get(text);
      if (known !== undefined) return known;
      if (numbers.size >= maxEntries) return -1;
      numbers.set(text, numbers.size);
      return numbers.size - 1;
    },
  };
}

/**
 * Longest prefixes. Key: struct bpf_lpm_trie_key (include/uapi/linux/bpf.h), a prefix length of 32
 * bits in host order, then the data, most significant byte first.
 */
function lpmKeys(maxEntries: number): Keys {
  const numbers = new Map<string, number>();
  const lengths = new Set<number>();
  const lengthOf = ([a = 0, b = 0, c = 0, d = 0]: Uint8Array): number =>
    (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
  const prefix = (key: Uint8Array, length: number): string => {
    const data = key.slice(4);
    const whole = length >> 3;
    data.forEach((byte, index) => {
      if (index > whole) data[index] = 0;
      else if (index === whole) data[index] = byte & ~(0xff >> (length & 7));
    });
    return `${length}/${toHex(data)}`;
  };
  return {
    find: (key) => {
      const limit = lengthOf(key);
      const candidates = [...lengths].filter((length) => length <= limit);
      for (const length of candidates.sort((left, right) => right - left)) {
        const number = numbers.get(prefix(key, length));
        if (number !== undefined) return number;
      }
      return -1;
    },
    insert: (key) => {
      const length = lengthOf(key);
      if (length > (key.length - 4) * 8) return -1;
      const text = prefix(key, length);
      const known = numbers.get(text);
      if (known !== undefined) return known;
      if (numbers.size >= maxEntries) return -1;
      lengths.add(length);
      numbers.set(text, numbers.size);
      return numbers.size - 1;
    },
  };
}

function createKeys({ type, maxEntries }: MapDefinition): Keys {
  switch (type) {
    case 'array':
    case 'percpu_array':
      return arrayKeys(maxEntries);
    case 'hash':
      return hashKeys(maxEntries);
    case 'lpm_trie':
      return lpmKeys(maxEntries);
  }
}

function createMap(definition: MapDefinition): MapStore {
  const { name, keySize, valueSize, maxEntries } = definition;
  const stride = Math.ceil(valueSize / 8) * 8;
  const bytes = new Uint8Array(stride * maxEntries);
  const region: Region = {
    ...createRegion(name, bytes, true),
    stride,
    elementSize: valueSize,
    size: Math.max(bytes.length - stride + valueSize, 0),
  };
  const keys = createKeys(definition);
  const find = (key: Uint8Array): number => {
    const number = keys.find(key);
    return number === -1 ? -1 : number * stride;
  };
  return {
    definition,
    region,
    find,
    read: (key) => {
      const at = find(key);
      return at === -1 ? null : bytes.slice(at, at + valueSize);
    },
    update: (key, value) => {
      const number = key.length === keySize ? keys.insert(key) : -1;
      if (number === -1 || value.length !== valueSize) {
        throw new Error(`bug: map ${name} cannot hold ${toHex(key)}: ${toHex(value)}`);
      }
      bytes.set(value, number * stride);
    },
  };
}

/** Empty maps (arrays: zeros) and a copy of the data, as the kernel makes them when it loads. */
export function createMemory(maps: readonly MapDefinition[], data: readonly ObjectData[]): Memory {
  return {
    maps: new Map(maps.map((map) => [map.name, createMap(map)])),
    data: new Map(
      data.map(({ name, content }) => [
        name,
        createRegion(name, content.slice(), !name.startsWith('.rodata')),
      ]),
    ),
  };
}
