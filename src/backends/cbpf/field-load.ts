import type { ViewName } from '../../ir/classifier.ts';
import { type Field, FRAME, fieldEnd, fieldKey, META } from '../../ir/fields.ts';
import { bits } from '../../support/bits.ts';
import { ancillary, type Size, type StraightInsn } from './insn.ts';
import type { Meaning, Place } from './meaning.ts';

/** How a field of at most 32 bits gets into A. */
export interface FieldLoad {
  readonly insns: readonly StraightInsn[];
  /** Bits of A below the field's last and above its first that belong to something else. */
  readonly below: number;
  readonly above: number;
  /** What A has more than the field's value (an offset of the header); with no bits beside it. */
  readonly plus: number;
}

const TH_ENDS_IP6 = 40; // RFC 8200 section 3

/** Instructions that load `size` bytes from `first` behind a base. */
export function loadBytes(
  meaning: Meaning,
  place: Place,
  base: Exclude<Field['base'], 'meta'>,
  first: number,
  size: Size,
): readonly StraightInsn[] {
  const { network } = place;
  if (base === 'll') return [{ kind: 'ld_abs', size, k: first }];
  if (base === 'nh') return [{ kind: 'ld_abs', size, k: network + first }];
  if (place.version === 6 && !meaning.indexIp6) {
    return [{ kind: 'ld_abs', size, k: network + TH_ENDS_IP6 + first }];
  }
  return [indexTransport(place), { kind: 'ld_ind', size, k: network + first }];
}

/** X = length of the IP header. */
export function indexTransport({ version, network }: Place): StraightInsn {
  return version === 6 ? { kind: 'ldx_imm', k: TH_ENDS_IP6 } : { kind: 'ldx_msh', k: network };
}

/** The bytes a field lies in, as one load; three bytes are loaded with the one before. */
function containerOf(field: Field): { readonly first: number; readonly size: Size } | null {
  const first = field.offset >> 3;
  const length = fieldEnd(field) - first;
  if (length === 1 || length === 2 || length === 4) return { first, size: length };
  return length === 3 ? { first: first - 1, size: 4 } : null;
}

/** Where a link-layer byte is when the outer tag is not in the packet; `k` counts it in. */
function linkLoad(
  field: Field,
  view: ViewName,
  place: Place,
): { readonly insn: StraightInsn; readonly from: number; readonly size: Size } | null {
  const container = containerOf(field);
  if (container === null || container.first < 0) return null;
  const { first, size } = container;
  const from = first;
  const end = first + size;
  if (end <= 12 || place.tags === 0)
    return { insn: { kind: 'ld_abs', size, k: first }, from, size };
  if (view === 'l3') {
    // The tag has gone there, and the type stands right behind the addresses.
    const shift = place.hiddenTag ? 0 : 4;
    return first >= 12 ? { insn: { kind: 'ld_abs', size, k: first + shift }, from, size } : null;
  }
  if (!place.hiddenTag) return { insn: { kind: 'ld_abs', size, k: first }, from, size };
  if (first >= 12 && end <= 14) {
    return { insn: ancillary('vlan_tpid'), from: 10, size: 4 };
  }
  if (first >= 14 && end <= 16) {
    return { insn: ancillary('vlan_tci'), from: 12, size: 4 };
  }
  return first >= 16 ? { insn: { kind: 'ld_abs', size, k: first - 4 }, from, size } : null;
}

function whole(...insns: readonly StraightInsn[]): FieldLoad {
  return { insns, below: 0, above: 0, plus: 0 };
}

/** The EtherType of a packet that is neither IPv4 nor IPv6. */
function loadProtocol({ dialect, linkType }: Meaning, { network }: Place): FieldLoad | null {
  if (dialect === 'linux') return whole(ancillary('proto'));
  switch (linkType) {
    case 'EN10MB':
      return whole({ kind: 'ld_abs', size: 2, k: network - 2 });
    case 'LINUX_SLL2':
      return whole({ kind: 'ld_abs', size: 2, k: network === 20 ? 0 : network - 2 });
    case 'RAW':
      return null;
  }
}

