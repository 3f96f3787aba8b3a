import { bits } from '../support/bits.ts';
import type { Condition } from './conditions.ts';
import type { Vlan } from './facts.ts';
import { type Field, FRAME, META } from './fields.ts';
import { equals, not, oneOf } from './operand.ts';
import type { Test } from './ruleset.ts';

/*
 * What the kernel asks of a frame between the port's ingress hook and layer 3: VLAN tags
 * (vlan_do_receive, net/8021q/vlan_core.c; __netif_receive_skb_core, net/core/dev.c) and bridges
 * (br_handle_frame, br_handle_frame_finish, net/bridge/br_input.c).
 */

function linkField(name: string, offset: number, width: number): Field {
  return { name, base: 'll', offset: bits(offset), width: bits(width) };
}

const DESTINATION = linkField('ether daddr', 0, 48);
const SOURCE = linkField('ether saddr', 48, 48);
const TAG_TYPE = linkField('ether type', 96, 16);
const TAG_ID = linkField('vlan id', 116, 12);
const ONE_TAG = equals(FRAME.tags, 1n);
const LOST = { kind: 'lost' } as const;

function unknown(code: string, message: string): Condition['then'] {
  return { kind: 'unknown', reason: { code, message } };
}

/** Frames with a tag, where it is not known what takes them. */
export const TAGGED: Condition = {
  label: 'VLAN tag: later hooks run on another device',
  tests: [not(equals(FRAME.tags, 0n))],
  then: unknown(
    'path/vlan',
    'tagged frames go on on a VLAN device (give the facts rx-vlan=off and vlan=ID:NAME, or vlan=none)',
  ),
};

/** Frames with two tags. */
export const STACKED: Condition = {
  label: 'two VLAN tags',
  tests: [equals(FRAME.tags, 2n)],
  then: unknown('path/vlan-stacked', 'frames with two VLAN tags are left to the kernel'),
};

/** Tests that hold for frames with one tag of this VLAN. */
export function ofVlan({ protocol, id }: Vlan): readonly Test[] {
  return [ONE_TAG, equals(TAG_TYPE, BigInt(protocol)), equals(TAG_ID, BigInt(id))];
}

/**
 * A tag that no device takes makes a frame one for other hosts, which dies unseen; but VLAN devices
 * of other namespaces are easily overlooked. VLAN 0 means none.
 */
export const NO_VLAN_DEVICE: Condition = {
  label: 'VLAN without a device',
  tests: [ONE_TAG, not(equals(TAG_ID, 0n))],
  then: unknown('path/vlan-unknown', 'no VLAN device that is known takes this tag'),
};

/** The NIC hides tags, and frames that had one go on on VLAN devices. */
export const HIDDEN_TAGS: Condition = {
  label: 'VLAN tags may be hidden by the NIC',
  tests: [],
  then: { kind: 'uncertain' },
};

// include/linux/etherdevice.h, is_link_local_ether_addr: 01-80-c2-00-00-00 to -0f.
const LINK_LOCAL = 0x0180c2000000n;
const LINK_LOCAL_MASK = 0xfffffffffff0n;
// ETH_P_MRP and ETH_P_CFM (include/uapi/linux/if_ether.h), which a bridge may take for itself.
const BRIDGE_PROTOCOLS = [0x88e3n, 0x8902n];
const GROUP = 1n << 40n;

/** What a port does not hand to the bridge's prerouting hook. */
export function beforeBridge(isPlain: boolean): readonly Condition[] {
  const control = unknown('path/bridge-control', 'the bridge may take control frames for itself');
  return [
    {
      label: 'link-local destination',
      tests: [equals(DESTINATION, LINK_LOCAL, LINK_LOCAL_MASK)],
      then: control,
    },
    { label: 'MRP or CFM', tests: [oneOf(META.protocol, BRIDGE_PROTOCOLS)], then: control },
    { label: 'source MAC is a group address', tests: [equals(SOURCE, GROUP, GROUP)], then: LOST },
    { label: 'source MAC is zero', tests: [equals(SOURCE, 0n)], then: LOST },
    ...(isPlain
      ? []
      : [{ label: 'the port may block', tests: [], then: { kind: 'uncertain' } as const }]),
  ];
}

// What br_netfilter shows to the layer-3 hooks: IPv4, IPv6, and both in PPPoE sessions.
const BRIDGED_IP = [0x0800n, 0x86ddn, 0x8864n];

/** br_netfilter runs the layer-3 hooks in the middle of the bridge's own (NF_BR_PRI_BRNF, 0). */
export const BRIDGE_NETFILTER: Condition = {
  label: 'br_netfilter: layer-3 hooks run inside the bridge',
  tests: [oneOf(META.protocol, BRIDGED_IP)],
  then: unknown(
    'fact/br-nf',
    'br_netfilter may show it to the layer-3 hooks before (give --fact br-nf=off if it does not)',
  ),
};

/**
 * Where there is br_netfilter, off or not, it discards what is shorter than the headers it would
 * skip: a second tag, PPPoE (nf_bridge_encap_header_len, include/net/netfilter/br_netfilter.h).
 */
export const BRIDGE_TOO_SHORT: Condition = {
  label: 'br_netfilter: may be too short',
  tests: [oneOf(META.protocol, [0x8100n, 0x8864n])],
  then: { kind: 'uncertain' },
};

/** Connection tracking in a bridge trims packets and puts fragments together (priority -200). */
export const BRIDGE_TRACKING: Condition = {
  label: 'connection tracking in the bridge',
  tests: [oneOf(META.protocol, BRIDGED_IP)],
  then: unknown('path/bridge-tracking', 'connection tracking in the bridge may take or change it'),
};

/** Which frames a bridge hands up to this machine alone: unicast to its own addresses. */
export function beforeBridgeInput(own: readonly bigint[]): readonly Condition[] {
  return [
    {
      label: 'VLAN tag on a bridge',
      tests: [not(equals(FRAME.tags, 0n))],
      then: unknown('path/bridge-vlan', 'tagged frames go on on a VLAN device of the bridge'),
    },
    {
      label: 'not for the bridge itself',
      tests: [not(oneOf(DESTINATION, own))],
      then: unknown(
        'path/bridge-forward',
        'the table of the bridge says whether and where frames leave, not the frame',
      ),
    },
  ];
}
