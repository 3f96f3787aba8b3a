import { createByteWriter, createStringTable } from './byte-writer.ts';
import { MAP_TYPE_CODE, type MapDefinition } from './maps.ts';

/*
 * BTF (include/uapi/linux/btf.h, Documentation/bpf/btf.rst), as far as libbpf wants it for `.maps`:
 *
 *   header 24 B: magic:16 version:8 flags:8 | hdr_len | type_off | type_len | str_off | str_len
 *   type   12 B: name_off:32 | info:32 | size or type:32, then what the kind adds
 *
 *   info  31          30..29  28..24  23..16  15..0
 *        +-----------+------+-------+-------+------+
 *        | kind_flag |  0   | kind  |   0   | vlen |
 *        +-----------+------+-------+-------+------+
 *
 * A map is a VAR in the DATASEC `.maps` whose STRUCT has one member an attribute; the attribute's
 * number is the length of an ARRAY behind a PTR (`__uint` in tools/lib/bpf/bpf_helpers.h).
 */

/** BTF_MAGIC. */
export const BTF_MAGIC = 0xeb9f;
/** Bytes of struct btf_header. */
export const BTF_HEADER_BYTES = 24;

/** BTF_KIND_*, include/uapi/linux/btf.h. */
export const BTF_KIND = { int: 1, ptr: 2, array: 3, struct: 4, var: 14, datasec: 15 } as const;

/** BTF_INT_SIGNED in the encoding byte of an INT. */
const INT_SIGNED = 1 << 24;
/** BTF_VAR_GLOBAL_ALLOCATED. */
const LINKAGE_GLOBAL = 1;
/** Bytes of a pointer, the type of every attribute. */
const POINTER_BYTES = 8;

/** Name and number of each attribute, as libbpf's parse_btf_map_def() knows them. */
function mapAttributes(map: MapDefinition): readonly (readonly [string, number])[] {
  const attributes: (readonly [string, number])[] = [
    ['type', MAP_TYPE_CODE[map.type]],
    ['key_size', map.keySize],
    ['value_size', map.valueSize],
    ['max_entries', map.maxEntries],
  ];
  if (map.flags !== 0) attributes.push(['map_flags', map.flags]);
  return attributes;
}

/** Bytes of a map's variable in `.maps`. */
export function mapVariableBytes(map: MapDefinition): number {
  return mapAttributes(map).length * POINTER_BYTES;
}

/** The `.BTF` section that describes `maps`, which stand in `.maps` in this order. */
export function writeMapBtf(maps: readonly MapDefinition[]): Uint8Array {
  const types = createByteWriter();
  const strings = createStringTable();
  let count = 0;

  function addType(name: string, kind: number, vlen: number, sizeOrType: number): number {
    types.u32(strings.offset(name), (kind << 24) | vlen, sizeOrType);
    count += 1;
    return count;
  }

  const int = addType('int', BTF_KIND.int, 0, 4);
  types.u32(INT_SIGNED | 32);
  const index = addType('__ARRAY_SIZE_TYPE__', BTF_KIND.int, 0, 4);
  types.u32(32);

  const variables = maps.map((map) => {
    const attributes = mapAttributes(map).map(([name, value]) => {
      const array = addType('', BTF_KIND.array, 0, 0);
      types.u32(int, index, value);
      return { name, type: addType('', BTF_KIND.ptr, 0, array) };
    });
    const bytes = mapVariableBytes(map);
    const struct = addType('', BTF_KIND.struct, attributes.length, bytes);
    attributes.forEach(({ name, type }, position) => {
      types.u32(strings.offset(name), type, position * POINTER_BYTES * 8);
    });
    const type = addType(map.name, BTF_KIND.var, 0, struct);
    types.u32(LINKAGE_GLOBAL);
    return { type, bytes };
  });

  const total = variables.reduce((sum, { bytes }) => sum + bytes, 0);
  addType('.maps', BTF_KIND.datasec, variables.length, total);
  let offset = 0;
  for (const { type, bytes } of variables) {
    types.u32(type, offset, bytes);
    offset += bytes;
  }

  const stringBytes = strings.finish();
  const section = createByteWriter();
  section.u16(BTF_MAGIC);
  section.u8(1, 0);
  section.u32(BTF_HEADER_BYTES, 0, types.length(), types.length(), stringBytes.length);
  section.bytes(types.finish());
  section.bytes(stringBytes);
  return section.finish();
}
