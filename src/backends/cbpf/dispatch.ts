import type { Decision, Roots } from '../../ir/decision.ts';
import type { DecisionNode } from '../../ir/decision-nodes.ts';
import { META } from '../../ir/fields.ts';
import { type Asker, type FieldPiece, type Override, overlay } from './ask.ts';
import { choose } from './choose.ts';
import { type Code, type CodeTable, run, test } from './code.ts';
import { loadField } from './field-load.ts';
import { ancillary, type StraightInsn } from './insn.ts';
import {
  askFirst,
  asksTransport,
  lowerOther,
  lowerRoot,
  namesProtocol,
  readsLinkOnly,
  readsType,
} from './lower.ts';
import { LINK_HEADER, type Meaning, type Place } from './meaning.ts';

type Branch = Extract<DecisionNode, { kind: 'branch' }>;

// EtherTypes: include/uapi/linux/if_ether.h.
const ETH_P_IP = 0x0800;
const ETH_P_IPV6 = 0x86dd;
const ETH_P_8021Q = 0x8100;
const ETH_P_8021AD = 0x88a8;
/** Below it the field is a length (ETH_P_802_3_MIN). */
const ETH_P_802_3_MIN = 0x0600;
const VLAN_HLEN = 4;
const IPV4_MIN = 20;
const IPV6_HLEN = 40;

function abs(size: 1 | 2, k: number): StraightInsn {
  return { kind: 'ld_abs', size, k };
}

/** Goes on when the frame has that many bytes. */
function guardLength({ table, meaning }: Asker, bytes: number, code: Code): Code {
  const isNeeded = meaning.ingress.reads && meaning.failedLoad === 'reject';
  if (!isNeeded || code === table.pass) return code;
  return run(table, [{ kind: 'ld_len' }], test(table, 'jge', bytes, code, table.pass, null), null);
}

/** The frame holds the packet that its IP header tells of: `loads` give its length, less `more`. */
function guardTotal(
  { table }: Asker,
  loads: readonly StraightInsn[],
  more: number,
  code: Code,
): Code {
  const fits = test(table, 'jgt', 'x', table.pass, code, null);
  const add = { kind: 'alu', op: 'add', src: more } as const;
  return run(table, [...loads, ...(more > 0 ? [add] : []), { kind: 'ldx_len' }], fits, null);
}

/** Version, header length and total length as __nft_set_pktinfo_ipv4_validate() wants them. */
function guardIp(asker: Asker, code: Code): Code {
  const { table, place } = asker;
  const { network } = place;
  const total = abs(2, network + 2);
  const header = run(
    table,
    [{ kind: 'ldx_msh', k: network }, total],
    test(table, 'jge', 'x', code, table.pass, null),
    null,
  );
  const length = guardTotal(asker, [total], network, header);
  const low = test(table, 'jge', 0x45, length, table.pass, null);
  const version = test(table, 'jgt', 0x4f, table.pass, low, null);
  return run(table, [abs(1, network)], version, null);
}

/** Version and payload length as __nft_set_pktinfo_ipv6_validate() wants them; no jumbograms. */
function guardIp6(asker: Asker, code: Code): Code {
  const { table, place } = asker;
  const { network } = place;
  const length = guardTotal(asker, [], network + IPV6_HLEN, code);
  const payload = test(table, 'jeq', 0, table.pass, length, null);
  const low = test(
    table,
    'jge',
    0x60,
    run(table, [abs(2, network + 4)], payload, null),
    table.pass,
    null,
  );
  return run(table, [abs(1, network)], test(table, 'jgt', 0x6f, table.pass, low, null), null);
}

/** An IP root behind what must be true of its header. */
function lowerIp(asker: Asker, root: DecisionNode): Code {
  const { meaning, place, table } = asker;
  const code = lowerRoot(asker, root);
  if (code === table.pass || meaning.frames === 'well-formed') return code;
  const isIp4 = place.version === 4;
  const header = isIp4 ? IPV4_MIN : IPV6_HLEN;
  const isChecked = meaning.ingress.transport && asksTransport(root);
  const guard = isIp4 ? guardIp : guardIp6;
  return guardLength(asker, place.network + header, isChecked ? guard(asker, code) : code);
}

interface Dispatcher {
  readonly table: CodeTable;
  readonly meaning: Meaning;
}