function loadLength(view: ViewName, { version, network }: Place): FieldLoad | null {
  if (view === 'ingress') return { ...whole({ kind: 'ld_len' }), plus: network };
  if (version === 4) return whole({ kind: 'ld_abs', size: 2, k: network + 2 });
  if (version === null) return null;
  return { ...whole({ kind: 'ld_abs', size: 2, k: network + 4 }), plus: -TH_ENDS_IP6 };
}

function loadMeta(meaning: Meaning, place: Place, field: Field, view: ViewName): FieldLoad | null {
  switch (fieldKey(field)) {
    case META.l4proto.name:
      if (place.version === null) return null;
      return whole({
        ...{ kind: 'ld_abs', size: 1 },
        k: place.network + (place.version === 4 ? 9 : 6),
      });
    case META.protocol.name:
      return place.version === null ? loadProtocol(meaning, place) : null;
    case META.length.name:
      return loadLength(view, place);
    case META.pkttype.name:
      if (meaning.dialect === 'linux') return whole(ancillary('type'));
      return meaning.linkType === 'LINUX_SLL2' ? whole({ kind: 'ld_abs', size: 1, k: 10 }) : null;
    default:
      return null;
  }
}

/** How a field of at most 32 bits is loaded from packets of one kind; null where it is not. */
export function loadField(
  meaning: Meaning,
  place: Place,
  field: Field,
  view: ViewName,
): FieldLoad | null {
  const { base } = field;
  if (base === 'meta') return loadMeta(meaning, place, field, view);
  const end = field.offset + field.width;
  if (base === 'll') {
    const link = linkLoad(field, view, place);
    if (link === null) return null;
    const { insn, from, size } = link;
    const below = (from + size) * 8 - end;
    return { insns: [insn], below, above: size * 8 - field.width - below, plus: 0 };
  }
  const container = containerOf(field);
  if (container === null) return null;
  const { first, size } = container;
  if (base === 'nh' && place.network + first < 0) return null;
  const below = (first + size) * 8 - end;
  const insns = loadBytes(meaning, place, base, first, size);
  return { insns, below, above: size * 8 - field.width - below, plus: 0 };
}

/** The same without anything more than the value in A. */
export function loadValue(
  meaning: Meaning,
  place: Place,
  field: Field,
  view: ViewName,
): FieldLoad | null {
  const load = loadField(meaning, place, field, view);
  if (load === null || load.plus === 0) return load;
  const sub = { kind: 'alu', op: 'sub', src: load.plus >>> 0 } as const;
  return { ...load, insns: [...load.insns, sub], plus: 0 };
}

/** A field as parts of at most 32 bits each, the most significant first; null where it has none. */
export function wordsOf(field: Field): readonly Field[] | null {
  if (field.width <= 32) {
    const container = containerOf(field);
    const outside = container !== null && container.first < 0 && field.base === 'll';
    return container === null || outside ? null : [field];
  }
  if (field.base === 'meta' || field.offset % 8 !== 0 || field.width % 8 !== 0) return null;
  const words: Field[] = [];
  for (let at = 0; at < field.width; at += 32) {
    const width = Math.min(32, field.width - at);
    const name = `${field.name} +${at / 8}`;
    words.push({ name, base: field.base, offset: bits(field.offset + at), width: bits(width) });
  }
  return words;
}

const LOADABLE: ReadonlySet<string> = new Set(
  [META.protocol, META.nfproto, META.l4proto, META.length, ...Object.values(FRAME)].map(fieldKey),
);

/** Why no program of this meaning can read a field, or null. */
export function fieldProblem(
  { dialect, linkType }: Pick<Meaning, 'dialect' | 'linkType'>,
  field: Field,
): string | null {
  if (field.base === 'meta') {
    if (fieldKey(field) === META.pkttype.name) {
      const known = dialect === 'linux' || linkType === 'LINUX_SLL2';
      return known ? null : `${field.name} is in no packet; --dialect linux knows it`;
    }
    if (fieldKey(field) === META.length.name && linkType === 'RAW') {
      return 'what came behind the IP packet is not there any more';
    }
    return LOADABLE.has(fieldKey(field)) ? null : `${field.name} is not in the packet`;
  }
  if (field.base === 'll' && linkType !== 'EN10MB') {
    return `packets of link type ${linkType} have no Ethernet header`;
  }
  return wordsOf(field) === null ? `${field.name} is too odd-sized to be loaded` : null;
}
