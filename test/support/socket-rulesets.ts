import type { Concession } from '../../src/ir/concede.ts';
import type { Scene } from './socket-lab.ts';

/** Concessions granted together, and what must come of it. */
export interface Grant {
  readonly concede: readonly Concession[];
  /** Comments of rules whose counters the hardware must have counted. */
  readonly counts: readonly string[];
  /** Flows that nf_tables lets through and that the concession gives up: with what they end instead. */
  readonly givesUp: Readonly<Record<string, string>>;
}

/** A stateful ruleset, which of the flows in `socket-flows.py` it stops, and what may be conceded. */
export interface FlowCase {
  readonly name: string;
  readonly scene: Scene;
  readonly text: string;
  /** Names without IP version of the flows that nf_tables alone does not let come out `ok`. */
  readonly stopped: readonly string[];
  readonly grants: readonly Grant[];
  /** Only these flows, where others would show nothing new. */
  readonly only?: readonly string[];
  /** Settings of the machine beside the lab's. */
  readonly sysctls?: readonly string[];
}

const KNOWN = 'ct state vmap { established : accept, related : accept }';
const NEIGHBOURS = `icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept`;
const SERVICES = `tcp dport { 5000-5019, 40000 } accept
    udp dport 5000-5019 accept`;
const ECHO = 'icmp type echo-request counter drop comment "echo"';
const ECHO6 = 'icmpv6 type echo-request counter drop comment "echo6"';
const SCANNED = `tcp dport 7000-7009 counter drop comment "tcp"
    udp dport 7000-7009 counter drop comment "udp"`;

// Both ends connect at once, and the peer's SYN is given up; see docs/concessions.md.
const SIMULTANEOUS = {
  'tcp_simultaneous_open 4': 'connect: timeout',
  'tcp_simultaneous_open 6': 'connect: timeout',
};
const UNANSWERED = {
  'tcp_in_rejected 4': 'connect: timeout',
  'tcp_in_rejected 6': 'connect: timeout',
};
const EVERYTHING: readonly Concession[] = [
  ...(['log', 'reject-as-drop', 'counters', 'limit-as-accept'] as const),
  ...(['syn-is-new', 'reply-ports'] as const),
];

function grant(
  concede: readonly Concession[],
  counts: readonly string[],
  givesUp: Grant['givesUp'] = {},
): Grant {
  return { concede, counts, givesUp };
}

const HELPED = ['ftp_active', 'expected_in'];

