import { z } from 'zod';

/** The tag every profile file starts with. */
export const PROFILE_FORMAT = 'nft-offload/profile@1';

/** BPF_COMPLEXITY_LIMIT_INSNS, include/linux/bpf.h. */
const MOST_INSNS = 1_000_000;
/** MAX_BPF_STACK, include/linux/filter.h. */
const MOST_STACK = 512;
/** MAX_USED_MAPS, include/linux/bpf_verifier.h. */
const MOST_MAPS = 64;
/** Map sizes and entry counts are u32, union bpf_attr, include/uapi/linux/bpf.h. */
const MOST_U32 = 0xffff_ffff;
/** MAX_PACKET_OFF, kernel/bpf/verifier.c. */
const MOST_DEPTH = 0xffff;
/** BPF_MAXINSNS, include/uapi/linux/bpf_common.h. */
const MOST_CLASSIC_INSNS = 4096;
/** BPF_MEMWORDS, include/uapi/linux/filter.h. */
const MOST_SCRATCH_WORDS = 16;

const source = z
  .string()
  .regex(
    /\S{3}/,
    'a source says where it comes from: kernel file and symbol, document, measurement',
  )
  .describe('Where it comes from: kernel file and symbol, document and section, or measurement.');

/** A number in `unit`, between 1 and `most`, with its source. */
function quantity<U extends string>(unit: U, most: number, why: string) {
  return z.strictObject({
    value: z.int().min(1, 'must be at least 1').max(most, `impossible: at most ${most} (${why})`),
    unit: z.literal(unit, `the unit here is \`${unit}\``),
    source,
  });
}

/** A property that is not a number, with its source. */
function sourced<T extends z.ZodType>(value: T) {
  return z.strictObject({ value, source });
}

/** Groups of match fields; `raw` is `@ll`, `@nh` and `@th`, `meta` what the frame itself tells. */
export const MATCH_GROUPS = [
  'ethernet',
  'vlan',
  'arp',
  'ipv4',
  'ipv6',
  'transport',
  'icmp',
  'raw',
  'meta',
] as const;

const match = z
  .union([z.literal('all'), z.array(z.enum(MATCH_GROUPS)).min(1)])
  .describe('What the device can look at.');

const verdicts = z
  .array(z.enum(['drop', 'continue', 'permit']))
  .min(2)
  .refine((list) => list.includes('continue'), 'every device must be able to `continue`')
  .refine((list) => new Set(list).size === list.length, 'a verdict is listed twice');

const common = {
  $schema: z.string().optional(),
  format: z.literal(PROFILE_FORMAT),
  name: z
    .string()
    .regex(/^[a-z0-9][a-z0-9.-]*$/, 'a name is lower-case letters, digits, `-` and `.`'),
  description: z.string().min(1),
  match,
  verdicts,
};

const mapKind = z.strictObject({
  kind: z.enum(['array', 'hash', 'percpu_array', 'percpu_hash', 'lpm_trie']),
  maxEntries: quantity('entries', MOST_U32, 'max_entries is 32 bits'),
  maxValueBytes: quantity('bytes', MOST_U32, 'value_size is 32 bits'),
});

const maps = z.strictObject({
  kinds: z
    .array(mapKind)
    .refine(
      (kinds) => new Set(kinds.map(({ kind }) => kind)).size === kinds.length,
      'a kind of map is listed twice',
    ),
  maxMaps: quantity('maps', MOST_MAPS, 'MAX_USED_MAPS'),
  /** All maps of the device together; absent where only each map is limited. */
  totalEntries: quantity('entries', MOST_U32, 'max_entries is 32 bits').optional(),
  /** Key and value together, each rounded up to 8; absent where only each alone is limited. */
  maxElementBytes: quantity('bytes', MOST_U32, 'key_size and value_size are 32 bits').optional(),
});

const kernelVersion = z.string().regex(/^\d+\.\d+$/, 'a kernel version, as `6.6`');

const xdpLimits = z.strictObject({
  insns: quantity('insns', MOST_INSNS, 'BPF_COMPLEXITY_LIMIT_INSNS'),
  verifierInsns: quantity('insns', MOST_INSNS, 'BPF_COMPLEXITY_LIMIT_INSNS'),
  /** What the device's own compiler may produce; absent where BPF runs as it is. */
  deviceInsns: quantity('device-insns', MOST_U32, '32 bits').optional(),
  stack: quantity('bytes', MOST_STACK, 'MAX_BPF_STACK'),
  packetDepth: quantity('bytes', MOST_DEPTH, 'MAX_PACKET_OFF'),
  maps,
});

const receive = z.strictObject({
  /** Frames as on the wire, or as the kernel's receive path has already changed them. */
  sees: sourced(z.enum(['wire', 'received'])),
  /** `if-not-stripped`: the tag is in the data only when the NIC leaves it there. */
  vlanTag: sourced(z.enum(['in-frame', 'if-not-stripped'])),
  /** What an attached program does to GRO behind it. */
  gro: sourced(z.enum(['unchanged', 'switched-off'])),
  /** Own multicast looped back arrives without an Ethernet header. */
  loopedCopies: sourced(z.boolean()),
});

