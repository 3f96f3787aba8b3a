import fc from 'fast-check';
import { type Field, findField, META } from '../../src/ir/fields.ts';
import { plain } from '../../src/ir/operand.ts';
import type {
  BaseChain,
  Chain,
  ElementSet,
  Family,
  Operand,
  Rule,
  Ruleset,
  Step,
  Table,
  Test,
  Verdict,
} from '../../src/ir/ruleset.ts';
import { ones } from '../../src/support/bits.ts';
import type { FramePool } from './frame-pool.ts';
import { EMPTY_POOL } from './frame-pool.ts';

function field(protocol: string, name: string): Field {
  const found = findField(protocol, name);
  if (found === null) throw new Error(`bug: no field ${protocol} ${name}`);
  return found;
}

interface Choice {
  readonly field: Field;
  readonly values: readonly bigint[];
}

function choice(of: Field, ...values: readonly (number | bigint)[]): Choice {
  return { field: of, values: values.map(BigInt) };
}

const V6 = 0x20010db8n << 96n;

/** Fields and values that frames made from `ARBITRARY_POOL` have. */
const CHOICES: readonly Choice[] = [
  choice(META.l4proto, 1, 6, 17, 58),
  choice(META.protocol, 0x0800, 0x86dd, 0x0806),
  choice(META.length, 28, 40, 48, 60),
  choice(META.nfproto, 2, 10),
  choice(META.pkttype, 0, 1, 2),
  choice(field('ether', 'daddr'), 0x020000000001n, 0xffffffffffffn),
  choice(field('ether', 'type'), 0x0800, 0x8100),
  choice(field('ip', 'saddr'), 0x0a000002, 0x0a000003, 0x0a0000fe),
  choice(field('ip', 'daddr'), 0x0a000001, 0x0a000002),
  choice(field('ip', 'ttl'), 1, 63, 64),
  choice(field('ip', 'frag-off'), 0, 0x2000, 0x4000),
  choice(field('ip6', 'saddr'), V6 | 2n, V6 | 3n),
  choice(field('ip6', 'hoplimit'), 64, 255),
  choice(field('th', 'dport'), 53, 80, 443),
  choice(field('tcp', 'flags'), 2, 0x12, 0x10),
  choice(field('udp', 'length'), 8, 28),
  choice(field('icmp', 'type'), 8, 0, 128),
];

export const ARBITRARY_POOL: FramePool = {
  ...EMPTY_POOL,
  ip: [Uint8Array.of(10, 0, 0, 2), Uint8Array.of(10, 0, 0, 3), Uint8Array.of(10, 0, 0, 254)],
  ports: [53, 80, 443],
  protocols: [1, 6, 17, 58],
  tcpFlags: [2, 0x12, 0x10],
  icmpTypes: [0, 8, 128],
};

const choices = fc.constantFrom(...CHOICES);

function drawValue({ field: { width }, values }: Choice): fc.Arbitrary<bigint> {
  return fc
    .tuple(fc.constantFrom(...values), fc.constantFrom(0n, 0n, 0n, 1n, -1n))
    .map(([value, off]) => (value + off) & ones(width));
}

function intervalOf(of: Choice): fc.Arbitrary<readonly [bigint, bigint]> {
  return fc.tuple(drawValue(of), drawValue(of)).map(([a, b]) => (a < b ? [a, b] : [b, a]));
}

function operandOf({ field: of }: Choice): fc.Arbitrary<Operand> {
  const whole = plain(of);
  const masks = [ones(of.width), ones(of.width) ^ 1n, ones(of.width) & ~0xfn, 0xffn];
  return of.width > 64
    ? fc.constant(whole)
    : fc.oneof(
        { weight: 4, arbitrary: fc.constant(whole) },
        {
          weight: 1,
          arbitrary: fc
            .constantFrom(...masks)
            .map((mask) => ({ ...whole, mask: mask & ones(of.width) })),
        },
      );
}

const comparison: fc.Arbitrary<Test> = choices.chain((of) =>
  fc
    .tuple(operandOf(of), intervalOf(of), fc.boolean(), fc.boolean())
    .map(([operand, [lo, hi], exact, negated]) => {
      const least = operand.mask === ones(of.field.width) ? lo : lo & operand.mask;
      const most = exact || operand.mask !== ones(of.field.width) ? least : hi;
      return { kind: 'compare', operand, lo: least, hi: most, negated, implicit: false };
    }),
);

/** Elements that do not overlap, in any order; exact ones share `lo` and `hi`. */
function elementsOf(
  parts: readonly Choice[],
  exact: boolean,
): fc.Arbitrary<{ readonly lo: readonly bigint[]; readonly hi: readonly bigint[] }> {
  const element = fc.tuple(...parts.map(intervalOf));
  return fc.array(element, { minLength: 1, maxLength: 4 }).map((drawn) => {
    const kept: (readonly (readonly [bigint, bigint])[])[] = [];
    for (const columns of drawn) {
      const cut = columns.map(([lo, hi]) => [lo, exact ? lo : hi] as const);
      const overlaps = kept.some((other) =>
        other.every(([lo, hi], at) => lo <= (cut[at]?.[1] ?? 0n) && hi >= (cut[at]?.[0] ?? 0n)),
      );
      if (!overlaps) kept.push(cut);
    }
    const join = (side: 0 | 1) =>
      kept.map((columns) =>
        columns.reduce(
          (key, range, at) => (key << BigInt(parts[at]?.field.width ?? 0)) | range[side],
          0n,
        ),
      );
    const lo = join(0);
    return { lo, hi: exact ? lo : join(1) };
  });
}

