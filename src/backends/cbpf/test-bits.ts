import { type Code, type CodeTable, run, test } from './code.ts';
import type { StraightInsn } from './insn.ts';
import { costOf, type Piece } from './pieces.ts';

/** Bits that one comparison can ask for. */
const WORD = 32;

/** Every other one of these steps leads to `inside`; those between them and around to `outside`. */
interface Window {
  readonly first: number;
  /** The step behind the last one that leads inside. */
  readonly end: number;
  /** What the bits count from. */
  readonly base: number;
  readonly saved: number;
}

/** Fewer steps are always compared faster. */
const FEW_STEPS = 5;

/** Comparisons that tell the steps of a window apart from each other and from those around. */
function costOfSteps(steps: readonly Piece[], first: number, end: number): number {
  const pieces = steps.slice(Math.max(0, first - 1), end + 1);
  return costOf({ pieces, lo: 0, hi: Number.POSITIVE_INFINITY });
}

/** Instructions that ask for a bit: one for each edge of the window, then those of `askBits`. */
function costOfBits(base: number): number {
  return base === 0 ? 1 + 4 : 2 + 5;
}

/** The window that saves most, or null when none does. */
function findWindow(steps: readonly Piece[]): Window | null {
  let best: Window | null = null;
  for (const [first, { from, to: inside }] of steps.entries()) {
    const outside = (first === 0 ? steps[1] : steps[first - 1])?.to;
    const base = first <= 1 && from < WORD ? 0 : from;
    for (let end = first + 1; end < steps.length; end += 2) {
      const behind = steps[end];
      if (steps[end - 1]?.to !== inside || behind?.to !== outside) break;
      if (behind === undefined || behind.from - base > WORD) break;
      if (end - first < FEW_STEPS) continue;
      const saved = costOfSteps(steps, first, end) - costOfBits(base);
      if (saved > (best?.saved ?? 0)) best = { first, end, base, saved };
    }
  }
  return best;
}

/** Asks for the bit of A in a word that has one for each value that leads inside. */
function askBits(table: CodeTable, steps: readonly Piece[], { first, end, base }: Window): Code {
  const [inside, outside] = [steps[first], steps[end]];
  if (inside === undefined || outside === undefined) throw new Error('bug: a window without steps');
  let bits = 0;
  for (let i = first; i < end; i += 2) {
    const to = steps[i + 1]?.from ?? 0;
    for (let value = steps[i]?.from ?? to; value < to; value += 1) bits += 2 ** (value - base);
  }
  const choice = test(table, 'jset', bits, inside.to, outside.to, inside.rule);
  const insns: readonly StraightInsn[] = [
    ...(base === 0 ? [] : [{ kind: 'alu', op: 'sub', src: base } as const]),
    { kind: 'tax' },
    { kind: 'ld_imm', k: 1 },
    { kind: 'alu', op: 'lsh', src: 'x' },
  ];
  return run(table, insns, choice, inside.rule);
}

/**
 * Steps again, where values close to each other that lead to one of two places are asked for by their
 * bits in a word, as far as that is shorter than to compare them one by one. A and X are lost there.
 */
export function testBits(table: CodeTable, steps: readonly Piece[]): readonly Piece[] {
  const window = findWindow(steps);
  if (window === null) return steps;
  const { first, end, base } = window;
  const bits = { from: base, to: askBits(table, steps, window), rule: steps[first]?.rule ?? null };
  const before = steps.slice(0, first).filter(({ from }) => from < base);
  return testBits(table, [...before, bits, ...steps.slice(end)]);
}
