import { createRandom, type Random } from './random.ts';

const PORTS = [22, 53, 80, 123, 443, 8080, 40_000] as const;
const HOSTS = ['10.0.0.2', '10.0.0.3', '192.0.2.7', '198.51.100.0/24'] as const;

/** What a rule of a stateful firewall may say beside `ct state`. */
function acceptRule(random: Random): string {
  const port = random.pick(PORTS);
  const host = random.pick(HOSTS);
  return random.pick([
    `tcp dport ${port} accept`,
    `udp dport ${port} accept`,
    `ct state new tcp dport { ${port}, ${random.pick(PORTS)} } accept`,
    `ip saddr ${host} accept`,
    `ip saddr ${host} udp dport ${port} accept`,
    `tcp flags & (fin | syn | rst | ack) == syn tcp dport ${port} accept`,
    `ip ttl 64 tcp dport ${port} accept`,
    `ip6 saddr 2001:db8::2 tcp dport ${port} accept`,
    `icmp type echo-request accept`,
    `icmpv6 type { echo-request, nd-neighbor-solicit } accept`,
    `iifname "eth1" tcp dport ${port} accept`,
    `ct state untracked accept`,
    `meta l4proto udp ct state != new accept`,
    `tcp dport ${port} drop`,
    `tcp dport vmap { ${port} : accept, 1 : drop }`,
  ]);
}

const FIRST = [
  'ct state established,related accept',
  'ct state vmap { invalid : drop, established : accept, related : accept }',
  'ct state invalid drop\n    ct state { established, related } accept',
  'ct state established accept\n    ct state related counter accept',
] as const;

/** A firewall that lets known flows through first, as nearly all do; the same for the same seed. */
export function makeStatefulRuleset(seed: number): string {
  const random = createRandom(seed);
  const rules = Array.from({ length: random.below(6) }, () => `    ${acceptRule(random)}\n`);
  const raw = random.chance(0.3)
    ? `  chain raw {
    type filter hook prerouting priority raw; policy accept;
    ip saddr ${random.pick(HOSTS)} udp dport ${random.pick(PORTS)} notrack
  }\n`
    : '';
  const early = random.chance(0.3)
    ? `  chain mangle {
    type filter hook prerouting priority mangle; policy accept;
    ct state invalid drop
    ${random.pick(FIRST)}
    tcp dport ${random.pick(PORTS)} drop
  }\n`
    : '';
  return `table inet firewall {
${raw}${early}  chain input {
    type filter hook input priority filter; policy ${random.chance(0.8) ? 'drop' : 'accept'};
    iif "lo" accept
    ${random.pick(FIRST)}
${rules.join('')}  }
}
`;
}
