import { z } from 'zod';
import { MOST_U32, quantity, sourced } from './quantity.ts';
import { checkTcam, tcamShape } from './tcam-schema.ts';

/** The tag every profile file starts with. */
export const PROFILE_FORMAT = 'nft-offload/profile@1';

/** BPF_COMPLEXITY_LIMIT_INSNS, include/linux/bpf.h. */
const MOST_INSNS = 1_000_000;
/** MAX_BPF_STACK, include/linux/filter.h. */
const MOST_STACK = 512;
/** MAX_USED_MAPS, include/linux/bpf_verifier.h. */
const MOST_MAPS = 64;
/** MAX_PACKET_OFF, kernel/bpf/verifier.c. */
const MOST_DEPTH = 0xffff;
/** BPF_MAXINSNS, include/uapi/linux/bpf_common.h. */
const MOST_CLASSIC_INSNS = 4096;
/** BPF_MEMWORDS, include/uapi/linux/filter.h. */
const MOST_SCRATCH_WORDS = 16;

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
  .array(z.enum(['drop', 'continue', 'permit', 'trap']))
  .min(2)
  .refine((list) => list.includes('continue'), 'every device must be able to `continue`')
  .refine((list) => new Set(list).size === list.length, 'a verdict is listed twice');

const driver = z
  .union([z.string().min(1), z.array(z.string().min(1)).min(1), z.null()])
  .describe(
    'What `ethtool -i` calls the driver, or several that have the same limits; null when it holds for every driver, or when Linux has none.',
  );

const common = {
  $schema: z.string().optional(),
  format: z.literal(PROFILE_FORMAT),
  name: z
    .string()
    .regex(/^[a-z0-9][a-z0-9.-]*$/, 'a name is lower-case letters, digits, `-` and `.`'),
  description: z.string().min(1),
  driver,
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
  deviceInsns: quantity('device-insns').optional(),
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

/** Instructions and uses of them that a device's compiler may refuse. */
const REFUSED = [
  'mod',
  /** le16, le32, le64. */
  'little-endian',
  'store-immediate',
  'store-to-map',
  /** At a map value, by an offset that is not a constant. */
  'variable-map-offset',
  'variable-stack-offset',
  /** An operand beyond 32 bits. */
  'wide-multiply',
  'divide-by-register',
  /** All but a plain add. */
  'atomic-other',
  /** A word of a map value that is both added to atomically and read. */
  'read-of-atomic',
  /** A map's key that is not on the stack, or not aligned to 4 there. */
  'map-key',
  /** Words of the context beside the frame's start and end. */
  'context-other',
  /** All helpers but map look-ups. */
  'helper-other',
  /** One instruction that reaches different kinds of memory on different ways. */
  'mixed-pointers',
  'loops',
  'calls',
] as const;

const instructions = z.strictObject({
  /** `.rodata`, `.data` and `.bss` sections may be used. */
  dataSections: sourced(z.boolean()),
  /** 32-bit jump offsets (`gotol`), and the first kernel that takes them. */
  gotol: sourced(z.strictObject({ allowed: z.boolean(), minKernel: kernelVersion.nullable() })),
  /** Forms the device's compiler refuses. */
  refused: sourced(z.array(z.enum(REFUSED))),
});

const xdpProfile = z.strictObject({
  ...common,
  kind: z.enum(['xdp-offload', 'xdp-native', 'xdp-generic']),
  /** What `ethtool -i` must say in its firmware version; absent: any will do. */
  firmware: sourced(z.string().min(1)).optional(),
  /** As `ip link set dev IF MODE ...` spells it. */
  attach: z.strictObject({ mode: z.enum(['xdpoffload', 'xdpdrv', 'xdpgeneric']) }),
  limits: xdpLimits,
  instructions,
  receive,
});

/** A place that takes classic BPF, and how long a program may be there. */
const cbpfAttach = z.strictObject({
  mode: z.enum(['socket', 'xt_bpf', 'cls_bpf']),
  insns: quantity('insns', MOST_CLASSIC_INSNS, 'BPF_MAXINSNS'),
});

const cbpfProfile = z.strictObject({
  ...common,
  kind: z.literal('cbpf'),
  attach: z.array(cbpfAttach).min(1),
  limits: z.strictObject({
    insns: quantity('insns', MOST_CLASSIC_INSNS, 'BPF_MAXINSNS'),
    scratch: quantity('words', MOST_SCRATCH_WORDS, 'BPF_MEMWORDS'),
  }),
});

const tcamProfile = z.strictObject({
  ...common,
  kind: z.literal('tcam'),
  ...tcamShape,
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
    if (profile.kind === 'tcam') {
      checkTcam(profile, (path, message) =>
        context.addIssue({ code: 'custom', path: [...path], message }),
      );
      return;
    }
    if (profile.kind === 'cbpf') return;
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
