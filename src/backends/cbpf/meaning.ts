/** Ancillary loads may be used (`linux`), or only what every classic BPF machine has. */
export const DIALECTS = ['portable', 'linux'] as const;
export type Dialect = (typeof DIALECTS)[number];

/** What the packet starts with; as libpcap's DLT_ names. */
export const LINK_TYPES = ['EN10MB', 'RAW', 'LINUX_SLL2'] as const;
export type LinkType = (typeof LINK_TYPES)[number];

/** How a program reads frames and what it takes for granted. */
export interface Meaning {
  readonly dialect: Dialect;
  readonly linkType: LinkType;
  /**
   * any: malformed and cut frames, IPv6 extension headers and VLAN tags are met, and handed on where
   * the program cannot tell. well-formed: as libpcap takes it, headers are whole and tell the truth,
   * IPv6 has no extension headers, and frames have no tags unless a rule asks for them.
   */
  readonly frames: 'any' | 'well-formed';
  /**
   * What becomes of a frame when a load reaches beyond it: it returns 0 by definition, and so is
   * dropped unless 0 is what the program returns for continue.
   */
  readonly failedLoad: 'continue' | 'reject';
  /** Whether rules at ingress read the frame, which nobody has checked there. */
  readonly ingress: { readonly reads: boolean; readonly transport: boolean };
  /** IPv6 transport headers are read behind X, as IPv4's, so that both share code. */
  readonly indexIp6: boolean;
  /** Single values asked in turn before they are split. */
  readonly leaf: number;
}

/** Where the headers of one kind of packet are. */
export interface Place {
  /** 4 and 6: an IP header at `network`. */
  readonly version: 4 | 6 | null;
  /** Bytes before the network header. */
  readonly network: number;
  readonly tags: 0 | 1 | 2;
  /** The outer tag is not in the packet but beside it. */
  readonly hiddenTag: boolean;
}

/** Bytes of each link-layer header; its last two (first two for SLL2) are the EtherType. */
export const LINK_HEADER: Readonly<Record<LinkType, number>> = {
  EN10MB: 14,
  RAW: 0,
  LINUX_SLL2: 20,
};
