import { createRandom, type Random } from './random.ts';

const PORTS = [22, 53, 80, 123, 443, 8080, 40_000] as const;
const HOSTS = ['10.0.0.2', '10.0.0.3', '192.0.2.7', '198.51.100.0/24'] as const;
const HOSTS6 = ['2001:db8::2', '2001:db8:7::7', '2001:db8::/64'] as const;

/** What a rule of a stateful firewall may say beside `ct state`; `side` is which end it names. */
function acceptRule(random: Random, side: 's' | 'd'): string {
  const port = random.pick(PORTS);
  const host = random.pick(HOSTS);
  return random.pick([
    `tcp dport ${port} accept`,
    `udp dport ${port} accept`,
    `udp sport ${port} accept`,
    `ct state new tcp dport { ${port}, ${random.pick(PORTS)} } accept`,
    `ip ${side}addr ${host} accept`,
    `ip ${side}addr ${host} udp dport ${port} accept`,
    `ip protocol tcp th dport ${port} accept`,
    `meta l4proto { tcp, udp } th dport ${port} accept`,
    `tcp flags & (fin | syn | rst | ack) == syn tcp dport ${port} accept`,
    `ip ttl 64 tcp dport ${port} accept`,
    `ip6 ${side}addr ${random.pick(HOSTS6)} tcp dport ${port} accept`,
    `icmp type echo-request accept`,
    `icmpv6 type { echo-request, nd-neighbor-solicit } accept`,
    `icmp type echo-reply accept`,
    `ct state untracked accept`,
    `meta l4proto udp ct state != new accept`,
    `meta l4proto ah accept`,
    `meta l4proto != { tcp, udp, ah } accept`,
    `ct state != { established, related } tcp dport ${port} accept`,
    `limit rate 1/hour accept`,
    `${random.pick(['ip ttl 64', 'meta length < 60', 'limit rate over 1/second'])} drop`,
    `tcp dport ${port} drop`,
    `tcp dport ${port} reject with tcp reset`,
    `ip ${side}addr ${host} drop`,
    `tcp dport vmap { ${port} : accept, 1 : drop }`,
    `ip ${side}addr . tcp dport vmap { 10.0.0.2 . ${port} : accept, 10.0.0.3 . 22 : drop }`,
    `tcp dport ${port} jump some`,
    `ip ${side}addr ${host} goto some`,
    `meta l4proto vmap { tcp : jump some, udp : goto others, icmp : continue }`,
    `jump others`,
  ]);
}

/** Rules on devices, from the side that the chain sees. */
function deviceRule(random: Random, side: 'iifname' | 'oifname'): string {
  const port = random.pick(PORTS);
  return random.pick([
    `${side} "eth1" tcp dport ${port} accept`,
    `${side} "lo" accept`,
    `${side} != "lo" udp dport ${port} drop`,
    `${side} vmap { "lo" : accept, "eth0" : jump some }`,
    `${side} vmap { "lo" : accept, "eth0" : goto others, "eth1" : drop }`,
    `${side} "eth*" jump others`,
    `${side} "${random.pick(['eth0', 'eth1'])}" ${random.pick(['drop', 'return', 'jump some'])}`,
  ]);
}

const FIRST = [
  'ct state established,related accept',
  'ct state vmap { invalid : drop, established : accept, related : accept }',
  'ct state invalid drop\n    ct state { established, related } accept',
  'ct state established accept\n    ct state related counter accept',
  'ct state != { new, untracked, invalid } accept',
] as const;

function rulesOf(random: Random, most: number, make: () => string): string {
  return Array.from({ length: random.below(most + 1) }, () => `    ${make()}\n`).join('');
}

/** A chain at a hook that lets known flows through first. */
function statefulChain(random: Random, hook: string, dropping: number): string {
  const outward = hook !== 'input' && (hook !== 'forward' || random.chance(0.5));
  const device = outward ? 'oifname' : 'iifname';
  const rule = (): string =>
    random.chance(0.2) ? deviceRule(random, device) : acceptRule(random, outward ? 'd' : 's');
  const type = hook === 'output' && random.chance(0.1) ? 'route' : 'filter';
  const priority = random.chance(0.9) || type === 'route' ? 'filter' : '-10';
  return `  chain ${hook} {
    type ${type} hook ${hook} priority ${type === 'route' ? 'mangle' : priority}; policy ${random.chance(dropping) ? 'drop' : 'accept'};
    ${random.chance(0.8) ? `${device} "lo" accept` : ''}
    ${random.chance(0.9) ? random.pick(FIRST) : ''}
${rulesOf(random, 5, rule)}  }
`;
}

/** Chains that others call: some ports, and what is left. */
function calledChains(random: Random): string {
  const calm = (): string => {
    const rule = acceptRule(random, random.chance(0.5) ? 's' : 'd');
    return /jump|goto/.test(rule) ? 'tcp dport 22 return' : rule;
  };
  const last = (): string => random.pick(['drop', 'return', 'accept', 'counter drop']);
  return `  chain some {
${rulesOf(random, 3, calm)}    ${last()}
  }
  chain others {
${rulesOf(random, 2, calm)}    udp dport ${random.pick(PORTS)} ${last()}
  }
`;
}

/** What there is beside `input`. */
export interface StatefulOptions {
  /** Rules on what this machine sends: `output`, now and then `postrouting`. */
  readonly output?: boolean;
  /** Rules on what it forwards. */
  readonly forward?: boolean;
}

/** A firewall that lets known flows through first, as nearly all do; the same for the same seed. */
export function makeStatefulRuleset(seed: number, options: StatefulOptions = {}): string {
  const random = createRandom(seed);
  const raw = random.chance(0.3)
    ? `  chain raw {
    type filter hook prerouting priority raw; policy accept;
    ip saddr ${random.pick(HOSTS)} udp dport ${random.pick(PORTS)} notrack
    ${random.chance(0.3) ? `tcp sport ${random.pick(PORTS)} drop` : ''}
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
  const output = options.output ? statefulChain(random, 'output', 0.8) : '';
  const forward = options.forward ? statefulChain(random, 'forward', 0.9) : '';
  const late =
    options.output && random.chance(0.2) ? statefulChain(random, 'postrouting', 0.3) : '';
  const chains = [calledChains(random), raw, early, statefulChain(random, 'input', 0.8), output];
  const text = `table inet firewall {\n${[...chains, forward, late].join('')}}\n`;
  // The kernel has no `reject` in postrouting.
  return late === '' ? text : text.replaceAll(/reject with tcp reset/g, 'drop');
}