function askerAt({ table, meaning }: Dispatcher, place: Place): Asker {
  return { table, meaning, place };
}

/** The question that all kinds of packets are asked first, where it is about the Ethernet header. */
function commonQuestion({ ip, ip6, other }: Roots): Branch | null {
  const branches = [ip, ip6, other].filter((root) => root.kind === 'branch');
  const [first] = branches;
  if (first === undefined || first.question.kind === 'present') return null;
  const leaves = [ip, ip6, other].filter((root) => root.kind === 'leaf');
  const isCommon = branches.every(
    ({ question, no }) => question === first.question && no === first.no,
  );
  return isCommon && leaves.every((leaf) => leaf === first.no) && readsLinkOnly(first.question)
    ? first
    : null;
}

/** Packets by their EtherType; `type` loads it, `tag` is where tagged ones go. */
function dispatchType(
  dispatcher: Dispatcher,
  roots: Roots,
  place: Omit<Place, 'version'>,
  type: readonly StraightInsn[],
  tag: Code | null,
): Code {
  const { meaning, table } = dispatcher;
  const common = commonQuestion(roots);
  if (common !== null && common.no.kind === 'leaf') {
    const behind = (root: DecisionNode): DecisionNode => (root.kind === 'branch' ? root.yes : root);
    const { ip, ip6, other } = roots;
    const left = { ip: behind(ip), ip6: behind(ip6), other: behind(other) };
    return askFirst(askerAt(dispatcher, { ...place, version: null }), common, {
      yes: dispatchType(dispatcher, left, place, type, tag),
      no: common.no.verdict === 'drop' ? table.drop : table.pass,
      rule: common.rule,
    });
  }
  const other = askerAt(dispatcher, { ...place, version: null });
  const ip = lowerIp(askerAt(dispatcher, { ...place, version: 4 }), roots.ip);
  const ip6 = lowerIp(askerAt(dispatcher, { ...place, version: 6 }), roots.ip6);
  const overrides: Override[] = [
    { lo: ETH_P_IP, hi: ETH_P_IP, to: ip },
    { lo: ETH_P_IPV6, hi: ETH_P_IPV6, to: ip6 },
  ];
  if (tag !== null) {
    overrides.push({ lo: ETH_P_8021Q, hi: ETH_P_8021Q, to: tag });
    overrides.push({ lo: ETH_P_8021AD, hi: ETH_P_8021AD, to: tag });
  }
  if (meaning.frames === 'any' && meaning.dialect === 'portable') {
    overrides.push({ lo: 0, hi: ETH_P_802_3_MIN - 1, to: table.pass });
  }
  const pieces = overlay(lowerOther(other, roots.other), overrides);
  return choosePieces(dispatcher, pieces, type);
}

function choosePieces(
  { table, meaning }: Dispatcher,
  pieces: readonly FieldPiece[],
  load: readonly StraightInsn[],
  top = 0xffff,
): Code {
  const numbers = pieces.map((piece) => ({ ...piece, from: Number(piece.from) }));
  const choice = choose(table, numbers, { top, leaf: meaning.leaf });
  return choice.kind === 'ret' ? choice : run(table, load, choice, null);
}

/** Both tags of a stacked frame are asked for by what stands in the packet. */
function lowerStacked(dispatcher: Dispatcher, root: DecisionNode, place: Place): Code {
  const asker = askerAt(dispatcher, place);
  const pieces = lowerOther(asker, root);
  const load = loadField(dispatcher.meaning, place, META.protocol, 'ingress');
  if (load === null) return dispatcher.table.pass;
  return pieces.length === 1
    ? (pieces[0]?.to ?? dispatcher.table.pass)
    : choosePieces(dispatcher, pieces, load.insns);
}

/** Whether tags make no difference: neither to the rules, nor to where what they read is. */
function sameRoots(a: Roots, b: Roots): boolean {
  if (a.ip !== b.ip || a.ip6 !== b.ip6 || a.other !== b.other) return false;
  return ![a.ip, a.ip6, a.other].some(readsType);
}

