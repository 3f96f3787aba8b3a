import { type Base, CT_STATE, type Field, META, rawField } from '../ir/fields.ts';
import { isPlain, plain } from '../ir/operand.ts';
import type { ElementSet, Operand, Step, Test } from '../ir/ruleset.ts';
import { ones } from '../support/bits.ts';
import { applyAnd, applyShift, applyXor } from './arithmetic.ts';
import { runEffect } from './bytecode-effects.ts';
import { HOST_LITTLE, type KeyPart, readWords } from './bytecode-elements.ts';
import {
  type BytecodeSets,
  isLongName,
  LISTING_REASON,
  type Machine,
  noSets,
  OPAQUE,
  pushGate,
  pushKeyed,
  pushPresence,
  type Register,
  registerOf,
  setOpaque,
  setRegister,
  wordIndex,
} from './bytecode-machine.ts';

const META_OF_KEY: Readonly<Record<string, readonly [field: Field, bytes: number, host: boolean]>> =
  {
    protocol: [META.protocol, 2, false],
    nfproto: [META.nfproto, 1, false],
    l4proto: [META.l4proto, 1, false],
    len: [META.length, 4, true],
    pkttype: [META.pkttype, 1, false],
    mark: [META.mark, 4, true],
    priority: [META.priority, 4, true],
    iif: [META.iif, 4, true],
    oif: [META.oif, 4, true],
    iifname: [META.iifname, 16, false],
    oifname: [META.oifname, 16, false],
    iifgroup: [META.iifgroup, 4, true],
    oifgroup: [META.oifgroup, 4, true],
    iiftype: [META.iiftype, 2, true],
    oiftype: [META.oiftype, 2, true],
  };

const BASES: Readonly<Record<string, Exclude<Base, 'meta'>>> = {
  link: 'll',
  network: 'nh',
  transport: 'th',
};

type Instruction = (machine: Machine, parts: readonly string[], line: string) => void;

const loadPayload: Instruction = (machine, [length, header, offset, target], line) => {
  const base = BASES[header ?? ''];
  const width = Number(length) * 8;
  const words = Math.ceil(width / 32);
  const { fields } = machine.sets.seen;
  let field = fields.get(line) ?? null;
  if (field === null && base !== undefined) {
    field = rawField(base, Number(offset) * 8, width);
    fields.set(line, field);
  }
  const operand = field === null ? null : plain(field);
  setRegister(machine, target, { operand, little: false, words, stateful: false });
  if (field !== null) pushPresence(machine, field);
  else pushGate(machine, line, false);
};

const loadMeta: Instruction = (machine, [key = '', target]) => {
  const row = Object.hasOwn(META_OF_KEY, key) ? META_OF_KEY[key] : undefined;
  if (row === undefined) {
    setOpaque(machine, target);
    return;
  }
  const [field, bytes, host] = row;
  setRegister(machine, target, {
    operand: plain(field),
    little: host && HOST_LITTLE,
    words: Math.ceil(bytes / 4),
    stateful: false,
  });
};

const loadCtState: Instruction = (machine, [target]) => {
  const operand = plain(CT_STATE);
  setRegister(machine, target, { operand, little: HOST_LITTLE, words: 1, stateful: false });
};

/** Whether the field is a device, which rules name and registers number. */
function isDevice({ field }: Operand): boolean {
  return field === META.iif || field === META.oif;
}

// A device's number.
const INDEX_BITS = 32;

function partOf({ operand, little }: Register): KeyPart | null {
  if (operand === null) return null;
  return { width: isDevice(operand) ? INDEX_BITS : operand.field.width, little };
}

function constantOf(
  { sets }: Machine,
  register: Register,
  words: string | undefined,
): bigint | null {
  const part = partOf(register);
  if (part === null || words === undefined) return null;
  const { constants } = sets.seen;
  const key = `${words} ${part.width} ${part.little}`;
  let value = constants.get(key);
  if (value === undefined) {
    value = readWords(part, words.trim().replaceAll('0x', '').split(/\s+/));
    constants.set(key, value);
  }
  return value;
}

const maskXor: Instruction = (machine, [target, source, maskWords, xorWords]) => {
  const value = registerOf(machine, source);
  const mask = constantOf(machine, value, maskWords);
  const xor = constantOf(machine, value, xorWords);
  const known = value.operand !== null && mask !== null && xor !== null;
  const operand = known ? applyXor(applyAnd(value.operand, mask), xor) : null;
  setRegister(machine, target, { ...value, operand });
};

