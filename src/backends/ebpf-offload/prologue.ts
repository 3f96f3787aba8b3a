import type { Decision, Roots } from '../../ir/decision.ts';
import type { DecisionNode } from '../../ir/decision-nodes.ts';
import type { Dialect } from './dialect.ts';
import {
  CONTINUE,
  type Emitter,
  END,
  emit,
  fetch,
  NH,
  newLabel,
  nodeLabel,
  PROTO,
  type SlotName,
  store,
  TH,
} from './emitter.ts';
import {
  add,
  and,
  and32,
  be,
  ja,
  jeq32,
  jgt,
  jgt32,
  jlt32,
  jne32,
  jset,
  jset32,
  label,
  ldImm64,
  ldx,
  lsh32,
  mov,
  mul,
  r0,
  r1,
  r2,
  r3,
  r4,
  r5,
  rsh,
  rsh32,
  sub,
  xor,
} from './insn.ts';

/** What the questions need beside the header pointers. */
export interface Needs {
  readonly slots: ReadonlySet<SlotName>;
  readonly transport: boolean;
}

// EtherTypes as a little-endian load reads them: include/uapi/linux/if_ether.h.
const LE_IP = 0x0008;
const LE_IPV6 = 0xdd86;
const LE_8021Q = 0x0081;
const LE_8021AD = 0xa888;
const ETH_HLEN = 14;
const VLAN_HLEN = 4;
const ETH_P_802_3_MIN = 0x0600;
const ETH_P_IP = 0x0800;
const ETH_P_IPV6 = 0x86dd;
// Packet families: include/uapi/linux/netfilter.h.
const NFPROTO_IPV4 = 2;
const NFPROTO_NETDEV = 5;
const NFPROTO_IPV6 = 10;

function isContinue(node: DecisionNode): boolean {
  return node.kind === 'leaf' && node.verdict === 'continue';
}

function rootsContinue(roots: Roots): boolean {
  return isContinue(roots.ip) && isContinue(roots.ip6) && isContinue(roots.other);
}

/**
 * Finds the headers and hands every odd frame on, exactly as the table in ir/packet.ts says, then
 * goes to the decision's root. `emitStart` may add what must run once. Control never reaches the
 * end of what is emitted.
 */
export function emitPrologue(
  emitter: Emitter,
  decision: Decision,
  needs: Needs,
  emitStart: () => void,
): void {
  const { data, dataEnd } = emitter.hook;
  emit(emitter, ldx(4, END, r1, dataEnd), ldx(4, NH, r1, data));
  emit(emitter, mov(r0, NH), add(r0, ETH_HLEN), jgt(r0, END, CONTINUE));
  if (needs.slots.has('frame')) store(emitter, 'frame', NH);
  if (needs.slots.has('zero')) emitUnknownZero(emitter);
  emitZeros(emitter, needs);
  emitStart();
  emit(emitter, ldx(2, r0, NH, ETH_HLEN - 2));
  const tagged = newLabel(emitter, 'tagged');
  const tags = !rootsContinue(decision.tagged) || !isContinue(decision.stacked);
  const untagged = openRoots(emitter, decision.untagged);
  emitDispatch(emitter, untagged, needs, ETH_HLEN, tags ? tagged : CONTINUE);
  if (!tags) {
    emitPackets(emitter, untagged, needs, ETH_HLEN);
    return;
  }
  emit(emitter, label(tagged), mov(r0, NH), add(r0, ETH_HLEN + VLAN_HLEN + 2));
  emit(emitter, jgt(r0, END, CONTINUE), ldx(2, r0, NH, ETH_HLEN + 2));
  const stacked = newLabel(emitter, 'stacked');
  const behindTag = openRoots(emitter, decision.tagged);
  emitDispatch(emitter, behindTag, needs, ETH_HLEN + VLAN_HLEN, stacked);
  emit(emitter, label(stacked));
  emitOther(emitter, decision.stacked, needs, ETH_HLEN + VLAN_HLEN);
  // What is asked behind a tag is mostly what is asked without: the same code, 4 bytes further on.
  for (const kind of ['ip', 'ip6'] as const) {
    if (behindTag[kind] === CONTINUE || decision.tagged[kind] !== decision.untagged[kind]) continue;
    emit(emitter, label(behindTag[kind]), add(NH, VLAN_HLEN), ja(untagged[kind]));
  }
  emitPackets(emitter, untagged, needs, ETH_HLEN);
  emitPackets(emitter, behindTag, needs, ETH_HLEN + VLAN_HLEN, decision.untagged);
}

