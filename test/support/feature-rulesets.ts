/** A ruleset written by hand, for one feature, and where its packets come by. */
export interface FeatureRuleset {
  readonly name: string;
  readonly place: 'ingress' | 'host' | 'router';
  readonly text: string;
}

function base(hook: string, rules: string, policy = 'accept', priority = '0'): string {
  const device = hook === 'ingress' ? ' device "eth0"' : '';
  return `type filter hook ${hook}${device} priority ${priority}; policy ${policy};\n${rules}`;
}

function table(family: string, name: string, chains: Readonly<Record<string, string>>): string {
  const written = Object.entries(chains).map(([chain, body]) => `chain ${chain} {\n${body}\n}\n`);
  return `table ${family} ${name} {\n${written.join('')}}\n`;
}

/** One ruleset for each feature of the intermediate representation that has no field of its own. */
export const FEATURES: readonly FeatureRuleset[] = [
  {
    name: 'a dormant table, whose chains do not run',
    place: 'ingress',
    text: `table netdev asleep {
flags dormant
chain c {
${base('ingress', 'tcp dport 80 counter drop', 'drop')}
}
}
${table('netdev', 'awake', { c: base('ingress', 'udp dport 53 counter drop') })}`,
  },
  {
    name: 'verdict maps with every verdict, over values, ranges and concatenations',
    place: 'ingress',
    text: table('netdev', 't', {
      web: 'tcp sport < 2000 counter drop\ncounter return',
      rest: 'ip ttl < 64 counter drop',
      c: base(
        'ingress',
        `tcp dport vmap { 22 : accept, 80 : jump web, 443 : goto web, 1000-2000 : continue, 8080 : drop }
        meta l4proto vmap { 1 : goto rest, 17 : continue, 58 : return }
        ip saddr . udp dport vmap { 10.0.0.2 . 53 : drop, 10.0.0.3 . 1024-65535 : jump rest }
        counter meta length > 200 drop`,
      ),
    }),
  },
  {
    name: 'jumps, gotos and returns inside each other',
    place: 'host',
    text: table('inet', 't', {
      c3: 'udp sport < 30000 counter return\nmeta length > 40 counter drop',
      c2: 'ip daddr 10.0.0.1 counter goto c3\ntcp flags syn counter return\ncounter goto c3',
      c1: 'meta l4proto tcp counter jump c2\nmeta l4proto udp goto c2\ncounter',
      c: base('input', 'counter jump c1\nmeta l4proto icmp counter drop\njump c3', 'drop'),
      d: base('prerouting', 'ip6 hoplimit < 64 jump c3\nip ttl < 64 goto c1\ncounter', 'accept'),
    }),
  },
  {
    name: 'named counters at two hooks, anonymous ones inside rules',
    place: 'host',
    text: `table inet t {
  counter seen { }
  counter gone { }
  chain early {
    ${base('prerouting', 'counter name seen tcp dport < 1024 counter name gone drop')}
  }
  chain late {
    ${base('input', 'counter name seen udp dport < 1024 counter counter name gone drop')}
    counter meta l4proto 1 counter icmp type 8 counter name gone drop
  }
}`,
  },
  {
    name: 'VLAN tags and what stands behind them',
    place: 'ingress',
    text: table('netdev', 't', {
      c: base(
        'ingress',
        `vlan id 5 tcp dport 80 counter drop
        vlan pcp > 3 counter drop
        vlan type ip ip saddr 10.0.0.0/25 counter drop
        ether type 8021ad counter drop
        ether type vlan vlan id { 0-4, 7, 100 } counter
        meta protocol vlan counter drop
        meta protocol arp arp operation 1 counter drop`,
      ),
    }),
  },
  {
    name: 'negations, masks and positions',
    place: 'ingress',
    text: table('netdev', 't', {
      c: base(
        'ingress',
        `tcp flags & (syn | ack) == syn counter
        tcp flags & (fin | rst) != 0 counter
        ip saddr & 255.0.255.0 == 10.0.0.0 counter
        ip6 saddr & ffff:ffff:: != 2001:db8:: counter
        ip frag-off & 0x1fff != 0 counter drop
        tcp dport != { 22, 80, 443 } counter
        udp sport != 1024-49151 counter
        @nh,64,8 < 64 counter
        @th,16,16 { 80, 443 } counter
        @ll,0,48 0x020000000001 counter
        meta length 60-1000 counter drop`,
      ),
    }),
  },
  {
    name: 'devices and packet types',
    place: 'host',
    text: table('inet', 't', {
      c: base(
        'prerouting',
        `iif lo drop
        iifname "eth*" meta pkttype multicast counter drop
        iifname { "eth0", "eth1" } iiftype ether meta pkttype != host counter drop
        iifname != "eth0" drop
        iifgroup default meta nfproto ipv6 counter
        meta mark 0 meta priority 0 counter drop`,
      ),
    }),
  },
  {
    name: 'intervals in concatenations',
    place: 'host',
    text: `table inet t {
  set pairs { type ipv4_addr . inet_service; flags interval
    elements = { 10.0.0.0/24 . 1-1023, 10.0.0.5-10.0.0.9 . 2000, 192.0.2.7 . 0-65535 } }
  set triples { type ipv6_addr . ipv6_addr . inet_proto; flags interval
    elements = { 2001:db8::/64 . 2001:db8::1 . 6-17, ::/0 . 2001:db8:1::/48 . 58 } }
  chain c {
    ${base('input', 'ip saddr . tcp dport @pairs counter drop')}
    ip6 saddr . ip6 daddr . meta l4proto @triples counter drop
    ip saddr . udp sport != { 10.0.0.0/24 . 1024-65535 } counter drop
  }
}`,
  },
  {
    name: 'IPv6 extension headers',
    place: 'host',
    text: table('inet', 't', {
      c: base(
        'input',
        `ip6 nexthdr { 0, 43, 44, 60 } counter
        ip6 nexthdr 44 meta l4proto 17 counter drop
        tcp dport < 1024 meta nfproto ipv6 counter drop
        icmpv6 type echo-request counter drop`,
      ),
      d: base(
        'prerouting',
        'ip6 nexthdr 60 counter\nmeta l4proto 51 counter drop',
        'accept',
        '-450',
      ),
    }),
  },
  {
    name: 'policies alone',
    place: 'ingress',
    text: table('netdev', 't', { c: base('ingress', '', 'drop') }),
  },
  {
    name: 'policy drop at every hook of a host',
    place: 'host',
    text: [
      table('netdev', 'n', { c: base('ingress', 'meta l4proto != 1 counter accept', 'drop') }),
      table('inet', 'p', { c: base('prerouting', 'meta l4proto != 58 counter accept', 'drop') }),
      table('ip', 'i', { c: base('input', 'tcp dport > 100 counter accept', 'drop') }),
      table('ip6', 'j', { c: base('input', 'tcp dport > 100 counter accept', 'drop') }),
    ].join(''),
  },
  {
    name: 'policy drop when forwarding',
    place: 'router',
    text: [
      table('inet', 'f', { c: base('forward', 'ip ttl > 60 counter accept', 'drop') }),
      table('inet', 'i', { c: base('input', 'meta l4proto 6 counter accept', 'drop', '7') }),
    ].join(''),
  },
  {
    name: 'chains of equal priority in several tables',
    place: 'host',
    text: ['a', 'b', 'c']
      .map((name, index) =>
        table(index === 1 ? 'ip' : 'inet', name, {
          one: base('input', `counter\ntcp sport < ${20_000 + 9000 * index} counter drop`),
          two: base('input', `counter\nudp sport < ${20_000 + 9000 * index} counter drop`),
        }),
      )
      .join(''),
  },
  {
    name: 'what does not run: other hooks, other devices, chains that nothing calls',
    place: 'ingress',
    text: `table netdev other {
  chain c {
    type filter hook ingress device "eth1" priority 0; policy drop;
  }
}
table inet out {
  chain c {
    type filter hook postrouting priority 0; policy drop;
  }
  chain uncalled {
    drop
  }
}
table netdev t {
  chain c {
    ${base('ingress', 'meta l4proto 6 counter drop')}
  }
}`,
  },
];
