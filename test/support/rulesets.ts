import type { FramePool } from './frame-pool.ts';
import type { LabHook } from './lab-oracle.ts';
import { createRandom, type Random } from './random.ts';
import type { RulePlace, TableFamily } from './ruleset-fields.ts';
import { pickMatches, type TableScope } from './ruleset-matches.ts';
import { pickUnknownEffect, pickUnknownMatch } from './ruleset-unknowns.ts';
import { createPoolBuilder, type PoolBuilder } from './ruleset-values.ts';

export interface RulesetOptions {
  /** Hooks that chains may stand at; ingress, prerouting and input when left out. */
  readonly hooks?: readonly LabHook[];
  /** Also rules that depend on state or have effects (`ct`, `limit`, `log`, `reject`, NAT...). */
  readonly unknowns?: boolean;
  /** Also inet chains at ingress, whose mere presence makes the kernel drop malformed packets. */
  readonly inetIngress?: boolean;
  /** What rules may name as the input device, `eth0` first; chains of hook `upper` are on the rest. */
  readonly devices?: readonly string[];
  /** Text in front of the tables. */
  readonly head?: string;
  /** Tables, 1 to 4 at random when left out. */
  readonly tables?: number;
  /** Most rules in a base chain, 12 when left out. */
  readonly rules?: number;
}

export interface GeneratedRuleset {
  /** A file for `nft -f`; the devices `eth0` and (with unknowns) `eth1` must exist. */
  readonly text: string;
  /** The values that the rules mention. */
  readonly pool: FramePool;
}

// nft(8), standard priority names: raw, mangle, dstnat, filter.
const PRIORITIES: Readonly<Record<LabHook, readonly string[]>> = {
  ingress: ['-10', '0', '0', '5', 'filter'],
  prerouting: ['raw', 'mangle', 'filter', '0', '-350', '-450', '17'],
  input: ['filter', '0', 'mangle', '10', 'security'],
  forward: ['filter', '0', 'mangle', '-7'],
  upper: ['-10', '0', '0', '5', 'filter'],
  bridge: ['-300', '-200', '-1', '0', '7', 'filter'],
  bridge_input: ['-200', '0', '10'],
};

// What a chain with policy drop lets pass before its other rules.
const OPENINGS = [
  ...['meta l4proto 6 counter accept', 'meta l4proto != 17 counter accept'],
  ...['meta length <= 60 counter accept', 'meta l4proto { 1, 17, 58 } counter accept'],
];

const GATES = [
  'meta l4proto 6',
  'meta l4proto 17',
  'meta l4proto { 1, 58 }',
  'meta length > 50',
  'counter',
];

interface ChainPlan extends RulePlace {
  readonly name: string;
  /** Chains that this one may call; calls only go down this list, so they end. */
  readonly callable: readonly string[];
  /** The chain's policy is drop, so its rules had better accept. */
  readonly strict: boolean;
}

function pickFamily(random: Random, hook: LabHook, options: RulesetOptions): TableFamily {
  if (hook === 'bridge' || hook === 'bridge_input') return 'bridge';
  if (hook === 'upper') return 'netdev';
  if (hook !== 'ingress') return random.pick(['inet', 'inet', 'ip', 'ip6']);
  return options.inetIngress === true && random.chance(0.3) ? 'inet' : 'netdev';
}

function pickVerdict(random: Random, plan: ChainPlan): string {
  const calls = plan.callable.flatMap((name) => [`jump ${name}`, `jump ${name}`, `goto ${name}`]);
  if (calls.length > 0 && random.chance(0.35)) return random.pick(calls);
  const usual = ['drop', 'drop', 'drop', 'drop', 'accept', 'accept', 'return', 'continue'];
  return random.pick(plan.strict ? ['accept', 'accept', 'accept', 'accept', ...usual] : usual);
}

function writeCounter(random: Random, counters: readonly string[]): string {
  return counters.length > 0 && random.chance(0.3)
    ? `counter name ${random.pick(counters)}`
    : 'counter';
}