const instructions = z.strictObject({
  /** `.rodata`, `.data` and `.bss` sections may be used. */
  dataSections: sourced(z.boolean()),
  /** 32-bit jump offsets (`gotol`), and the first kernel that takes them. */
  gotol: sourced(z.strictObject({ allowed: z.boolean(), minKernel: kernelVersion.nullable() })),
  /** Forms the device's compiler refuses. */
  refused: sourced(
    z.array(z.enum(['mod', 'little-endian', 'store-immediate', 'store-to-map', 'loops', 'calls'])),
  ),
});

const xdpProfile = z.strictObject({
  ...common,
  kind: z.enum(['xdp-offload', 'xdp-native', 'xdp-generic']),
  /** The kernel driver this is for; null when it holds for every driver with this mode. */
  driver: z.string().min(1).nullable(),
  /** As `ip link set dev IF MODE ...` spells it. */
  attach: z.strictObject({ mode: z.enum(['xdpoffload', 'xdpdrv', 'xdpgeneric']) }),
  limits: xdpLimits,
  instructions,
  receive,
});

const cbpfProfile = z.strictObject({
  ...common,
  kind: z.literal('cbpf'),
  driver: z.string().min(1).nullable(),
  attach: z.strictObject({ mode: z.enum(['socket', 'xt_bpf', 'cls_bpf']) }),
  limits: z.strictObject({
    insns: quantity('insns', MOST_CLASSIC_INSNS, 'BPF_MAXINSNS'),
    scratch: quantity('words', MOST_SCRATCH_WORDS, 'BPF_MEMWORDS'),
  }),
});

const keyField = z.strictObject({
  /** As nft spells it: `ip saddr`, `tcp dport`. */
  field: z.string().min(1),
  bits: z.int().min(1, 'must be at least 1').max(128, 'impossible: no field is wider than 128'),
  /** How it is compared. */
  match: z.enum(['exact', 'prefix', 'ternary', 'range']),
});

const keySet = z.strictObject({
  name: z.string().min(1),
  key: z.array(keyField).min(1),
  /** Rows with this key alone; absent when only the total counts. */
  rows: quantity('rows', MOST_U32, '32 bits').optional(),
});

const tcamProfile = z.strictObject({
  ...common,
  kind: z.literal('tcam'),
  driver: z.string().min(1).nullable(),
  keySets: z.array(keySet).min(1),
  limits: z.strictObject({
    rows: quantity('rows', MOST_U32, '32 bits'),
    keyWidth: quantity('bits', 4096, 'no TCAM slice is wider'),
    /** Range comparators; absent where ranges have to be expanded into rows. */
    rangeUnits: quantity('ranges', MOST_U32, '32 bits').optional(),
    /** Absent where rows cannot count. */
    counters: quantity('counters', MOST_U32, '32 bits').optional(),
    priorities: quantity('priorities', MOST_U32, '32 bits').optional(),
  }),
});

/** The attach mode each kind of XDP profile must name. */
const MODE_OF_KIND = {
  'xdp-offload': 'xdpoffload',
  'xdp-native': 'xdpdrv',
  'xdp-generic': 'xdpgeneric',
} as const;

/** A profile file; everything in it is checked, unknown keys are refused. */
export const profileSchema = z
  .discriminatedUnion('kind', [xdpProfile, cbpfProfile, tcamProfile])
  .superRefine((profile, context) => {
    if (profile.kind === 'cbpf') return;
    if (profile.kind === 'tcam') {
      for (const [index, set] of profile.keySets.entries()) {
        const width = set.key.reduce((sum, { bits }) => sum + bits, 0);
        if (width <= profile.limits.keyWidth.value) continue;
        const message = `impossible: this key is ${width} bits, keyWidth allows ${profile.limits.keyWidth.value}`;
        context.addIssue({ code: 'custom', path: ['keySets', index, 'key'], message });
      }
      return;
    }
    const mode = MODE_OF_KIND[profile.kind];
    if (profile.attach.mode !== mode) {
      const message = `a profile of kind ${profile.kind} attaches by \`${mode}\``;
      context.addIssue({ code: 'custom', path: ['attach', 'mode'], message });
    }
    if (profile.limits.insns.value > profile.limits.verifierInsns.value) {
      const message = 'impossible: more instructions than the verifier walks (verifierInsns)';
      context.addIssue({ code: 'custom', path: ['limits', 'insns', 'value'], message });
    }
  });

/** What one device's tier can do; every number carries its source. */
export type Profile = Readonly<z.infer<typeof profileSchema>>;
/** A tier that runs BPF in the receive path. */
export type XdpProfile = Extract<Profile, { kind: 'xdp-offload' | 'xdp-native' | 'xdp-generic' }>;
export type CbpfProfile = Extract<Profile, { kind: 'cbpf' }>;
export type TcamProfile = Extract<Profile, { kind: 'tcam' }>;
/** A group of match fields. */
export type MatchGroup = (typeof MATCH_GROUPS)[number];
