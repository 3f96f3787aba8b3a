import { type Field, fieldKey, META } from '../ir/fields.ts';
import { plain } from '../ir/operand.ts';
import type { ElementSet, Operand, Step, Test } from '../ir/ruleset.ts';
import { ones } from '../support/bits.ts';
import type { Reason } from '../support/diagnostics.ts';
import { remember } from '../support/remember.ts';
import type { KeyPart } from './bytecode-elements.ts';
import { createTestPool, type TestPool } from './test-pool.ts';

/** The reason of everything that a listing shows differently from what the kernel runs. */
export const LISTING_REASON: Reason = {
  code: 'match/listing',
  message: 'nft lists the rule differently from what the kernel runs',
};

/** What instructions of one ruleset have been found to say; rules repeat few of them over and over. */
export interface Seen {
  readonly pool: TestPool;
  /** The integers that words hold, by the words and the part. */
  readonly constants: Map<string, bigint | null>;
  /** What loads load, by instruction. */
  readonly fields: Map<string, Field>;
}

export function createSeen(): Seen {
  return { pool: createTestPool(), constants: new Map(), fields: new Map() };
}

/** The sets that a rule's instructions name. */
export interface BytecodeSets {
  readonly seen: Seen;
  /** The set, read for keys that lie in registers of these parts; null when it is not readable. */
  readonly find: (
    name: string,
    parts: readonly KeyPart[],
    content: 'set' | 'verdicts',
  ) => ElementSet | null;
  /** 32-bit words of the set's keys, or null where it has no elements that would show it. */
  readonly keyWords: (name: string) => number | null;
}

/** For instructions that look no set up. */
export function noSets(): BytecodeSets {
  return { seen: createSeen(), find: () => null, keyWords: () => null };
}

/** A value in the kernel's registers; `operand` is null where it is not of the packet's headers. */
export interface Register {
  readonly operand: Operand | null;
  readonly little: boolean;
  readonly words: number;
  /** Loading it changes state that later packets see. */
  readonly stateful: boolean;
}

/** Registers and steps while the instructions of one rule are followed. */
export interface Machine {
  readonly steps: Step[];
  readonly sets: BytecodeSets;
  readonly registers: Map<number, Register>;
}

/** A register of which nothing is known. */
export const OPAQUE: Register = { operand: null, little: false, words: 1, stateful: false };

/** First 32-bit word of a register (nf_tables.h: 1 to 4 are the 16-byte ones, from 8 on 4-byte ones). */
export function wordIndex(register: string | undefined): number {
  const number = Number(register);
  return number <= 4 ? (number - 1) * 4 : number - 8;
}

function forget(machine: Machine, first: number, count: number): void {
  for (const [word, { words }] of machine.registers) {
    if (word < first + count && first < word + words) machine.registers.delete(word);
  }
}

/** Fills a register, and forgets what it overwrites. */
export function setRegister(machine: Machine, number: string | undefined, value: Register): void {
  const first = wordIndex(number);
  forget(machine, first, value.words);
  machine.registers.set(first, value);
}

// Nothing is longer than a 16-byte register.
const MOST_WORDS = 4;

/** Fills a register with something that is not of the packet's headers, of a length unknown. */
export function setOpaque(machine: Machine, number: string | undefined, stateful = false): void {
  const first = wordIndex(number);
  forget(machine, first, MOST_WORDS);
  machine.registers.set(first, { ...OPAQUE, stateful });
}

/** What a register holds. */
export function registerOf(machine: Machine, number: string | undefined): Register {
  return machine.registers.get(wordIndex(number)) ?? OPAQUE;
}

/** Whether the test only asks for the field to be there, as every load does. */
export function isPresence(test: Test): boolean {
  return (
    test.kind === 'compare' &&
    test.implicit &&
    !test.negated &&
    test.lo === 0n &&
    test.hi === ones(test.operand.field.width)
  );
}

// Bytes of a name that fill three words; a longer name takes four, as a whole one does.
const SHORT_NAME = 12;

/** A comparison with a name so long that bytecode looks the same with and without a wildcard. */
export function isLongName({ operand, lo }: Extract<Test, { kind: 'compare' }>): boolean {
  const { field } = operand;
  if (field.name !== META.iifname.name && field.name !== META.oifname.name) return false;
  return (lo & ones(field.width - SHORT_NAME * 8)) !== 0n;
}

/** The test that a field is there. */
const presenceTest = remember((field: Field): Test => {
  const hi = ones(field.width);
  return { kind: 'compare', operand: plain(field), lo: 0n, hi, negated: false, implicit: true };
});

/** A load ends the rule when the packet is too short. */
export function pushPresence(machine: Machine, field: Field): void {
  machine.steps.push({ kind: 'test', test: presenceTest(field) });
}

function dropPresence(machine: Machine, operands: readonly Operand[]): void {
  for (;;) {
    const last = machine.steps.at(-1);
    if (last?.kind !== 'test' || last.test.kind !== 'compare' || !isPresence(last.test)) return;
    const key = fieldKey(last.test.operand.field);
    if (!operands.some(({ field }) => fieldKey(field) === key)) return;
    machine.steps.pop();
  }
}

/** Appends a step that tests `operands`, which makes the tests of their presence needless. */
export function pushKeyed(machine: Machine, operands: readonly Operand[], step: Step): void {
  dropPresence(machine, operands);
  machine.steps.push(step);
}

/** Appends a test that nobody can evaluate; `text` is the instruction. */
export function pushGate(machine: Machine, text: string, stateful: boolean): void {
  const test: Test = { kind: 'unknown', reason: LISTING_REASON, stateful, text };
  machine.steps.push({ kind: 'test', test });
}
