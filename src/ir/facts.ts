/**
 * What is true of the machine that runs the ruleset. Null means not known, and whatever depends on
 * it stays undecided.
 */
export interface Facts {
  /** The device the frames arrive on. */
  readonly device: string;
  /** host: forwarding is off. router: it is on, and `localAddresses` is complete. */
  readonly role: 'host' | 'router' | null;
  /** Every address of this machine (all devices), IPv4 as 32 bits, IPv6 as 128 bits. */
  readonly localAddresses: readonly LocalAddress[] | null;
  /** The device's own Ethernet address, 48 bits. */
  readonly mac: bigint | null;
  /** Receive segmentation offloads (GRO, LRO, hardware GRO) are off. */
  readonly groOff: boolean;
  /** Reverse path filtering is off on this device. */
  readonly rpFilterOff: boolean;
  /** Every destination that is not local has a route that takes frames of any size received here. */
  readonly routed: boolean;
  /** Connection tracking knows no flow from before this ruleset. */
  readonly conntrackFresh: boolean;
  /** No other device but lo receives packets. */
  readonly soleDevice: boolean;
  /** The NIC leaves VLAN tags in the frame. */
  readonly rxVlanOff: boolean;
  /** Every VLAN device on top of the device; null: not known whether there are any. */
  readonly vlans: readonly Vlan[] | null;
  /** What takes the device's frames behind its ingress hook; null: nothing does. */
  readonly master: Master | null;
  /** The master's own Ethernet address, 48 bits. */
  readonly masterMac: bigint | null;
  /** The bridge forwards by its table alone: no spanning tree, VLAN filter, locked or tunnel port. */
  readonly bridgePlain: boolean;
  /** br_netfilter hands bridged packets to the layer-3 hooks. */
  readonly brNetfilter: boolean | null;
  /** The device's group (`ip link set DEV group N`). */
  readonly group: number | null;
}

/** IEEE 802.1Q; 4095 is reserved. */
export const MOST_VLAN_ID = 4094;

/** What takes frames with one VLAN tag. */
export interface Vlan {
  /** EtherType of the tag: 8100 (802.1Q) or 88a8 (802.1ad). */
  readonly protocol: 0x8100 | 0x88a8;
  readonly id: number;
  /** An ordinary VLAN device with the port's own address; null: something else. */
  readonly device: string | null;
}

/** A device that this one is a part of. */
export interface Master {
  readonly name: string;
  /** As `ip -d link` names it: `bridge`, `bond`, `macvlan`... */
  readonly kind: string;
}

/** Facts of a device of which nothing is known. */
export function nothingKnown(device: string): Facts {
  return {
    device,
    role: null,
    localAddresses: null,
    mac: null,
    groOff: false,
    rpFilterOff: false,
    routed: false,
    conntrackFresh: false,
    soleDevice: false,
    rxVlanOff: false,
    vlans: null,
    master: null,
    masterMac: null,
    bridgePlain: false,
    brNetfilter: null,
    group: null,
  };
}

export interface LocalAddress {
  readonly version: 4 | 6;
  readonly value: bigint;
}