const shiftBits: Instruction = (machine, [target, source, operator, count]) => {
  const value = registerOf(machine, source);
  const by = Number.parseInt(count ?? '0', 16) * (operator === '<<' ? 1 : -1);
  const { operand } = value;
  // The kernel shifts words in the order of the host.
  const isNumber = operand !== null && value.words === 1 && isHostOrder(value, operand);
  setRegister(machine, target, { ...value, operand: isNumber ? applyShift(operand, by) : null });
};

function isHostOrder(value: Register, operand: Operand): boolean {
  return operand.field.width === 8 || value.little === HOST_LITTLE;
}

const swapBytes: Instruction = (machine, [target, source, length, size]) => {
  const value = registerOf(machine, source);
  const isWhole =
    length === size && value.operand !== null && value.operand.field.width === Number(size) * 8;
  const swapped = { ...value, little: HOST_LITTLE ? !value.little : value.little };
  setRegister(machine, target, isWhole ? swapped : { ...value, operand: null });
};

const copyRegister: Instruction = (machine, [target, source]) => {
  setRegister(machine, target, registerOf(machine, source));
};

function pushCompare(
  machine: Machine,
  operand: Operand,
  [lo, hi]: readonly [bigint, bigint],
  negated: boolean,
): void {
  const test: Test = { kind: 'compare', operand, lo, hi, negated, implicit: false };
  pushKeyed(machine, [operand], { kind: 'test', test: machine.sets.seen.pool(test) });
}

/** Bytes are compared as they lie in memory, which orders only big-endian integers. */
function isOrdered({ operand, little }: Register): boolean {
  return operand !== null && (!little || operand.field.width === 8);
}

const compareRange: Instruction = (machine, [operator, source, values = ''], line) => {
  const value = registerOf(machine, source);
  const words = values.trim().split(/\s+/);
  const half = words.length / 2;
  const lo = constantOf(machine, value, words.slice(0, half).join(' '));
  const hi = constantOf(machine, value, words.slice(half).join(' '));
  if (value.operand === null || lo === null || hi === null || !isOrdered(value)) {
    pushGate(machine, line, value.stateful);
    return;
  }
  pushCompare(machine, value.operand, [lo, hi], operator === 'neq');
};

/** A name, or the beginning of longer ones where fewer bytes are compared. */
function compareName(machine: Machine, operand: Operand, words: string, negated: boolean): boolean {
  const parts = words.trim().replaceAll('0x', '').split(/\s+/);
  const whole = readWords({ width: parts.length * 32, little: false }, parts);
  if (whole === null || parts.length > 4 || !isPlain(operand)) return false;
  const value = whole << BigInt(128 - parts.length * 32);
  const mask = parts.length === 4 ? ones(128) : ones(128) ^ ones(trailingZeros(value) * 8);
  pushCompare(machine, { ...operand, mask }, [value, value], negated);
  return true;
}

function trailingZeros(value: bigint): number {
  let bytes = 0;
  for (let rest = value; bytes < 16 && (rest & 0xffn) === 0n; rest >>= 8n) bytes += 1;
  return bytes;
}

const compare: Instruction = (machine, [operator = '', source, words = ''], line) => {
  const value = registerOf(machine, source);
  const { operand } = value;
  const isExact = operator === 'eq' || operator === 'neq';
  const isName = operand?.field === META.iifname || operand?.field === META.oifname;
  if (isName && isExact && operand !== null) {
    if (!compareName(machine, operand, words, operator === 'neq')) pushGate(machine, line, false);
    return;
  }
  const constant = constantOf(machine, value, words);
  if (operand === null || constant === null || !(isExact || isOrdered(value))) {
    pushGate(machine, line, value.stateful);
    return;
  }
  const top = ones(operand.field.width);
  switch (operator) {
    case 'eq':
    case 'neq':
      return pushCompare(machine, operand, [constant, constant], operator === 'neq');
    case 'lte':
      return pushCompare(machine, operand, [0n, constant], false);
    case 'gte':
      return pushCompare(machine, operand, [constant, top], false);
    case 'lt':
      // Below 0 and above the top there is nothing: outside of everything.
      return constant === 0n
        ? pushCompare(machine, operand, [0n, top], true)
        : pushCompare(machine, operand, [0n, constant - 1n], false);
    case 'gt':
      return constant === top
        ? pushCompare(machine, operand, [0n, top], true)
        : pushCompare(machine, operand, [constant + 1n, top], false);
    default:
      return pushGate(machine, line, value.stateful);
  }
};