function writeRule(
  scope: TableScope,
  plan: ChainPlan,
  counters: readonly string[],
  unknowns: boolean,
): string {
  const { random } = scope;
  const { version, matches } = pickMatches(scope, plan);
  const parts: string[] = [];
  for (const match of matches) {
    if (random.chance(0.08)) parts.push(writeCounter(random, counters));
    parts.push(match.text);
  }
  const last = parts.pop() ?? '';
  if (unknowns && random.chance(0.2)) parts.push(pickUnknownMatch(random, plan, version));
  parts.push(last);
  if (matches.at(-1)?.final === true) return parts.join(' ');
  if (random.chance(0.75)) parts.push(writeCounter(random, counters));
  if (unknowns && random.chance(0.2)) {
    const effect = pickUnknownEffect(random, plan);
    parts.push(effect.text);
    if (effect.ends) return parts.join(' ');
  }
  // A drop behind matches that most packets pass would leave nothing for the rules below.
  const broad = matches.every((match) => match.broad);
  const verdict = pickVerdict(random, plan);
  if (!(broad && (verdict === 'drop' || verdict === 'accept' || verdict.startsWith('goto')))) {
    if (random.chance(0.9)) parts.push(verdict);
  }
  if (random.chance(0.05)) parts.push('comment "made up"');
  return parts.join(' ');
}

/** The hook as nft writes it. */
function hookText(random: Random, hook: LabHook, devices: readonly string[]): string {
  switch (hook) {
    case 'ingress':
      return devices.length > 1 && random.chance(0.2)
        ? `ingress devices = { ${devices.join(', ')} }`
        : 'ingress device "eth0"';
    case 'upper':
      return `ingress device "${random.pick(devices.slice(1))}"`;
    case 'bridge':
      return 'prerouting';
    case 'bridge_input':
      return 'input';
    case 'prerouting':
    case 'input':
    case 'forward':
      return hook;
  }
}

function writeTable(
  random: Random,
  pool: PoolBuilder,
  name: string,
  hook: LabHook,
  options: RulesetOptions,
): string {
  const family = pickFamily(random, hook, options);
  const devices = options.devices ?? ['eth0'];
  const place = { family, hook, devices };
  const called = Array.from({ length: random.below(4) }, (_, index) => `sub${index}`);
  const counters = Array.from({ length: random.below(3) }, (_, index) => `named${index}`);
  const declarations = counters.map((counter) => `counter ${counter} { }`);
  const unknowns = options.unknowns === true;
  const writeChain = (plan: ChainPlan, head: readonly string[], most: number): string => {
    const scope = { random, pool, declarations, pickVerdict: () => pickVerdict(random, plan) };
    const rules = Array.from({ length: 1 + random.below(most) }, () =>
      writeRule(scope, plan, counters, unknowns),
    );
    const body = [...head, ...rules].map((line) => `    ${line}\n`);
    return `  chain ${plan.name} {\n${body.join('')}  }\n`;
  };
  const hookAs = hookText(random, hook, devices);
  const baseChains = Array.from({ length: random.pick([1, 1, 2]) }, (_, index) => {
    const strict = random.chance(0.15);
    const plan = { ...place, name: `base${index}`, callable: called, strict };
    const priority = random.pick(PRIORITIES[hook]);
    const policy = strict ? 'drop' : 'accept';
    const head = `type filter hook ${hookAs} priority ${priority}; policy ${policy};`;
    const opening = strict ? [random.pick(OPENINGS)] : [];
    // So that packets get to the other chains even where the rules that call them match little.
    const calls = called
      .filter(() => random.chance(0.4))
      .map((name) => `${random.pick(GATES)} jump ${name}`);
    return writeChain(plan, [head, ...opening, ...calls], options.rules ?? 12);
  });
  if (unknowns && hook === 'prerouting' && family !== 'ip6' && random.chance(0.2)) {
    baseChains.push(`  chain nat {
    type nat hook prerouting priority dstnat; policy accept;
    tcp dport 80 counter redirect to :8080
    ip daddr 10.0.0.1 tcp dport 443 dnat ${family === 'inet' ? 'ip ' : ''}to 10.0.1.2:8443
  }\n`);
  }
  const subChains = called.map((chain, index) => {
    const plan = { ...place, name: chain, callable: called.slice(index + 1), strict: false };
    return writeChain(plan, [], 5);
  });
  const lines = declarations.map((declaration) => `  ${declaration}\n`).join('');
  return `table ${family} ${name} {\n${lines}${subChains.join('')}${baseChains.join('')}}\n`;
}

/** A ruleset that nft loads, the same for the same seed and options, and the values it mentions. */
export function makeRuleset(seed: number, options: RulesetOptions = {}): GeneratedRuleset {
  const random = createRandom(seed);
  const pool = createPoolBuilder();
  const hooks = options.hooks ?? ['ingress', 'prerouting', 'input'];
  const count = options.tables ?? 1 + random.below(4);
  const tables = Array.from({ length: count }, (_, index) =>
    writeTable(random, pool, `t${index}`, random.pick(hooks), options),
  );
  return { text: (options.head ?? '') + tables.join(''), pool: pool.build() };
}
