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
  readonly refused: ReadonlySet<Refused>;
}

/** Key and value of a map together where the profile does not say: far beyond any key here. */
const ANY_ELEMENT = 4096;

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
    refused,
  };
}

/** Whether rules that lead to the same verdict become one look-up: where code is scarce, and maps are not. */
export function mergesRules({ scarceInsns, hashMaps }: Dialect): boolean {
  return scarceInsns && hashMaps !== null;
}