/** The registers of a key: neighbours from the first on, as many as the set's keys are long. */
function keyRegisters(
  machine: Machine,
  first: string | undefined,
  words: number | null,
): Register[] {
  const found: Register[] = [];
  let at = wordIndex(first);
  const end = words === null ? Number.POSITIVE_INFINITY : at + words;
  while (at < end) {
    const register = machine.registers.get(at);
    if (register === undefined) break;
    found.push(register);
    at += register.words;
  }
  return words !== null && at !== end ? [OPAQUE] : found;
}

interface Key {
  readonly operands: readonly Operand[];
  readonly set: ElementSet;
}

function readKey(
  machine: Machine,
  first: string | undefined,
  name: string,
  content: 'set' | 'verdicts',
): Key | { readonly stateful: boolean } {
  const registers = keyRegisters(machine, first, machine.sets.keyWords(name));
  const stateful = registers.some((register) => register.stateful);
  const operands: Operand[] = [];
  const parts: KeyPart[] = [];
  for (const register of registers) {
    const part = partOf(register);
    if (register.operand === null || part === null) return { stateful };
    operands.push(register.operand);
    parts.push(part);
  }
  const set = parts.length === 0 ? null : machine.sets.find(name, parts, content);
  return set === null ? { stateful } : { operands, set };
}

const lookUp: Instruction = (machine, [first, name = '', target], line) => {
  const isMap = target === '0';
  const key = readKey(machine, first, name, isMap ? 'verdicts' : 'set');
  if (!('set' in key)) {
    pushGate(machine, line, key.stateful);
    if (isMap) runEffect(machine, 'vmap');
  } else if (isMap) {
    pushKeyed(machine, key.operands, { kind: 'vmap', key: key.operands, map: key.set });
  } else {
    // NFT_LOOKUP_F_INV of include/uapi/linux/netfilter/nf_tables.h.
    const negated = / 0x1$/.test(line.trimEnd());
    const test: Test = { kind: 'lookup', key: key.operands, set: key.set, negated };
    pushKeyed(machine, key.operands, { kind: 'test', test });
  }
  if (target !== undefined && !isMap) setOpaque(machine, target);
};

/** A counter, quota or limit that a map chooses. */
const chooseObject: Instruction = (machine, [first, name = ''], line) => {
  const key = readKey(machine, first, name, 'set');
  if ('set' in key) {
    const test: Test = { kind: 'lookup', key: key.operands, set: key.set, negated: false };
    pushKeyed(machine, key.operands, { kind: 'test', test });
  } else {
    pushGate(machine, line, key.stateful);
  }
  runEffect(machine, 'objref map');
};

const decide: Instruction = (machine, [text = ''], line) => {
  const [kind = '', chain = ''] = text.replace(' -> ', ' ').split(' ');
  switch (kind) {
    case 'accept':
    case 'drop':
    case 'continue':
    case 'return':
      machine.steps.push({ kind: 'verdict', verdict: { kind } });
      return;
    case 'jump':
    case 'goto':
      machine.steps.push({ kind: 'verdict', verdict: { kind, chain } });
      return;
    default:
      runEffect(machine, line);
  }
};

const countOwn: Instruction = (machine, [packets, bytes]) => {
  const own = { packets: Number(packets), bytes: Number(bytes) };
  const limit = Number.MAX_SAFE_INTEGER;
  machine.steps.push({
    kind: 'count',
    counter: {
      kind: 'anonymous',
      packets: Math.min(own.packets, limit),
      bytes: Math.min(own.bytes, limit),
    },
  });
};

const countNamed: Instruction = (machine, [name = '']) => {
  machine.steps.push({ kind: 'count', counter: { kind: 'named', name } });
};

