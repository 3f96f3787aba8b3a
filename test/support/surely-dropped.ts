import type { Classifier, Target } from '../../src/ir/classifier.ts';
import { evaluateTest } from '../../src/ir/evaluate.ts';
import { FRAME, META } from '../../src/ir/fields.ts';
import { testedFields } from '../../src/ir/operand.ts';
import type { Packet, View } from '../../src/ir/packet.ts';

const ANY_FRAME: ReadonlySet<string> = new Set(
  [META.protocol, META.pkttype, ...Object.values(FRAME)].map(({ name }) => name),
);

/**
 * Whether a frame is dropped or lost whatever the tests say that nobody can tell: `evaluate` gives up
 * at the first of them. Counters and effects on the way are left out of account.
 */
export function surelyDropped(
  { entries }: Classifier,
  packet: Packet,
  mac: bigint | null = null,
): boolean {
  if (packet.odd === 'packet/cut-tag') return true;
  const known = new Map<number, boolean>();
  const follow = (target: Target): boolean => {
    if (target.kind === 'entry') return walk(target.index);
    return target.kind === 'drop' || target.kind === 'lost';
  };
  const viewOf = (index: number): View | null => {
    const entry = entries[index];
    if (entry === undefined || entry.view === 'ingress') return packet.ingress;
    const fields = entry.tests.flatMap(testedFields);
    const isPlain = fields.length > 0 && fields.every(({ name }) => ANY_FRAME.has(name));
    return packet.l3 ?? (isPlain ? packet.ingress : null);
  };
  const decide = (index: number): boolean => {
    const entry = entries[index];
    if (entry === undefined) return false;
    const view = viewOf(index);
    if (view === null) return packet.noL3 === 'malformed';
    const truths = entry.tests.map((test) => evaluateTest(test, view, packet, mac));
    if (truths.includes(false)) return follow(entry.otherwise);
    const isOpen = truths.includes('unknown');
    return follow(entry.then) && (!isOpen || follow(entry.otherwise));
  };
  const walk = (index: number): boolean => {
    const before = known.get(index);
    if (before !== undefined) return before;
    const result = decide(index);
    known.set(index, result);
    return result;
  };
  return walk(0);
}
