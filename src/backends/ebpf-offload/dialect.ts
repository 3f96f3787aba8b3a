import type { XdpProfile } from '../../profile/schema.ts';

/** What a device's own compiler may refuse; see `instructions.refused` of a profile. */
export type Refused = XdpProfile['instructions']['refused']['value'][number];

/** How programs are written for a device. */
export interface Dialect {
  /** Sets may be read-only data. */
  readonly dataSections: boolean;
  /** Sets may be hash maps of so many entries and bytes; null: the device has none. */
  readonly hashMaps: { readonly maxEntries: number; readonly maxElementBytes: number } | null;
  /** A counter has a map entry of its own, since values are only reached at constant offsets. */
  readonly constantMapOffsets: boolean;
  /** The device compiles the program to few instructions: what is rare is left to the kernel. */
  readonly scarceInsns: boolean;
  /** IPv6 extension headers are walked; otherwise packets with them are left to the kernel. */
  readonly walksExtensions: boolean;
  readonly refused: ReadonlySet<Refused>;
}

/** Key and value of a map together where the profile does not say: far beyond any key here. */
const ANY_ELEMENT = 4096;

/**
 * Bytes of a frame that the walk over IPv6 extension headers may reach: behind a tagged Ethernet and the
 * IPv6 header, five headers of what their length is masked to, and half of the sixth; see prologue.ts.
 */
const WALK_DEPTH = 18 + 40 + 5 * 0xfff + 4;

/** The dialect that a profile asks for. */
export function dialectOf({ limits, instructions }: XdpProfile): Dialect {
  const refused = new Set(instructions.refused.value);
  const hash = limits.maps.kinds.find(({ kind }) => kind === 'hash');
  const { totalEntries, maxElementBytes } = limits.maps;
  return {
    dataSections: instructions.dataSections.value,
    hashMaps:
      hash === undefined
        ? null
        : {
            maxEntries: Math.min(
              hash.maxEntries.value,
              totalEntries?.value ?? Number.MAX_SAFE_INTEGER,
            ),
            maxElementBytes: maxElementBytes?.value ?? ANY_ELEMENT,
          },
    constantMapOffsets: refused.has('variable-map-offset'),
    scarceInsns: limits.deviceInsns !== undefined,
    walksExtensions: limits.deviceInsns === undefined && limits.packetDepth.value >= WALK_DEPTH,
    refused,
  };
}

/** Whether rules that lead to the same verdict become one look-up: where code is scarce, and maps are not. */
export function mergesRules({ scarceInsns, hashMaps }: Dialect): boolean {
  return scarceInsns && hashMaps !== null;
}