/** Roots with the labels of what finds the headers in front of them. */
interface OpenRoots {
  readonly roots: Roots;
  readonly ip: string;
  readonly ip6: string;
}

function openRoots(emitter: Emitter, roots: Roots): OpenRoots {
  return {
    roots,
    ip: isContinue(roots.ip) ? CONTINUE : newLabel(emitter, 'ip'),
    ip6: isContinue(roots.ip6) ? CONTINUE : newLabel(emitter, 'ip6'),
  };
}

/**
 * A zero the verifier knows nothing about: b & (b ^ 1) is 0 for a bit b, and the product with
 * unknown bits overflows whatever bounds it had tracked. What is added to it looks the same on all paths.
 */
function emitUnknownZero(emitter: Emitter): void {
  // 32 bits, since the NFP multiplies no more.
  emit(emitter, ldx(4, r2, NH, 0), mov(r3, r2), and32(r3, 1), mov(r4, r3), xor(r4, 1));
  emit(emitter, and(r3, r4), mul(r3, r2));
  store(emitter, 'zero', r3);
}

/** Words that only some kinds of packets fill must not be read unwritten. */
function emitZeros(emitter: Emitter, needs: Needs): void {
  const words = (['l3-length', 'transport-left', 'fragment'] as const).filter((name) =>
    needs.slots.has(name),
  );
  if (words.length === 0) return;
  emit(emitter, mov(r2, 0));
  for (const name of words) store(emitter, name, r2);
}

/** By EtherType in r0 (as loaded): to IPv4, IPv6, `tag` or the rest; `network` bytes in front. */
function emitDispatch(
  emitter: Emitter,
  { roots, ip, ip6 }: OpenRoots,
  needs: Needs,
  network: number,
  tag: string,
): void {
  emit(emitter, jeq32(r0, LE_IP, ip), jeq32(r0, LE_IPV6, ip6));
  emit(emitter, jeq32(r0, LE_8021Q, tag), jeq32(r0, LE_8021AD, tag));
  emitOther(emitter, roots.other, needs, network);
}

/** Finds the headers of IPv4 and IPv6; roots that are also in `done` have been emitted. */
function emitPackets(
  emitter: Emitter,
  { roots, ip, ip6 }: OpenRoots,
  needs: Needs,
  network: number,
  done: Roots | null = null,
): void {
  if (ip !== CONTINUE && roots.ip !== done?.ip) {
    emit(emitter, label(ip));
    emitIp(emitter, needs, network);
    emit(emitter, ja(nodeLabel(roots.ip)));
  }
  if (ip6 !== CONTINUE && roots.ip6 !== done?.ip6) {
    emit(emitter, label(ip6));
    emitIp6(emitter, needs, network);
    emit(emitter, ja(nodeLabel(roots.ip6)));
  }
}

/** What is the same for all packets of a kind: asked only inside the keys of look-ups. */
function emitKind(emitter: Emitter, needs: Needs, protocol: number | 'r0', nfproto: number): void {
  if (needs.slots.has('protocol')) {
    if (typeof protocol === 'number') emit(emitter, mov(r0, protocol));
    store(emitter, 'protocol', r0);
  }
  if (!needs.slots.has('nfproto')) return;
  emit(emitter, mov(r2, nfproto));
  store(emitter, 'nfproto', r2);
}

/** Moves `NH` behind what stands in front, from where the length at ingress counts. */
function emitNetwork(emitter: Emitter, needs: Needs, network: number): void {
  emit(emitter, add(NH, network));
  if (!needs.slots.has('ingress-length')) return;
  emit(emitter, mov(r2, END), sub(r2, NH));
  store(emitter, 'ingress-length', r2);
}

