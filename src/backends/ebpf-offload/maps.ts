/** Kinds of map that programs here use. */
export type MapType = 'array' | 'percpu_array' | 'hash' | 'lpm_trie';

/** enum bpf_map_type, include/uapi/linux/bpf.h. */
export const MAP_TYPE_CODE: Readonly<Record<MapType, number>> = {
  hash: 1,
  array: 2,
  percpu_array: 6,
  lpm_trie: 11,
};

/** BPF_F_NO_PREALLOC, include/uapi/linux/bpf.h: the kernel wants it on every LPM trie. */
export const BPF_F_NO_PREALLOC = 1;

/** A map that the loader creates; sizes in bytes. */
export interface MapDefinition {
  /** At most 15 letters, digits, `_`, `.` (BPF_OBJ_NAME_LEN). */
  readonly name: string;
  readonly type: MapType;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
}