/** One row an instruction, by its first word; the first that fits a line is taken. */
const INSTRUCTIONS: Readonly<Record<string, readonly (readonly [RegExp, Instruction])[]>> = {
  payload: [[/^payload load (\d+)b @ (\w+) header \+ (\d+) => reg (\d+)$/, loadPayload]],
  meta: [[/^meta load (\w+) => reg (\d+)$/, loadMeta]],
  ct: [[/^ct load state => reg (\d+)$/, loadCtState]],
  bitwise: [
    [/^bitwise reg (\d+) = \( ?reg (\d+) & ([0-9a-fx ]+) ?\) \^ ([0-9a-fx ]+)$/, maskXor],
    [/^bitwise reg (\d+) = \( reg (\d+) (<<|>>) 0x([0-9a-f]+) \)$/, shiftBits],
  ],
  byteorder: [[/^byteorder reg (\d+) = (?:hton|ntoh)\(reg (\d+), (\d+), (\d+)\)$/, swapBytes]],
  range: [[/^range (eq|neq) reg (\d+) (.+)$/, compareRange]],
  lookup: [[/^lookup reg (\d+) set (\S+)(?: dreg (\d+))?/, lookUp]],
  objref: [
    [/^objref sreg (\d+) set (\S+)/, chooseObject],
    // NFT_OBJECT_COUNTER of include/uapi/linux/netfilter/nf_tables.h.
    [/^objref type 1 name (\S+)$/, countNamed],
  ],
  cmp: [[/^cmp (\w+) reg (\d+) (.+)$/, compare]],
  immediate: [
    [/^immediate reg 0 (.+)$/, decide],
    [/^immediate reg (\d+) /, (machine, [target]) => setOpaque(machine, target)],
  ],
  counter: [[/^counter pkts (\d+) bytes (\d+)$/, countOwn]],
  mov: [[/^mov reg (\d+) = reg (\d+)$/, copyRegister]],
};

// Whatever else fills a register: `ct load state => reg 1`, `hash reg 1 = symhash()`, `osf dreg 1`.
const OTHER_LOAD =
  /^(?:(?:ct|fib|rt|socket|exthdr|xfrm|tunnel|meta|inner)\b.* => reg (\d+)\b|(?:numgen|hash|osf) d?reg (\d+)\b)/;
const STORE = /^(?:ct|meta) set |^exthdr (?:write|reset) /;

function loadOther(machine: Machine, line: string): boolean {
  const found = STORE.test(line) ? null : OTHER_LOAD.exec(line);
  if (found === null) return false;
  setOpaque(machine, found[1] ?? found[2], line.startsWith('numgen '));
  return true;
}

/** Runs the first row that fits a line; false when none does. */
function runRow(
  machine: Machine,
  rows: readonly (readonly [RegExp, Instruction])[] = [],
  line: string,
): boolean {
  for (const [pattern, run] of rows) {
    const found = pattern.exec(line);
    if (found === null) continue;
    run(machine, found.slice(1), line);
    return true;
  }
  return false;
}

/**
 * Follows the instructions of a rule, so that nothing has been guessed. What is not evaluable becomes an
 * unknown test, what is not understood an effect of which nothing is known. Devices are numbers, and a
 * long name may have been the beginning of one: good for comparing, not for evaluating.
 */
export function followBytecode(
  instructions: readonly string[],
  sets: BytecodeSets,
): readonly Step[] {
  const machine: Machine = { steps: [], sets, registers: new Map() };
  for (const instruction of instructions) {
    const line = instruction.trim();
    const rows = INSTRUCTIONS[line.slice(0, line.indexOf(' '))];
    if (!runRow(machine, rows, line) && !loadOther(machine, line)) runEffect(machine, line);
  }
  return machine.steps;
}

function isOpen(test: Test): boolean {
  if (test.kind === 'unknown') return false;
  if (test.kind === 'compare') return isDevice(test.operand) || isLongName(test);
  return test.key.some(isDevice);
}

function closeStep(step: Step): readonly Step[] {
  const test: Test = { kind: 'unknown', reason: LISTING_REASON, stateful: false, text: 'device' };
  const unknown: Step = { kind: 'test', test };
  if (step.kind === 'test') return isOpen(step.test) ? [unknown] : [step];
  if (step.kind !== 'vmap' || !step.key.some(isDevice)) return [step];
  const machine: Machine = { steps: [unknown], sets: noSets(), registers: new Map() };
  runEffect(machine, 'vmap');
  return machine.steps;
}

/** The steps of `followBytecode` for evaluating: what a listing alone could tell is unknown. */
export function closeSteps(steps: readonly Step[]): readonly Step[] {
  return steps.flatMap(closeStep);
}
