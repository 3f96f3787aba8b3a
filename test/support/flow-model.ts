import { evaluateTest } from '../../src/ir/evaluate.ts';
import { CT_STATE, META } from '../../src/ir/fields.ts';
import { applyOperand } from '../../src/ir/operand.ts';
import { type Packet, parsePacket, type View } from '../../src/ir/packet.ts';
import { nameValue } from '../../src/ir/resolve-test.ts';
import type { Chain, Hook, Ruleset, Table, Test, Verdict } from '../../src/ir/ruleset.ts';

/** A packet on its way: where it came in and goes out, and what connection tracking says of it. */
interface Passage {
  readonly packet: Packet;
  readonly view: View;
  readonly state: bigint;
  readonly iif: string;
  readonly oif: string;
  /** Decides what a test comes out as that nobody can tell from the packet. */
  readonly coin: () => boolean;
}

const NEW = 8n;
const ESTABLISHED = 2n;
const INVALID = 1n;

function loadMeta(name: string, passage: Passage): bigint | null {
  if (name === CT_STATE.name) return passage.state;
  if (name === META.iif.name || name === META.iifname.name) return nameValue(passage.iif);
  if (name === META.oif.name || name === META.oifname.name) return nameValue(passage.oif);
  return null;
}

function holdsTest(test: Test, passage: Passage): boolean {
  if (test.kind === 'unknown') return passage.coin();
  const operand = test.kind === 'compare' ? test.operand : test.key[0];
  if (operand === undefined) throw new Error('bug: a test without operand');
  const loaded = loadMeta(operand.field.name, passage);
  if (loaded !== null) {
    const value = applyOperand(operand, loaded);
    const boxes =
      test.kind === 'compare'
        ? [[test.lo, test.hi] as const]
        : test.set.elements.lo.map((lo, i) => [lo, test.set.elements.hi[i] ?? lo] as const);
    return boxes.some(([lo, hi]) => value >= lo && value <= hi) !== test.negated;
  }
  const truth = evaluateTest(test, passage.view, passage.packet);
  return truth === 'unknown' ? passage.coin() : truth;
}

/** What a rule says of a packet; null when it says nothing. What is neither drop nor known accepts. */
function ruleVerdict({ steps }: Chain['rules'][number], passage: Passage): Verdict | null {
  for (const step of steps) {
    if (step.kind === 'test' && !holdsTest(step.test, passage)) return null;
    if (step.kind === 'verdict') return step.verdict;
    if (step.kind === 'effect' && step.outcome !== 'next') {
      return { kind: step.outcome === 'drop' ? 'drop' : 'accept' };
    }
    if (step.kind !== 'vmap') continue;
    const { parts, lo, hi, verdicts } = step.map.elements;
    const found = lo.findIndex((low, i) => {
      const elements = { parts, lo: [low], hi: [hi[i] ?? low], verdicts: null };
      const set = { ...step.map, elements };
      return holdsTest({ kind: 'lookup', key: step.key, set, negated: false }, passage);
    });
    return verdicts?.[found] ?? null;
  }
  return null;
}

function walkChain(table: Table, chain: Chain, passage: Passage): 'accept' | 'drop' | 'end' {
  for (const rule of chain.rules) {
    const verdict = ruleVerdict(rule, passage);
    if (verdict === null || verdict.kind === 'continue') continue;
    if (verdict.kind === 'accept' || verdict.kind === 'drop') return verdict.kind;
    if (verdict.kind === 'return') return 'end';
    const called = table.chains.find(({ name }) => name === verdict.chain);
    if (called === undefined) throw new Error(`bug: no chain ${verdict.chain}`);
    const result = walkChain(table, called, passage);
    if (result !== 'end' || verdict.kind === 'goto') return result;
  }
  return 'end';
}

function passes({ tables }: Ruleset, hook: Hook, passage: Passage): boolean {
  return tables.every((table) =>
    table.chains.every((chain) => {
      if (chain.base?.hook !== hook) return true;
      const result = walkChain(table, chain, passage);
      return result === 'accept' || (result === 'end' && chain.base.policy === 'accept');
    }),
  );
}

