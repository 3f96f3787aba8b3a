/** A ruleset of the lab: a netdev chain of one device, as libnftables JSON. */
export interface Sample {
  readonly name: string;
  readonly json: string;
}

type Json = Readonly<Record<string, unknown>>;

/** The same numbers every time (Numerical Recipes). */
function createNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** What rules look at: how it is written in JSON, and a value of it; `seed` makes values differ. */
interface Subject {
  readonly left: Json;
  readonly value: (seed: number) => unknown;
}

function payload(protocol: string, field: string): Json {
  return { payload: { protocol, field } };
}

function address(seed: number): string {
  const next = createNumbers(seed);
  return [1 + ((seed >> 16) % 220), (seed >> 8) & 255, seed & 255, next(256)].join('.');
}

function address6(seed: number): string {
  const next = createNumbers(seed);
  const groups = [seed >> 16, seed & 0xffff, next(65_536)].map((group) => group.toString(16));
  return `2001:db8:${groups[0]}:${groups[1]}::${groups[2]}`;
}

/** Prefixes that do not overlap: one out of each /20. */
function prefix(seed: number): Json {
  const len = 21 + (seed % 10);
  const third = (seed & 15) << 4;
  return {
    prefix: { addr: [1 + ((seed >> 12) % 220), (seed >> 4) & 255, third, 0].join('.'), len },
  };
}

function prefix6(seed: number): Json {
  return { prefix: { addr: `2001:${(seed + 1).toString(16)}::`, len: 33 + (seed % 32) } };
}

const SUBJECTS: Readonly<Record<string, Subject>> = {
  address: { left: payload('ip', 'saddr'), value: address },
  address6: { left: payload('ip6', 'daddr'), value: address6 },
  prefix: { left: payload('ip', 'daddr'), value: prefix },
  prefix6: { left: payload('ip6', 'saddr'), value: prefix6 },
  port: { left: payload('tcp', 'dport'), value: (seed) => 1 + seed * 61 },
  'port-range': {
    left: payload('udp', 'sport'),
    value: (seed) => ({ range: [seed * 97 + 3, seed * 97 + 3 + (seed % 60)] }),
  },
  vlan: { left: payload('vlan', 'id'), value: (seed) => 1 + seed },
  mac: {
    left: payload('ether', 'saddr'),
    value: (seed) => `02:00:00:00:${pad(seed >> 8)}:${pad(seed & 255)}`,
  },
  pair: {
    left: { concat: [payload('ip', 'saddr'), payload('tcp', 'dport')] },
    value: (seed) => ({ concat: [address(seed), 1 + (seed % 60_000)] }),
  },
  pair6: {
    left: { concat: [payload('ip6', 'saddr'), payload('udp', 'dport')] },
    value: (seed) => ({ concat: [address6(seed), 1 + (seed % 60_000)] }),
  },
  box: {
    left: { concat: [payload('ip', 'daddr'), payload('tcp', 'sport')] },
    value: (seed) => ({ concat: [prefix(seed), { range: [1000 + seed, 1100 + seed] }] }),
  },
  box6: {
    left: { concat: [payload('ip6', 'saddr'), payload('udp', 'dport')] },
    value: (seed) => ({ concat: [prefix6(seed), { range: [1000 + seed, 1100 + seed] }] }),
  },
};

function pad(value: number): string {
  return value.toString(16).padStart(2, '0');
}

/** Most different values there are of each. */
const MOST: Readonly<Record<string, number>> = { vlan: 500, 'port-range': 500 };

function match(left: Json, right: unknown): Json {
  return { match: { op: '==', left, right } };
}

const COUNTER: Json = { counter: { packets: 0, bytes: 0 } };
const DROP: Json = { drop: null };

/** The whole listing around these rules. */
export function listingOf(rules: readonly (readonly Json[])[], device: string): string {
  const place = { family: 'netdev', table: 'lab' };
  const chain = {
    ...place,
    ...{ name: 'ingress', handle: 1, dev: device },
    ...{ type: 'filter', hook: 'ingress', prio: 0, policy: 'accept' },
  };
  const objects = rules.map((expr, index) => ({
    rule: { ...place, chain: 'ingress', handle: index + 2, expr },
  }));
  const table = { family: 'netdev', name: 'lab', handle: 1 };
  return JSON.stringify({ nftables: [{ table }, { chain }, ...objects] });
}

