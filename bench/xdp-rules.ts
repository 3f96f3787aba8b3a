import { createNumbers, type Numbers } from '../test/support/rule-frames.ts';

type Json = Readonly<Record<string, unknown>>;

/** Kinds of rulesets that `makeRules` makes. */
export const KINDS = ['exact', 'prefix', 'range', 'mixed'] as const;
export type Kind = (typeof KINDS)[number];

function match(protocol: string, field: string, right: unknown): Json {
  return { match: { op: '==', left: { payload: { protocol, field } }, right } };
}

function address(next: Numbers, isIp6: boolean): string {
  if (!isIp6) return [10 + next(90), next(64), next(256), next(256)].join('.');
  const groups = [next(256), next(4096), next(65_536), next(65_536), next(65_536), next(65_536)];
  return ['2001:db8', ...groups.map((group) => group.toString(16))].join(':');
}

/** A prefix with nothing behind its length. */
function prefix(next: Numbers, isIp6: boolean, least: number): unknown {
  const len = least + 8 * next(isIp6 ? 5 : 3);
  const separator = isIp6 ? ':' : '.';
  const step = isIp6 ? 16 : 8;
  const parts = address(next, isIp6).split(separator);
  const kept = parts.map((part, at) => (at * step + step <= len ? part : '0'));
  // A group of 16 bits that the length cuts in two keeps its upper half.
  const cut = Math.floor(len / step);
  if (len % step !== 0) kept[cut] = (Number.parseInt(parts[cut] ?? '0', 16) & 0xff00).toString(16);
  return { prefix: { addr: kept.join(separator), len } };
}

function range(next: Numbers): unknown {
  const from = next(60_000);
  return next(3) === 0 ? from : { range: [from, from + 1 + next(next(2) === 0 ? 200 : 5_000)] };
}

/** What one rule asks. */
function askOf(kind: Kind, next: Numbers, isIp6: boolean): Json[] {
  const family = isIp6 ? 'ip6' : 'ip';
  const narrow = isIp6 ? 32 : 8;
  switch (kind) {
    case 'exact':
      return [match(family, 'saddr', address(next, isIp6)), match('tcp', 'dport', next(65_536))];
    case 'prefix':
      return [match(family, 'saddr', prefix(next, isIp6, narrow + 8))];
    case 'range':
      return [
        match(family, 'daddr', prefix(next, isIp6, narrow + 8)),
        match('tcp', 'dport', range(next)),
      ];
    case 'mixed': {
      // Shares as in ClassBench's seeds, roughly: most rules know one address well.
      const both = next(10);
      const asks: Json[] = [];
      if (both !== 0) asks.push(match(family, 'saddr', prefix(next, isIp6, narrow + 8)));
      if (both !== 1) asks.push(match(family, 'daddr', prefix(next, isIp6, narrow + 8)));
      const transport = next(3) === 0 ? 'udp' : 'tcp';
      if (next(4) === 0) asks.push(match(transport, 'sport', range(next)));
      asks.push(match(transport, 'dport', range(next)));
      return asks;
    }
  }
}

/** `count` rules in an ingress chain of eth0, as libnftables JSON; each counts, and they drop and accept in turn. */
export function makeRules(kind: Kind, count: number, isIp6 = false): string {
  const next = createNumbers(count);
  const at = { family: 'netdev', table: 'bench' };
  const rules = Array.from({ length: count }, (_, index) => ({
    rule: {
      ...at,
      chain: 'ingress',
      handle: index + 1,
      expr: [
        ...askOf(kind, next, isIp6),
        { counter: { packets: 0, bytes: 0 } },
        { [index % 2 === 0 ? 'drop' : 'accept']: null },
      ],
    },
  }));
  const chain = {
    ...{ ...at, name: 'ingress', dev: 'eth0', type: 'filter', hook: 'ingress', prio: 0 },
    policy: 'accept',
  };
  return JSON.stringify({
    nftables: [{ table: { family: 'netdev', name: 'bench' } }, { chain }, ...rules],
  });
}
