import type { CbpfProfile, Profile, TcamProfile, XdpProfile } from './schema.ts';

/** `1,024`. Number formats are made when asked for: most commands print none, and it takes a while. */
function group(value: number): string {
  return value.toLocaleString('en');
}

/** `1 row`, `1,024 rows`. */
function count(value: number, word: string): string {
  return `${group(value)} ${word}${value === 1 ? '' : 's'}`;
}

/** Array and hash maps of the kernel may have 2^31 entries, array_map_alloc in kernel/bpf/arraymap.c. */
const KERNEL_ENTRIES = 2 ** 31;

function describeXdp({ limits }: XdpProfile): string {
  const { deviceInsns, insns, maps } = limits;
  const length =
    deviceInsns === undefined
      ? count(insns.value, 'instruction')
      : count(deviceInsns.value, 'device instruction');
  const most = Math.max(0, ...maps.kinds.map(({ maxEntries }) => maxEntries.value));
  if (maps.totalEntries !== undefined) {
    return `${length}, ${group(maps.totalEntries.value)} map entries in all`;
  }
  return most === 0 || most >= KERNEL_ENTRIES
    ? `${length}, ${most === 0 ? 'no maps' : 'maps of any size'}`
    : `${length}, maps of ${group(most)} entries`;
}

function describeCbpf({ attach, limits }: CbpfProfile): string {
  const fewer = attach
    .filter(({ insns }) => insns.value < limits.insns.value)
    .map(({ mode, insns }) => `${group(insns.value)} in ${mode}`);
  const length = count(limits.insns.value, 'instruction');
  return fewer.length === 0 ? length : `${length}, ${fewer.join(', ')}`;
}

/** Rows that fit when all have this key, old and new ones at the same time not counted. */
export function rowsOfKeySet(profile: TcamProfile, name: string): number | null {
  const set = profile.keySets.find((candidate) => candidate.name === name);
  if (set === undefined) return null;
  const takes = set.takes?.value ?? 1;
  const { rows, defaultRows } = profile.limits;
  if (rows === undefined) return set.rows?.value ?? null;
  const free = Math.floor((rows.value - (defaultRows?.value ?? 0)) / takes);
  return Math.min(free, set.rows?.value ?? free);
}

function describeTcam(profile: TcamProfile): string {
  const { keySets, limits } = profile;
  // Key sets of which equally many rows fit are told by the first one.
  const sizes = new Map<number, string>();
  for (const { name } of keySets) {
    const rows = rowsOfKeySet(profile, name);
    if (rows !== null && !sizes.has(rows)) sizes.set(rows, name);
  }
  const alternatives = [...sizes].map(
    ([rows, name]) => `${group(rows)}${sizes.size === 1 ? '' : ` ${name}`}`,
  );
  const halved = limits.atomicUpdate?.value === 'doubles-rows' ? ' (half if atomic)' : '';
  const parts = [
    alternatives.length === 0 ? 'rows in memory' : `${alternatives.join(' or ')} rows${halved}`,
  ];
  if (limits.rangeUnits !== undefined) {
    const each = limits.rangeUnits.scope.value === 'row' ? ' a row' : '';
    parts.push(`${count(limits.rangeUnits.count.value, 'range')}${each}`);
  }
  if (limits.masks !== undefined) parts.push(count(limits.masks.value, 'mask'));
  return parts.join(', ');
}

/** What fits, in a few words. */
export function describeCapacity(profile: Profile): string {
  switch (profile.kind) {
    case 'xdp-offload':
    case 'xdp-native':
    case 'xdp-generic':
      return describeXdp(profile);
    case 'cbpf':
      return describeCbpf(profile);
    case 'tcam':
      return describeTcam(profile);
  }
}