interface Keyed {
  readonly key: readonly Operand[];
  readonly set: ElementSet;
}

const keyed: fc.Arbitrary<Keyed> = fc
  .tuple(fc.uniqueArray(choices, { minLength: 1, maxLength: 2 }), fc.boolean())
  .chain(([parts, exact]) =>
    elementsOf(parts, exact).map(({ lo, hi }) => ({
      key: parts.map((part) => plain(part.field)),
      set: {
        name: null,
        elements: { parts: parts.map((part) => part.field.width), lo, hi, verdicts: null },
        unknown: null,
      },
    })),
  );

const lookup: fc.Arbitrary<Test> = fc
  .tuple(keyed, fc.boolean())
  .map(([{ key, set }, negated]) => ({ kind: 'lookup', key, set, negated }));

const test: fc.Arbitrary<Step> = fc
  .oneof({ weight: 3, arbitrary: comparison }, { weight: 1, arbitrary: lookup })
  .map((made) => ({ kind: 'test', test: made }));

const count: fc.Arbitrary<Step> = fc.constantFrom<Step>(
  { kind: 'count', counter: { kind: 'anonymous', packets: 0, bytes: 0 } },
  { kind: 'count', counter: { kind: 'named', name: 'named' } },
);

function verdictOf(called: readonly string[]): fc.Arbitrary<Verdict> {
  const calls = called.flatMap((chain): Verdict[] => [
    { kind: 'jump', chain },
    { kind: 'goto', chain },
  ]);
  const plainVerdicts = ['drop', 'drop', 'drop', 'accept', 'return', 'continue'] as const;
  return fc.constantFrom<Verdict>(...plainVerdicts.map((kind) => ({ kind })), ...calls, ...calls);
}

function endOf(called: readonly string[]): fc.Arbitrary<readonly Step[]> {
  const verdict = verdictOf(called).map((made): Step[] => [{ kind: 'verdict', verdict: made }]);
  const map = keyed.chain(({ key, set }) => {
    const { length } = set.elements.lo;
    return fc
      .array(verdictOf(called), { minLength: length, maxLength: length })
      .map((verdicts): Step[] => [
        { kind: 'vmap', key, map: { ...set, elements: { ...set.elements, verdicts } } },
      ]);
  });
  return fc.oneof(
    { weight: 5, arbitrary: verdict },
    { weight: 1, arbitrary: map },
    { weight: 1, arbitrary: fc.constant<readonly Step[]>([]) },
  );
}

type Body = readonly (readonly Step[])[];

function bodyOf(called: readonly string[], most: number): fc.Arbitrary<Body> {
  const middle = fc.oneof({ weight: 3, arbitrary: test }, { weight: 1, arbitrary: count });
  const rule = fc
    .tuple(fc.array(middle, { maxLength: 3 }), endOf(called))
    .map(([steps, end]) => [...steps, ...end]);
  return fc.array(rule, { minLength: 1, maxLength: most });
}

function chainOf(table: Pick<Table, 'family' | 'name'>, name: string, body: Body): Chain {
  const rules = body.map((steps, index): Rule => {
    const id = { family: table.family, table: table.name, chain: name, handle: null, index };
    return { id, text: `${name} ${index}`, comment: null, steps, tracks: false, nat: false };
  });
  return { name, handle: null, base: null, rules };
}

const PLACES: readonly (readonly [Family, BaseChain['hook']])[] = [
  ['netdev', 'ingress'],
  ['inet', 'prerouting'],
  ['ip', 'prerouting'],
  ['inet', 'input'],
];

function tableOf(name: string): fc.Arbitrary<Table> {
  return fc
    .record({
      place: fc.constantFrom(...PLACES),
      policy: fc.constantFrom('accept' as const, 'accept' as const, 'drop' as const),
      priority: fc.constantFrom(-10, 0, 0, 10),
      base: bodyOf(['sub0', 'sub1'], 8),
      sub0: bodyOf(['sub1'], 3),
      sub1: bodyOf([], 3),
    })
    .map(({ place: [family, hook], policy, priority, base, sub0, sub1 }) => {
      const table = { family, name };
      const devices = hook === 'ingress' ? ['eth0'] : null;
      const first: BaseChain = { type: 'filter', hook, priority, policy, devices };
      const chains = [
        { ...chainOf(table, 'base', base), base: first },
        chainOf(table, 'sub0', sub0),
        chainOf(table, 'sub1', sub1),
      ];
      const counters = [{ name: 'named', packets: 0, bytes: 0 }];
      return { ...table, handle: null, dormant: false, chains, sets: [], counters };
    });
}

/** Rulesets of up to three tables, as a reader would give them; all that they ask is in the frame. */
export const rulesets: fc.Arbitrary<Ruleset> = fc
  .integer({ min: 1, max: 3 })
  .chain((count) => fc.tuple(...Array.from({ length: count }, (_, at) => tableOf(`t${at}`))))
  .map((tables) => ({ tables }));