interface Tuple {
  readonly protocol: number;
  readonly ends: readonly [from: string, to: string];
  /** An ICMP message that never begins a flow. */
  readonly answer: boolean;
}

/** As the kernel's nf_ct_get_tuple has it: through an IPv6 authentication header. */
function tupleOf({ frame, network, nfproto }: View): Tuple {
  const six = nfproto === 10;
  const size = six ? 16 : 4;
  const saddr = network + (six ? 8 : 12);
  const address = (at: number): string =>
    Buffer.from(frame.subarray(at, at + size)).toString('hex');
  let protocol = frame[network + (six ? 6 : 9)] ?? 0;
  let transport = network + (six ? 40 : ((frame[network] ?? 0) & 15) * 4);
  if (six && protocol === 51) {
    protocol = frame[transport] ?? 0;
    transport += ((frame[transport + 1] ?? 0) + 2) * 4;
  }
  const word = (at: number): number => ((frame[at] ?? 0) << 8) | (frame[at + 1] ?? 0);
  const ports =
    protocol === 6 || protocol === 17 ? [word(transport), word(transport + 2)] : ['', ''];
  const answer = (protocol === 1 || protocol === 58) && [0, 129].includes(frame[transport] ?? 0);
  const ends = [`${address(saddr)} ${ports[0]}`, `${address(saddr + size)} ${ports[1]}`] as const;
  return { protocol, ends, answer };
}

/** A machine with a ruleset and a connection table: flows begin with packets that all hooks let pass. */
export interface FlowModel {
  /** How many packets belonged to a known flow. */
  readonly known: () => number;
  /**
   * Whether the packet gets to a program here, or on its way to another machine; `leaves` by eth1
   * unless told.
   */
  readonly pass: (
    frame: Uint8Array,
    from: 'inside' | 'outside',
    device: string,
    leaves?: string,
  ) => boolean;
}

/** A machine that knows no flow yet; `own` are its addresses, as hexadecimal digits. */
export function createFlowModel(
  ruleset: Ruleset,
  own: ReadonlySet<string>,
  forwards: boolean,
  coin: () => boolean,
): FlowModel {
  /** First tuple of a flow, and whether an answer has been seen. */
  const flows = new Map<string, boolean>();
  let known = 0;
  const stateOf = ({ protocol, ends: [from, to], answer }: Tuple): bigint => {
    const forth = flows.get(`${protocol} ${from} ${to}`);
    const back = flows.has(`${protocol} ${to} ${from}`);
    const icmp = protocol === 1 || protocol === 58;
    if (forth !== undefined && !(icmp && answer)) return forth ? ESTABLISHED : NEW;
    if (back && (!icmp || answer)) {
      flows.set(`${protocol} ${to} ${from}`, true);
      return ESTABLISHED;
    }
    return answer ? INVALID : NEW;
  };
  return {
    known: () => known,
    pass(frame, from, device, leaves = 'eth1') {
      const packet = parsePacket(frame);
      const view = packet.l3;
      if (view === null) return false;
      const tuple = tupleOf(view);
      const state = stateOf(tuple);
      if (state === ESTABLISHED) known += 1;
      const [source = '', target = ''] = tuple.ends.map((end) => end.split(' ')[0]);
      const local = own.has(target);
      // Only IPv4 refuses its own source from outside.
      if (from === 'outside' && own.has(source) && view.nfproto === 2) return false;
      if (from === 'outside' && !local && !forwards) return false;
      const hooks: readonly Hook[] =
        from === 'inside'
          ? ['output', 'postrouting']
          : local
            ? ['prerouting', 'input']
            : ['prerouting', 'forward', 'postrouting'];
      const passed = hooks.every((hook) => {
        const iif = from === 'inside' || hook === 'postrouting' ? '' : device;
        const oif = hook === 'prerouting' || hook === 'input' ? '' : leaves;
        return passes(ruleset, hook, { packet, view, state, iif, oif, coin });
      });
      if (passed && state === NEW) {
        const key = `${tuple.protocol} ${tuple.ends[0]} ${tuple.ends[1]}`;
        if (!flows.has(key)) flows.set(key, false);
      }
      return passed;
    },
  };
}
