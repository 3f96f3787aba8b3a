import { errorAt, fail, type Result, succeed } from '../../support/diagnostics.ts';
import { BTF_KIND, BTF_MAGIC } from './btf.ts';
import { MAP_TYPE_CODE, type MapDefinition, type MapType } from './maps.ts';

/** One type: `at` is where what its kind adds begins, `sizeOrType` the third word. */
interface BtfType {
  readonly name: string;
  readonly kind: number;
  readonly vlen: number;
  readonly sizeOrType: number;
  readonly at: number;
}

interface Btf {
  readonly view: DataView;
  /** By type number; number 0 is `void`. */
  readonly types: readonly (BtfType | null)[];
  readonly nameAt: (offset: number) => string;
}

/** Bytes after the common twelve, fixed and for each of `vlen`: include/uapi/linux/btf.h. */
const EXTRA_BYTES: ReadonlyMap<number, readonly [fixed: number, each: number]> = new Map([
  [1, [4, 0]], // INT
  [2, [0, 0]], // PTR
  [3, [12, 0]], // ARRAY
  [4, [0, 12]], // STRUCT
  [5, [0, 12]], // UNION
  [6, [0, 8]], // ENUM
  [7, [0, 0]], // FWD
  [8, [0, 0]], // TYPEDEF
  [9, [0, 0]], // VOLATILE
  [10, [0, 0]], // CONST
  [11, [0, 0]], // RESTRICT
  [12, [0, 0]], // FUNC
  [13, [0, 8]], // FUNC_PROTO
  [14, [4, 0]], // VAR
  [15, [0, 12]], // DATASEC
  [16, [0, 0]], // FLOAT
  [17, [4, 0]], // DECL_TAG
  [18, [0, 0]], // TYPE_TAG
  [19, [0, 12]], // ENUM64
]);

/** Kinds that only rename or qualify the type they point at. */
const TRANSPARENT: ReadonlySet<number> = new Set([8, 9, 10, 11, 18]);

const MAP_TYPES: ReadonlyMap<number, MapType> = new Map(
  Object.entries(MAP_TYPE_CODE).map(([name, code]) => [code, name as MapType]), // keys of that table
);

function readTypes(section: Uint8Array): Btf | null {
  const view = new DataView(section.buffer, section.byteOffset, section.byteLength);
  if (section.length < 24 || view.getUint16(0, true) !== BTF_MAGIC) return null;
  const headerBytes = view.getUint32(4, true);
  const start = headerBytes + view.getUint32(8, true);
  const end = start + view.getUint32(12, true);
  const strings = headerBytes + view.getUint32(16, true);
  const nameAt = (offset: number): string => {
    const from = strings + offset;
    return new TextDecoder().decode(section.subarray(from, section.indexOf(0, from)));
  };
  const types: (BtfType | null)[] = [null];
  for (let at = start; at < end; ) {
    const info = view.getUint32(at + 4, true);
    const kind = (info >>> 24) & 0x1f;
    const vlen = info & 0xffff;
    const extra = EXTRA_BYTES.get(kind);
    if (extra === undefined) return null;
    const name = nameAt(view.getUint32(at, true));
    types.push({ name, kind, vlen, sizeOrType: view.getUint32(at + 8, true), at: at + 12 });
    at += 12 + extra[0] + extra[1] * vlen;
  }
  return { view, types, nameAt };
}

function resolve(btf: Btf, number: number): BtfType | null {
  let type = btf.types[number] ?? null;
  while (type !== null && TRANSPARENT.has(type.kind)) type = btf.types[type.sizeOrType] ?? null;
  return type;
}

function sizeOf(btf: Btf, number: number): number {
  const type = resolve(btf, number);
  if (type === null) return 0;
  if (type.kind === BTF_KIND.ptr) return 8;
  if (type.kind !== BTF_KIND.array) return type.sizeOrType;
  return sizeOf(btf, btf.view.getUint32(type.at, true)) * btf.view.getUint32(type.at + 8, true);
}

/** The attributes of one map: numbers by `__uint`, sizes by `__type(key, ...)`. */
function readAttributes(btf: Btf, struct: BtfType): ReadonlyMap<string, number> {
  const attributes = new Map<string, number>();
  for (let member = 0; member < struct.vlen; member += 1) {
    const at = struct.at + member * 12;
    const name = btf.nameAt(btf.view.getUint32(at, true));
    const pointer = resolve(btf, btf.view.getUint32(at + 4, true));
    if (pointer?.kind !== BTF_KIND.ptr) continue;
    const pointee = resolve(btf, pointer.sizeOrType);
    if (name === 'key' || name === 'value') {
      attributes.set(`${name}_size`, sizeOf(btf, pointer.sizeOrType));
    } else if (pointee?.kind === BTF_KIND.array) {
      attributes.set(name, btf.view.getUint32(pointee.at + 8, true));
    }
  }
  return attributes;
}

function readMap(btf: Btf, variable: BtfType): Result<MapDefinition> {
  const struct = resolve(btf, variable.sizeOrType);
  const attributes = struct === null ? null : readAttributes(btf, struct);
  const type = MAP_TYPES.get(attributes?.get('type') ?? 0);
  if (attributes === null || type === undefined) {
    return fail(errorAt('ebpf/bad-object', `map ${variable.name} is of no known type`));
  }
  return succeed({
    name: variable.name,
    type,
    keySize: attributes.get('key_size') ?? 0,
    valueSize: attributes.get('value_size') ?? 0,
    maxEntries: attributes.get('max_entries') ?? 0,
    flags: attributes.get('map_flags') ?? 0,
  });
}

/**
 * The maps that a `.BTF` section defines in `.maps`, in order of their place there. Throws
 * `RangeError` when the section ends too early.
 */
export function readMapBtf(section: Uint8Array): Result<readonly MapDefinition[]> {
  const btf = readTypes(section);
  if (btf === null) return fail(errorAt('ebpf/bad-object', '.BTF cannot be read'));
  const datasec = btf.types.find(
    (type) => type?.kind === BTF_KIND.datasec && type.name === '.maps',
  );
  if (datasec === undefined || datasec === null) return succeed([]);
  const entries = Array.from({ length: datasec.vlen }, (_, index) => {
    const at = datasec.at + index * 12;
    return {
      variable: btf.types[btf.view.getUint32(at, true)] ?? null,
      offset: btf.view.getUint32(at + 4, true),
    };
  });
  const maps: MapDefinition[] = [];
  for (const { variable } of entries.toSorted((left, right) => left.offset - right.offset)) {
    if (variable === null) return fail(errorAt('ebpf/bad-object', '.maps names a type of no map'));
    const map = readMap(btf, variable);
    if (!map.ok) return map;
    maps.push(map.value);
  }
  return succeed(maps);
}