/** Rulesets as people write them, each with every concession that does something there. */
export const FLOW_CASES: readonly FlowCase[] = [
  {
    name: 'a host that may open anything',
    scene: 'host',
    text: `table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    iif "lo" accept
    ${KNOWN}
    ${NEIGHBOURS}
    ${SERVICES}
    ${ECHO}
    ${ECHO6}
    tcp dport 113 counter reject with tcp reset comment "reject"
    tcp dport 7000-7002 counter log prefix "scan " drop comment "log"
    tcp dport 7003-7005 limit rate 100/second
    tcp dport 7003-7005 counter drop comment "limit"
    ${SCANNED}
    counter drop comment "rest"
  }
}`,
    stopped: ['echo_in', ...HELPED],
    grants: [
      grant(['reply-ports'], ['tcp', 'udp', 'echo', 'echo6']),
      grant(['syn-is-new'], ['tcp', 'echo'], SIMULTANEOUS),
      grant(
        ['syn-is-new', 'limit-as-accept', 'log', 'reject-as-drop'],
        ['limit', 'log', 'reject'],
        { ...SIMULTANEOUS, ...UNANSWERED },
      ),
    ],
  },
  {
    name: 'a host that may open little',
    scene: 'host',
    text: `table inet filter {
  chain mangle {
    type filter hook prerouting priority mangle; policy accept;
    ct state established,related accept
    tcp dport 7000-7004 counter drop comment "early"
  }
  chain input {
    type filter hook input priority filter; policy drop;
    iif "lo" accept
    ct state invalid counter drop
    ct state established,related accept
    ${NEIGHBOURS}
    ct state new tcp dport { 5000-5019, 40000 } accept
    ct state new udp dport vmap { 5000-5019 : accept }
    icmp type echo-request limit rate 100/second accept
    icmpv6 type echo-request accept
    tcp dport 113 reject
    ${SCANNED}
  }
  chain output {
    type filter hook output priority filter; policy drop;
    ct state established,related accept
    ${NEIGHBOURS}
    ct state new tcp dport { 21, 6000-6019 } accept
    udp dport { 6000-6019, 6098 } accept
    meta l4proto { icmp, ipv6-icmp } accept
  }
}`,
    stopped: ['tcp_out_refused', 'udp_out_unreachable', ...HELPED],
    grants: [
      // Behind the drop of what is invalid no count is certain.
      grant(['syn-is-new', 'counters'], [], SIMULTANEOUS),
      grant(['reply-ports', 'counters'], []),
    ],
  },
  {
    name: 'a host where a reverse path filter may discard',
    scene: 'host',
    sysctls: ['net.ipv4.conf.eth0.rp_filter=1'],
    only: ['tcp_in', 'tcp_out', 'udp_in', 'udp_out', 'echo_in', 'echo_out', 'unsolicited_udp'],
    text: `table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ${KNOWN}
    ${NEIGHBOURS}
    ${SERVICES}
    icmp type echo-request counter comment "seen"
    ${SCANNED}
  }
}`,
    stopped: ['echo_in'],
    grants: [grant(['counters'], [])],
  },
  {
    name: 'a host that tracks only a part',
    scene: 'host',
    text: `table inet raw {
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    udp dport 5000-5009 notrack
    udp sport 6000 notrack
  }
  chain output {
    type filter hook output priority raw; policy accept;
    udp sport 5000-5009 notrack
    udp dport 6000 notrack
  }
}
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    iif "lo" accept
    ct state established,related accept
    meta l4proto udp ct state untracked accept
    ${NEIGHBOURS}
    icmp type echo-request ct state new accept
    icmpv6 type echo-request accept
    ${SERVICES}
    ${SCANNED}
  }
}`,
    stopped: ['tcp_in_rejected', ...HELPED],
    grants: [grant(EVERYTHING, ['tcp'], SIMULTANEOUS)],
  },
  {
    name: 'helpers and expectations',
    scene: 'host',
    only: ['tcp_in', 'tcp_out', 'udp_out', 'unsolicited_tcp', 'stray_segments', ...HELPED],
    text: `table inet filter {
  ct helper ftp { type "ftp" protocol tcp; }
  ct expectation later { protocol tcp; dport 40102; timeout 1m; size 8; l3proto ip; }
  chain input {
    type filter hook input priority filter; policy drop;
    tcp dport 7000-7004 counter drop comment "early"
    ${KNOWN}
    ${NEIGHBOURS}
    ${SERVICES}
    ${SCANNED}
  }
  chain output {
    type filter hook output priority filter; policy accept;
    tcp dport 21 ct helper set "ftp"
    tcp dport 6014 ct expectation set "later"
  }
}`,
    stopped: [],
    grants: [grant(EVERYTHING, ['early'])],
  },
  {
    name: 'a router, and what it runs itself',
    scene: 'router',
    text: `table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ${KNOWN}
    ${NEIGHBOURS}
    ${SERVICES}
    ${ECHO}
    ${SCANNED}
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
  }
}`,
    stopped: ['echo_in', 'tcp_in_rejected', ...HELPED],
    grants: [grant(EVERYTHING, ['echo', 'tcp', 'udp'], SIMULTANEOUS)],
  },
  {
    name: 'machines behind a router',
    scene: 'behind',
    text: `table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    ${NEIGHBOURS}
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "eth1" oifname "eth0" accept
    iifname "eth0" jump from_outside
  }
  chain from_outside {
    ${SERVICES}
    ${ECHO}
    ${SCANNED}
  }
}`,
    stopped: ['echo_in', 'tcp_in_rejected', ...HELPED],
    grants: [grant(EVERYTHING, ['tcp'], SIMULTANEOUS)],
  },
  {
    name: 'machines behind a translating router',
    scene: 'behind NAT',
    text: `table inet filter {
  chain early {
    type filter hook prerouting priority raw; policy accept;
    iifname "eth0" tcp dport 7000-7004 counter drop comment "early"
  }
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    ${NEIGHBOURS}
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "eth1" oifname "eth0" accept
    ct status dnat accept
    ${SCANNED}
  }
}
table inet nat {
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    iifname "eth0" tcp dport { 5000-5019, 40000 } dnat ip to 10.0.5.2
    iifname "eth0" udp dport 5000-5019 dnat ip to 10.0.5.2
    iifname "eth0" tcp dport { 5000-5019, 40000 } dnat ip6 to 2001:db8:5::2
    iifname "eth0" udp dport 5000-5019 dnat ip6 to 2001:db8:5::2
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "eth0" masquerade
  }
}`,
    stopped: ['echo_in', 'tcp_in_rejected', ...HELPED],
    grants: [grant(EVERYTHING, ['early'])],
  },
];
