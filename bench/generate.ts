/** A small linear congruential generator (Numerical Recipes), the same numbers every time. */
function createNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

type Json = Readonly<Record<string, unknown>>;

function match(protocol: string, field: string, right: unknown): Json {
  return { match: { op: '==', left: { payload: { protocol, field } }, right } };
}

/**
 * `count` rules on addresses, prefixes, ports and ranges in one ingress chain of eth0, as
 * libnftables JSON; they accept and drop in turn.
 */
export function generateRules(count: number): string {
  const next = createNumbers(count);
  const address = (): string => [10 + next(90), next(256), next(256), next(256)].join('.');
  const prefix = (): unknown => {
    const len = 16 + next(17);
    const [a = '0', b = '0', c = '0', d = '0'] = address().split('.');
    const whole = len === 32 ? d : '0';
    const addr = `${a}.${b}.${len > 24 ? c : '0'}.${whole}`;
    return len > 24 && len < 32
      ? `${a}.${b}.${c}.${d}`
      : { prefix: { addr, len: Math.min(len, 24) } };
  };
  const port = (): unknown => {
    const from = next(60_000);
    return next(4) === 0 ? { range: [from, from + 1 + next(1_000)] } : from;
  };
  const rules = Array.from({ length: count }, (_, index) => ({
    rule: {
      family: 'netdev',
      table: 'bench',
      chain: 'ingress',
      handle: index + 1,
      expr: [
        match('ip', 'saddr', prefix()),
        match('ip', 'daddr', prefix()),
        match(next(3) === 0 ? 'udp' : 'tcp', 'dport', port()),
        { [index % 2 === 0 ? 'accept' : 'drop']: null },
      ],
    },
  }));
  const table = { family: 'netdev', name: 'bench' };
  const chain = {
    ...{ family: 'netdev', table: 'bench', name: 'ingress', dev: 'eth0' },
    ...{ type: 'filter', hook: 'ingress', prio: 0, policy: 'accept' },
  };
  return JSON.stringify({ nftables: [{ table }, { chain }, ...rules] });
}