function anonymousSet({ left, value }: Subject, count: number): Json {
  return match(left, { set: Array.from({ length: count }, (_, seed) => value(seed)) });
}

const SET_SIZES = [3, 40, 400];
const RULE_COUNTS = [1, 20, 120, 500];

/** Every kind of set in several sizes, counted and not, and rules from 1 to 500. */
export function makeCorpus(device: string): readonly Sample[] {
  const sets = Object.entries(SUBJECTS).flatMap(([name, subject]) =>
    SET_SIZES.map((size, number): Sample => {
      const expr = [anonymousSet(subject, size), ...(number === 1 ? [COUNTER] : []), DROP];
      return { name: `set ${name} ${size}`, json: listingOf([expr], device) };
    }),
  );
  const rules = Object.entries(SUBJECTS)
    .filter(([, { left }]) => !('concat' in left))
    .flatMap(([name, { left, value }]) =>
      RULE_COUNTS.filter((count) => count <= (MOST[name] ?? 500)).map((count): Sample => {
        const list = Array.from({ length: count }, (_, seed) => [match(left, value(seed)), DROP]);
        return { name: `rules ${name} ${count}`, json: listingOf(list, device) };
      }),
    );
  const counted = [1, 3, 12].map((count): Sample => {
    const list = Array.from({ length: count }, (_, seed) => [
      match(payload('tcp', 'dport'), seed + 1),
      COUNTER,
      DROP,
    ]);
    return { name: `counted ${count}`, json: listingOf(list, device) };
  });
  return [...sets, ...rules, ...counted];
}

function oneSet(name: string, device: string, count: number): string {
  const subject = SUBJECTS[name];
  if (subject === undefined) throw new Error(`bug: nothing is called ${name}`);
  return listingOf([[anonymousSet(subject, count), DROP]], device);
}

/** One set of 100,000 IPv4 addresses. */
export function manyAddresses(device: string): Sample {
  return { name: '100000 addresses', json: oneSet('address', device, 100_000) };
}

/** One set of IPv6 addresses. */
export function manyAddresses6(device: string, count: number): Sample {
  return { name: `${count} IPv6 addresses`, json: oneSet('address6', device, count) };
}

/** One set of 2,000 prefixes of lengths 21 to 30. */
export function manyPrefixes(device: string): Sample {
  return { name: '2000 prefixes', json: oneSet('prefix', device, 2_000) };
}

/** 500 ports, 200 prefixes, 50 pairs of address and port, a rule each, in turn. */
export function mixedRules(device: string): Sample {
  const of = (name: string, count: number): (readonly Json[])[] => {
    const { left, value } = SUBJECTS[name] ?? { left: {}, value: () => null };
    return Array.from({ length: count }, (_, seed) => [match(left, value(seed)), DROP]);
  };
  const pairs = Array.from({ length: 50 }, (_, seed) => [
    match(payload('ip', 'saddr'), address(seed * 7919)),
    match(payload('tcp', 'dport'), 1 + seed * 1000),
    DROP,
  ]);
  const groups = [of('port', 500), of('prefix', 200), pairs];
  const all = groups.flatMap((group) =>
    group.map((rule, index) => ({ rule, at: index / group.length })),
  );
  const list = all.sort((a, b) => a.at - b.at).map(({ rule }) => rule);
  return { name: '500 ports, 200 prefixes, 50 pairs', json: listingOf(list, device) };
}

/** Rules that count and drop a network each, but for a part of it that is accepted before: no card holds them. */
export function crowdedRules(device: string, count: number): Sample {
  const source = (addr: string, len: number): Json =>
    match(payload('ip', 'saddr'), { prefix: { addr, len } });
  const list = Array.from({ length: count }, (_, seed) => {
    const network = `${1 + (seed >> 8)}.${seed & 255}`;
    return [
      [source(`${network}.7.0`, 24), { accept: null }],
      [source(`${network}.0.0`, 16), COUNTER, DROP],
    ];
  });
  return { name: `${count} counted networks`, json: listingOf(list.flat(), device) };
}
