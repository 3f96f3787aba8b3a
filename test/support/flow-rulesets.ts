import { CT_STATE, type Field, findField, META } from '../../src/ir/fields.ts';
import { equals, not, oneOf, plain } from '../../src/ir/operand.ts';
import { nameValue } from '../../src/ir/resolve-test.ts';
import type { Chain, Hook, Rule, Ruleset, Step, Test, Verdict } from '../../src/ir/ruleset.ts';
import { parseIp, parseIp6 } from './addresses.ts';
import type { Random } from './random.ts';

function field(protocol: string, name: string): Field {
  const found = findField(protocol, name);
  if (found === null) throw new Error(`bug: no field ${protocol} ${name}`);
  return found;
}

function integer(bytes: Uint8Array): bigint {
  return bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

const PORTS = [22n, 53n, 80n, 443n, 40_000n] as const;
const HOSTS = ['10.0.0.1', '10.0.0.2', '192.0.2.7'] as const;
const HOSTS6 = ['2001:db8::1', '2001:db8::2', '2001:db8:7::7'] as const;
const DEVICES = ['lo', 'eth0', 'eth1'] as const;
const KNOWN = [2n, 4n] as const; // established, related
const UNKNOWN: Test = {
  kind: 'unknown',
  reason: { code: 'match/socket', message: 'nobody can tell' },
  stateful: false,
  text: 'unknown',
};

function pickTests(random: Random, leaves: boolean): readonly Test[] {
  const side = random.pick(['saddr', 'daddr'] as const);
  const device = leaves ? META.oifname : META.iifname;
  const protocol = random.pick([6n, 17n]);
  const port = field('th', random.pick(['sport', 'dport']));
  const name = nameValue(random.pick(DEVICES));
  const either = random.chance(0.3) ? not : (test: Test): Test => test;
  switch (random.below(11)) {
    case 0:
      return [either(oneOf(CT_STATE, random.chance(0.5) ? KNOWN : [1n, 64n]))];
    case 1:
      return [either(equals(CT_STATE, 8n))];
    case 2:
      return [either(equals(device, name))];
    case 3:
      return [
        equals(META.nfproto, 2n),
        either(equals(field('ip', side), integer(parseIp(random.pick(HOSTS))))),
      ];
    case 4:
      return [
        equals(META.nfproto, 10n),
        either(equals(field('ip6', side), integer(parseIp6(random.pick(HOSTS6))))),
      ];
    case 5:
      return [equals(META.l4proto, 1n), equals(field('icmp', 'type'), random.pick([0n, 8n]))];
    case 6:
      return [UNKNOWN];
    case 7:
      return [either(oneOf(META.l4proto, random.pick([[6n, 17n], [51n], [1n, 58n]])))];
    default:
      return [
        equals(META.l4proto, protocol),
        either(oneOf(port, [random.pick(PORTS), random.pick(PORTS)])),
      ];
  }
}

function pickVerdict(random: Random, called: readonly string[]): Verdict {
  const kind = random.pick(['accept', 'accept', 'drop', 'drop', 'return', 'jump', 'goto'] as const);
  if (kind !== 'jump' && kind !== 'goto') return { kind };
  return called.length === 0 ? { kind: 'drop' } : { kind, chain: random.pick(called) };
}

function mapOf(
  random: Random,
  called: readonly string[],
  of: Field,
  values: readonly bigint[],
): Step {
  const lo = [...new Set(values)];
  const verdicts = lo.map(() => pickVerdict(random, called));
  const elements = { parts: [of.width], lo, hi: lo, verdicts };
  return { kind: 'vmap', key: [plain(of)], map: { name: null, elements, unknown: null } };
}

function pickSteps(random: Random, leaves: boolean, called: readonly string[]): readonly Step[] {
  const tests = random.chance(0.2) ? [] : pickTests(random, leaves);
  const more = random.chance(0.3) ? pickTests(random, leaves) : [];
  const steps = [...tests, ...more].map((test): Step => ({ kind: 'test', test }));
  switch (random.below(12)) {
    case 0:
      return [...steps, mapOf(random, called, CT_STATE, [1n, 2n, 8n])];
    case 1:
      return [...steps, mapOf(random, called, META.l4proto, [1n, 6n, 51n])];
    case 2:
      return [
        ...steps,
        mapOf(random, called, leaves ? META.oifname : META.iifname, DEVICES.map(nameValue)),
      ];
    default:
      return [...steps, { kind: 'verdict', verdict: pickVerdict(random, called) }];
  }
}

function chainOf(random: Random, name: string, leaves: boolean, called: readonly string[]): Chain {
  const rules = Array.from({ length: random.below(5) }, (_, index): Rule => {
    const id = { family: 'inet', table: 't', chain: name, handle: null, index } as const;
    const steps = pickSteps(random, leaves, called);
    return { id, text: `${name} ${index}`, comment: null, steps, tracks: true, nat: false };
  });
  return { name, handle: null, base: null, rules };
}

/** A ruleset as a reader would give it, with chains at every layer-3 hook that mostly drop. */
export function pickFlowRuleset(random: Random): Ruleset {
  const called = ['sub0', 'sub1'];
  const hooks: readonly (readonly [Hook, number])[] = [
    ['prerouting', 0.1],
    ['input', 0.9],
    ['forward', 0.9],
    ['output', 0.7],
    ['postrouting', 0.2],
  ];
  const bases = hooks.map(([hook, dropping]): Chain => {
    const leaves = hook === 'output' || hook === 'postrouting';
    const policy = random.chance(dropping) ? 'drop' : 'accept';
    const base = { type: 'filter', hook, priority: 0, policy, devices: null } as const;
    const chain = chainOf(random, hook, leaves, called);
    const test: Test = oneOf(CT_STATE, KNOWN);
    const [first] = chainOf(random, hook, leaves, []).rules;
    const steps: readonly Step[] = [
      { kind: 'test', test },
      { kind: 'verdict', verdict: { kind: 'accept' } },
    ];
    const begun = first === undefined ? [] : [{ ...first, steps }];
    return { ...chain, base, rules: [...begun, ...chain.rules] };
  });
  const subs = [
    chainOf(random, 'sub0', random.chance(0.5), ['sub1']),
    chainOf(random, 'sub1', random.chance(0.5), []),
  ];
  const table = { family: 'inet', name: 't', handle: null, dormant: false } as const;
  return { tables: [{ ...table, chains: [...bases, ...subs], sets: [], counters: [] }] };
}
