/**
 * Filters as libpcap takes them and as nft rules that mean the same, for the comparison of
 * bench/cbpf.ts. Rules stand in a netdev chain and drop what the filter matches.
 */
export interface ComparedFilter {
  readonly name: string;
  readonly pcap: string;
  /** For libpcap, with what the rules mean where `pcap` means more: to compare like with like. */
  readonly exact?: string;
  readonly rules: readonly string[];
  /** The rules ask what stands behind the IP header, and so nft looks whether that is valid. */
  readonly transport?: true;
  /** The rules name the tags that a frame must have; else they hold behind none and behind one. */
  readonly tagged?: true;
  /** The rules of a chain that `rules` go to: `web`. */
  readonly web?: readonly string[];
}

function writeChain(head: string, rules: readonly string[]): string {
  const ends = /\b(accept|goto \w+)$/;
  const lines = rules.map((rule) => `    ${ends.test(rule) ? rule : `${rule} drop`}\n`);
  return `  ${head}\n${lines.join('')}  }\n`;
}

/** The ruleset that drops at eth0's ingress what a filter matches. */
export function writeRuleset({ rules, web }: ComparedFilter): string {
  const hook = 'type filter hook ingress device "eth0" priority 0; policy accept;';
  const called = web === undefined ? '' : writeChain('chain web {', web);
  return `table netdev t {\n${called}${writeChain(`chain c {\n    ${hook}`, rules)}}\n`;
}

/** Behind `head` bytes, IPv4 and IPv6 headers as nft looks at them before it goes beyond. */
function validAt(head: number): string {
  const ip = `ip[0] >= 0x45 and ip[0] <= 0x4f and ip[2:2] >= 4*(ip[0]&15) and ip[2:2]+${head} <= len`;
  const ip6 = `ip6[0] >= 0x60 and ip6[0] <= 0x6f and ip6[4:2] != 0 and ip6[4:2]+${head + 40} <= len`;
  return `(not ip or (${ip})) and (not ip6 or (${ip6}))`;
}

/**
 * For libpcap, with all that keeps a program from dropping what nft lets through: headers are looked
 * at, and frames with one tag are met as those without.
 */
export function writeSoundly({ pcap, exact, transport, tagged }: ComparedFilter): string {
  const asked = exact ?? pcap;
  const behind = (head: number): string =>
    transport === true ? `${validAt(head)} and (${asked})` : `(${asked})`;
  if (tagged === true) return transport === true ? `${asked} and ${validAt(18)}` : asked;
  // libpcap takes 0x9100 for a tag, the kernel does not.
  return `(${behind(14)}) or (ether[12:2] != 0x9100 and vlan and ${behind(18)})`;
}

/** Deterministic addresses, spread over the whole space and never neighbours. */
function spread(index: number, salt: number): number {
  let value = (index * 0x9e37_79b1 + salt * 0x85eb_ca77) >>> 0;
  value ^= value >>> 15;
  return Math.imul(value, 0x2c1b_3c6d) >>> 0;
}

function dotted(value: number): string {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join('.');
}

/** `count` host addresses. */
export function makeHosts(count: number, salt = 1): readonly string[] {
  return Array.from({ length: count }, (_, index) => dotted(spread(index, salt)));
}

function makeNets(count: number): readonly string[] {
  return makeHosts(count, 2).map((host, index) => {
    const [a, b, c] = host.split('.');
    return index % 3 === 0 ? `${a}.${b}.0.0/16` : `${a}.${b}.${c}.0/24`;
  });
}

const anyOf = (terms: readonly string[]): string => terms.join(' or ');
const set = (values: readonly (string | number)[]): string => `{ ${values.join(', ')} }`;

/**
 * As libpcap's `src`, `dst` and `host` for IPv4: the addresses of ARP and RARP (RFC 903) as well. nft
 * has no word for RARP, and nft 1.0.6 crashes when it lists `arp saddr ip` with a prefix: raw payload.
 */
export function source(value: string): readonly string[] {
  return [`ip saddr ${value}`, `meta protocol { 0x0806, 0x8035 } ${rawSet(112, value)}`];
}

function destination(value: string): readonly string[] {
  return [`ip daddr ${value}`, `meta protocol { 0x0806, 0x8035 } ${rawSet(192, value)}`];
}

function numberOf(address: string): number {
  return address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
}

function rawSet(offset: number, value: string): string {
  const parts = value.replace(/[{}]/g, '').split(',');
  const ranges = parts.map((part) => {
    const [address = '', length = '32'] = part.trim().split('/');
    const lo = numberOf(address);
    const hi = lo + 2 ** (32 - Number(length)) - 1;
    return lo === hi ? `0x${lo.toString(16)}` : `0x${lo.toString(16)}-0x${hi.toString(16)}`;
  });
  const [only = ''] = ranges;
  return `@nh,${offset},32 ${ranges.length === 1 ? only : set(ranges)}`;
}

function host(value: string): readonly string[] {
  return [...source(value), ...destination(value)];
}

const TCP = ['meta l4proto tcp'];
const BOGONS = [
  ...['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '127.0.0.0/8'],
  ...['169.254.0.0/16', '0.0.0.0/8', '224.0.0.0/4'],
];
const TEN = makeHosts(10, 3);
const FIFTY = makeHosts(50, 4);
const NETS = makeNets(20);
const PORTS = Array.from({ length: 25 }, (_, index) => 20 + index * 37);
const PAIRS = makeHosts(20, 5).map((address, index) => ({ address, port: 1000 + index * 7 }));
const FIREWALL_HOSTS = makeHosts(20, 6);
const FIREWALL_NETS = makeNets(12);
const FIREWALL_PORTS = Array.from({ length: 12 }, (_, index) => 5000 + index * 11);
const FIREWALL_PAIRS = makeHosts(9, 7).map((address, index) => ({ address, port: 80 + index }));

export const FILTERS: readonly ComparedFilter[] = [
  { name: 'ip', pcap: 'ip', rules: ['meta protocol ip'] },
  { name: 'arp', pcap: 'arp', rules: ['meta protocol arp'] },
  { name: 'tcp', pcap: 'tcp', exact: 'ip proto 6 or ip6[6] = 6', transport: true, rules: TCP },
  {
    name: 'udp port 53',
    pcap: 'udp port 53',
    transport: true,
    rules: ['udp sport 53', 'udp dport 53'],
  },
  { name: 'tcp dst port 443', pcap: 'tcp dst port 443', transport: true, rules: ['tcp dport 443'] },
  { name: 'host', pcap: 'host 10.0.0.1', rules: host('10.0.0.1') },
  { name: 'src net', pcap: 'src net 10.1.0.0/16', rules: source('10.1.0.0/16') },
  { name: 'dst net', pcap: 'dst net 10.1.2.0/24', rules: destination('10.1.2.0/24') },
  {
    name: 'tcp dst portrange',
    pcap: 'tcp dst portrange 8000-8080',
    transport: true,
    rules: ['tcp dport 8000-8080'],
  },
  {
    name: 'tcp syn',
    pcap: 'tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn',
    transport: true,
    rules: ['meta protocol ip tcp flags & (syn | ack) == syn'],
  },
  {
    name: 'ip6 host',
    pcap: 'ip6 host 2001:db8::1',
    rules: ['ip6 saddr 2001:db8::1', 'ip6 daddr 2001:db8::1'],
  },
  { name: 'ip6 src net', pcap: 'ip6 src net 2001:db8::/32', rules: ['ip6 saddr 2001:db8::/32'] },
  {
    name: 'ether host',
    pcap: 'ether host 02:00:00:00:00:01',
    rules: ['ether saddr 02:00:00:00:00:01', 'ether daddr 02:00:00:00:00:01'],
  },
  {
    name: 'vlan and port',
    pcap: 'vlan 100 and tcp port 80',
    exact: 'ether[12:2] = 0x8100 and vlan 100 and tcp port 80',
    tagged: true,
    transport: true,
    rules: ['vlan id 100 tcp sport 80', 'vlan id 100 tcp dport 80'],
  },
  {
    name: 'qinq host',
    pcap: 'vlan and vlan and host 10.0.0.1',
    exact: 'ether[12:2] != 0x9100 and ether[16:2] != 0x9100 and vlan and vlan and host 10.0.0.1',
    tagged: true,
    rules: [128, 160]
      .map((at) => `meta protocol { 0x8100, 0x88a8 } @nh,16,16 0x800 @nh,${at},32 0x0a000001`)
      .concat(
        [144, 224].map(
          (at) =>
            `meta protocol { 0x8100, 0x88a8 } @nh,16,16 { 0x806, 0x8035 } @nh,${at},32 0x0a000001`,
        ),
      ),
  },
  {
    name: 'icmp and icmp6',
    pcap: 'icmp[icmptype]=icmp-echo or icmp6',
    exact: 'icmp[icmptype]=icmp-echo or ip6[6] = 58',
    transport: true,
    rules: ['meta protocol ip icmp type echo-request', 'meta protocol ip6 meta l4proto ipv6-icmp'],
  },
  { name: 'fragments', pcap: 'ip[6:2] & 0x1fff != 0', rules: ['ip frag-off & 0x1fff != 0'] },
  {
    name: 'host, port, not net',
    pcap: 'host 10.0.0.1 and tcp port 80 and not src net 192.168.0.0/16',
    transport: true,
    rules: [
      'ip saddr 192.168.0.0/16 accept',
      'ip saddr 10.0.0.1 goto web',
      'ip daddr 10.0.0.1 goto web',
    ],
    web: ['tcp sport 80', 'tcp dport 80'],
  },
  {
    name: 'bogons',
    pcap: anyOf(BOGONS.map((net) => `src net ${net}`)),
    rules: source(set(BOGONS)),
  },
  { name: '10 hosts', pcap: anyOf(TEN.map((one) => `host ${one}`)), rules: host(set(TEN)) },
  {
    name: '50 source hosts',
    pcap: anyOf(FIFTY.map((one) => `src host ${one}`)),
    rules: source(set(FIFTY)),
  },
  { name: '20 nets', pcap: anyOf(NETS.map((net) => `net ${net}`)), rules: host(set(NETS)) },
  {
    name: '25 tcp ports',
    pcap: anyOf(PORTS.map((port) => `tcp dst port ${port}`)),
    transport: true,
    rules: [`tcp dport ${set(PORTS)}`],
  },
  {
    name: '20 pairs',
    pcap: anyOf(
      PAIRS.map(({ address, port }) => `(ip src host ${address} and tcp dst port ${port})`),
    ),
    transport: true,
    rules: [
      `ip saddr . tcp dport ${set(PAIRS.map(({ address, port }) => `${address} . ${port}`))}`,
    ],
  },
  {
    name: 'firewall, 53 terms',
    pcap: anyOf([
      ...FIREWALL_HOSTS.map((one) => `ip src host ${one}`),
      ...FIREWALL_NETS.map((net) => `ip dst net ${net}`),
      ...FIREWALL_PORTS.map((port) => `tcp dst port ${port}`),
      ...FIREWALL_PAIRS.map(
        ({ address, port }) => `(ip src host ${address} and udp dst port ${port})`,
      ),
    ]),
    transport: true,
    rules: [
      ...FIREWALL_HOSTS.map((one) => `ip saddr ${one}`),
      ...FIREWALL_NETS.map((net) => `ip daddr ${net}`),
      ...FIREWALL_PORTS.map((port) => `tcp dport ${port}`),
      ...FIREWALL_PAIRS.map(({ address, port }) => `ip saddr ${address} udp dport ${port}`),
    ],
  },
  {
    name: 'dns or web',
    pcap: 'udp port 53 or tcp port 53 or tcp dst port 80 or tcp dst port 443',
    transport: true,
    rules: [...['udp sport 53', 'udp dport 53', 'tcp sport 53'], 'tcp dport { 53, 80, 443 }'],
  },
];