/** Whether a rule names tags: by their EtherTypes or their bytes. */
function asksTags({ untagged, tagged, stacked }: Decision): boolean {
  const roots = [untagged, tagged].flatMap(({ ip, ip6, other }) => [ip, ip6, other]);
  return [...roots, stacked].some(
    (root) => readsType(root) || namesProtocol(root, [ETH_P_8021Q, ETH_P_8021AD]),
  );
}

/** Tags stand in the packet, as on the wire. */
function dispatchWire(dispatcher: Dispatcher, decision: Decision): Code {
  const { meaning } = dispatcher;
  const network = LINK_HEADER[meaning.linkType];
  const inner = network + VLAN_HLEN;
  const behindTag = { network: inner, hiddenTag: false } as const;
  const isAsked = meaning.frames === 'any' || asksTags(decision);
  const stackedPlace = { ...behindTag, version: null, tags: 2 } as const;
  const stacked = lowerStacked(dispatcher, decision.stacked, stackedPlace);
  const innerType = [abs(2, inner - 2)];
  const tagged = isAsked
    ? dispatchType(dispatcher, decision.tagged, { ...behindTag, tags: 1 }, innerType, stacked)
    : null;
  const type = [abs(2, meaning.linkType === 'LINUX_SLL2' ? 0 : network - 2)];
  const place = { network, hiddenTag: false, tags: 0 } as const;
  return dispatchType(dispatcher, decision.untagged, place, type, tagged);
}

/** The kernel has taken the outer tag out of the packet. */
function dispatchHidden(dispatcher: Dispatcher, decision: Decision): Code {
  const { table, meaning } = dispatcher;
  const { untagged, tagged } = decision;
  const network = LINK_HEADER[meaning.linkType];
  const type = [ancillary('proto')];
  const stackedPlace = { network, hiddenTag: true, version: null, tags: 2 } as const;
  const stacked = lowerStacked(dispatcher, decision.stacked, stackedPlace);
  const place = { network, hiddenTag: true } as const;
  const plain = dispatchType(dispatcher, untagged, { ...place, tags: 0 }, type, stacked);
  const tag = sameRoots(untagged, tagged)
    ? plain
    : dispatchType(dispatcher, tagged, { ...place, tags: 1 }, type, stacked);
  const choice = test(table, 'jeq', 0, plain, tag, null);
  const code = choice === plain ? plain : run(table, [ancillary('vlan_avail')], choice, null);
  return meaning.frames === 'any' ? guardLooped(table, code) : code;
}

/** PACKET_LOOPBACK, include/uapi/linux/if_packet.h. */
const PACKET_LOOPBACK = 5;

/** Copies of own multicast come without an Ethernet header (dev_loopback_xmit(), net/core/dev.c). */
function guardLooped(table: CodeTable, code: Code): Code {
  if (code === table.pass) return code;
  const choice = test(table, 'jeq', PACKET_LOOPBACK, table.pass, code, null);
  return run(table, [ancillary('type')], choice, null);
}

/**
 * Packets start with their IP header, whose version tells them apart. Where it is checked anyway, the
 * shortest header length is asked for in the same breath.
 */
function dispatchRaw(dispatcher: Dispatcher, { untagged }: Decision): Code {
  const { frames, ingress } = dispatcher.meaning;
  const isChecked = frames === 'any' && ingress.transport && asksTransport(untagged.ip);
  const place = { network: 0, hiddenTag: true, tags: 0 } as const;
  const asker = askerAt(dispatcher, { ...place, version: 4 });
  const ip = lowerIp(asker, untagged.ip);
  const ip6 = lowerIp(askerAt(dispatcher, { ...place, version: 6 }), untagged.ip6);
  const pieces = overlay(
    [{ from: 0n, to: dispatcher.table.pass, rule: null }],
    [
      { lo: isChecked ? 0x45 : 0x40, hi: 0x4f, to: ip },
      { lo: 0x60, hi: 0x6f, to: ip6 },
    ],
  );
  return choosePieces(dispatcher, pieces, [abs(1, 0)], 0xff);
}

/** A whole decision as code. */
export function lowerDecision(table: CodeTable, meaning: Meaning, decision: Decision): Code {
  const dispatcher = { table, meaning };
  if (meaning.linkType === 'RAW') return dispatchRaw(dispatcher, decision);
  return meaning.dialect === 'linux'
    ? dispatchHidden(dispatcher, decision)
    : dispatchWire(dispatcher, decision);
}