/** Neither IPv4 nor IPv6; r0 holds the EtherType as loaded. */
function emitOther(emitter: Emitter, root: DecisionNode, needs: Needs, network: number): void {
  if (isContinue(root)) {
    emit(emitter, ja(CONTINUE));
    return;
  }
  emit(emitter, be(16, r0), jlt32(r0, ETH_P_802_3_MIN, CONTINUE));
  emitKind(emitter, needs, 'r0', NFPROTO_NETDEV);
  emitNetwork(emitter, needs, network);
  // No transport header, no protocol number; nobody asks, but the verifier compares the registers.
  emit(emitter, mov(PROTO, 0), mov(TH, NH), ja(nodeLabel(root)));
}

/** r2 = the length at `offset`; to the verifier of Linux 6.1, what is swapped may be any number. */
function emitLength(emitter: Emitter, offset: number): void {
  emit(emitter, ldx(2, r2, NH, offset), be(16, r2), and32(r2, 0xffff));
}

/** IPv4 (RFC 791): version, header length and total length must fit the frame. */
function emitIp(emitter: Emitter, needs: Needs, network: number): void {
  emitKind(emitter, needs, ETH_P_IP, NFPROTO_IPV4);
  emitNetwork(emitter, needs, network);
  emit(emitter, mov(r0, NH), add(r0, 20), jgt(r0, END, CONTINUE));
  emit(emitter, ldx(1, r1, NH, 0), mov(r2, r1), rsh32(r2, 4), jne32(r2, 4, CONTINUE));
  emit(emitter, and32(r1, 0x0f), jlt32(r1, 5, CONTINUE), lsh32(r1, 2));
  emitLength(emitter, 2);
  emit(emitter, jgt32(r1, r2, CONTINUE));
  emit(emitter, mov(r3, NH), add(r3, r2), jgt(r3, END, CONTINUE));
  emit(emitter, ldx(1, PROTO, NH, 9));
  if (needs.slots.has('l3-length')) store(emitter, 'l3-length', r2);
  emit(emitter, mov(TH, NH));
  if (!needs.transport) return;
  emit(emitter, add(TH, r1));
  if (!needs.slots.has('transport-left')) return;
  emit(emitter, sub(r2, r1));
  store(emitter, 'transport-left', r2);
}

/** Extension headers: hop-by-hop 0, routing 43, fragment 44, AH 51, options 60. */
const EXTENSIONS = [0, 43, 44, 51, 60];
const WALKED = EXTENSIONS.reduce((bits, header) => bits | (1n << BigInt(header)), 0n);
const HIGHEST_WALKED = 60;
const HEADERS_WALKED = 6;
const AH = 51;
const FRAGMENT = 44;
const FRAGMENT_OFFSET = 0xfff8; // RFC 8200 section 4.5
/** Sizes of extension headers: 8 to 2,048 bytes (RFC 8200 section 4). */
const SIZE_MASK = 0xfff;
/** More than any offset of a transport header that six extension headers allow. */
const OFFSET_MASK = 0x3fff;

