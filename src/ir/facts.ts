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
}

export interface LocalAddress {
  readonly version: 4 | 6;
  readonly value: bigint;
}