/** IPv6 (RFC 8200): r1 is the offset walked to, r2 the packet's end, both from the header. */
function emitIp6(emitter: Emitter, needs: Needs, network: number): void {
  emitKind(emitter, needs, ETH_P_IPV6, NFPROTO_IPV6);
  emitNetwork(emitter, needs, network);
  emit(emitter, mov(r0, NH), add(r0, 40), jgt(r0, END, CONTINUE));
  emit(emitter, ldx(1, r1, NH, 0), rsh32(r1, 4), jne32(r1, 6, CONTINUE));
  emitLength(emitter, 4);
  emit(emitter, jeq32(r2, 0, CONTINUE), add(r2, 40));
  emit(emitter, mov(r3, NH), add(r3, r2), jgt(r3, END, CONTINUE));
  if (needs.slots.has('l3-length')) store(emitter, 'l3-length', r2);
  emit(emitter, ldx(1, PROTO, NH, 6));
  if (!emitter.dialect.walksExtensions) {
    emitNoWalk(emitter, needs);
    return;
  }
  emit(emitter, mov(r1, 40));
  const done = newLabel(emitter, 'transport');
  for (let header = 0; header < HEADERS_WALKED; header += 1) emitWalk(emitter, needs, done);
  emit(emitter, jgt32(PROTO, HIGHEST_WALKED, done));
  emit(emitter, ldImm64(r0, WALKED), rsh(r0, PROTO), jset32(r0, 1, CONTINUE));
  emit(emitter, label(done));
  // All ways here look the same to the verifier from now on.
  fetch(emitter, r3, 'zero');
  emit(emitter, mov(TH, NH));
  if (needs.slots.has('transport-left')) {
    emit(emitter, sub(r2, r1), add(r2, r3));
    store(emitter, 'transport-left', r2);
  }
  emit(emitter, add(r1, r3), and32(r1, OFFSET_MASK));
  if (needs.transport) emit(emitter, add(TH, r1));
  emit(emitter, add(PROTO, r3), and32(PROTO, 0xff));
  if (needs.slots.has('fragment')) {
    fetch(emitter, r0, 'fragment');
    emit(emitter, add(r0, r3), and32(r0, 1));
    store(emitter, 'fragment', r0);
  }
}

/** Instructions are scarce, or the frame is out of reach: packets with an extension header are left to the kernel. */
function emitNoWalk(emitter: Emitter, needs: Needs): void {
  for (const header of EXTENSIONS) emit(emitter, jeq32(PROTO, header, CONTINUE));
  emit(emitter, mov(TH, NH));
  if (needs.transport) emit(emitter, add(TH, 40));
  if (!needs.slots.has('transport-left')) return;
  emit(emitter, add(r2, -40));
  store(emitter, 'transport-left', r2);
}

/** One extension header, if there is one. */
function emitWalk(emitter: Emitter, needs: Needs, done: string): void {
  const fragment = newLabel(emitter, 'fragment');
  const sized = newLabel(emitter, 'sized');
  emit(emitter, jgt32(PROTO, HIGHEST_WALKED, done));
  emit(emitter, ldImm64(r0, WALKED), rsh(r0, PROTO));
  const known = newLabel(emitter, 'walked');
  emit(emitter, jset(r0, 1, known), ja(done), label(known));
  emit(emitter, mov(r3, r1), add(r3, 8), jgt(r3, r2, CONTINUE), jeq32(PROTO, AH, done));
  emit(emitter, mov(r4, NH), add(r4, r1), mov(r5, r4), add(r5, 8), jgt(r5, END, CONTINUE));
  emit(emitter, jeq32(PROTO, FRAGMENT, fragment));
  emit(emitter, ldx(1, r3, r4, 1), add(r3, 1), lsh32(r3, 3), and32(r3, SIZE_MASK), ja(sized));
  emit(emitter, label(fragment), ldx(2, r3, r4, 2), be(16, r3));
  emit(emitter, jset32(r3, FRAGMENT_OFFSET, CONTINUE));
  fetch(emitter, r5, 'zero');
  if (needs.slots.has('fragment')) {
    emit(emitter, mov(r3, r5), xor(r3, 1));
    store(emitter, 'fragment', r3);
  }
  // An 8 that looks like any other size: the ways through a header are one from here on.
  emit(emitter, mov(r3, r5), xor(r3, 8), and32(r3, SIZE_MASK), label(sized));
  emit(emitter, mov(r5, r1), add(r5, r3), jgt(r5, r2, CONTINUE));
  emit(emitter, ldx(1, PROTO, r4, 0), mov(r1, r5));
}

/** The stack words the prologue itself reads. */
export function prologueSlots(
  decision: Decision,
  { walksExtensions }: Dialect,
): readonly SlotName[] {
  if (!walksExtensions) return [];
  const walks = !isContinue(decision.untagged.ip6) || !isContinue(decision.tagged.ip6);
  return walks ? ['zero'] : [];
}
