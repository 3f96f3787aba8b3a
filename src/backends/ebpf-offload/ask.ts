import type { Question } from '../../ir/decision-nodes.ts';
import { type Field, FRAME, fieldKey, META } from '../../ir/fields.ts';
import type { Operand } from '../../ir/ruleset.ts';
import { ones } from '../../support/bits.ts';
import { askChecksum } from './checksum.ts';
import { CONTINUE, type Emitter, END, emit, fetch, NH, newLabel, PROTO } from './emitter.ts';
import {
  add,
  and32,
  be,
  type Insn,
  ja,
  jeq32,
  jgt,
  jgt32,
  jlt32,
  jne,
  jne32,
  jset32,
  label,
  ldImm64,
  ldx,
  mov,
  r0,
  r1,
  r2,
  sub,
  sub32,
} from './insn.ts';
import { baseRegister, loadField, loadOperand, pieces } from './loads.ts';
import { askLookup } from './lookup.ts';

type Compare = Extract<Question, { kind: 'compare' }>;

/**
 * Emits one question: control leaves to `yes` or `no`, never behind it. r0-r5 are lost.
 */
export function askQuestion(emitter: Emitter, question: Question, yes: string, no: string): void {
  switch (question.kind) {
    case 'present':
      askPresent(emitter, question, no);
      emit(emitter, ja(yes));
      return;
    case 'lookup':
      askLookup(emitter, question, yes, no);
      return;
    case 'compare':
      askCompare(emitter, question, yes, no);
  }
}

/** The verifier wants to see the bound as well as we do; at layer 3 IP's own length is the bound. */
function askPresent(
  emitter: Emitter,
  { base, view, end }: Extract<Question, { kind: 'present' }>,
  no: string,
): void {
  const trimmed = view === 'l3' && base !== 'll';
  if (trimmed) {
    fetch(emitter, r0, base === 'nh' ? 'l3-length' : 'transport-left');
    emit(emitter, jlt32(r0, end, no));
  }
  const register = baseRegister(emitter, base);
  emit(emitter, mov(r0, register), add(r0, end), jgt(r0, END, trimmed ? CONTINUE : no));
}

function askCompare(emitter: Emitter, question: Compare, yes: string, no: string): void {
  const { operand, lo, hi } = question;
  const { field } = operand;
  const key = fieldKey(field);
  if (key === FRAME.checksum.name) {
    const [right, wrong] = lo === 0n ? [no, yes] : [yes, no];
    askChecksum(emitter, right, wrong);
    return;
  }
  if (key === FRAME.fragment.name) {
    askFragment(emitter, lo, hi, yes, no);
    return;
  }
  if (key === META.l4proto.name && lo === hi && isWhole(operand)) {
    // The verifier follows what falls through first, and should begin where least is known.
    emit(emitter, jeq32(PROTO, Number(lo), yes), ja(no));
    return;
  }
  const bytes = operand.xor === 0n && operand.shift === 0 && field.base !== 'meta';
  if (bytes && lo === hi) askBytes(emitter, operand, lo, yes, no);
  else if (field.width > 64) askWide(emitter, question, yes, no);
  else askRange(emitter, question, yes, no);
}

function isWhole({ field, mask, xor, shift }: Operand): boolean {
  return mask === ones(field.width) && xor === 0n && shift === 0;
}

const FRAGMENT_WORD = 6; // RFC 791: flags and offset
const OFFSET = 0x1fff;
const MORE = 0x2000;

/** Which fragment: read from the IPv4 header, or noted while walking IPv6 extension headers. */
function askFragment(emitter: Emitter, lo: bigint, hi: bigint, yes: string, no: string): void {
  const notIp4 = newLabel(emitter, 'ip6');
  emit(emitter, ldx(1, r0, NH, 0), and32(r0, 0xf0), jne32(r0, 0x40, notIp4));
  emit(emitter, ldx(2, r0, NH, FRAGMENT_WORD), be(16, r0));
  const accepts = (kind: bigint): boolean => kind >= lo && kind <= hi;
  const whole = accepts(0n) ? yes : no;
  const first = accepts(1n) ? yes : no;
  const later = accepts(2n) ? yes : no;
  emit(emitter, jset32(r0, OFFSET, later));
  if (first !== whole) emit(emitter, jset32(r0, MORE, first));
  emit(emitter, ja(whole), label(notIp4));
  fetch(emitter, r0, 'fragment');
  emit(emitter, jne(r0, 0, first), ja(whole));
}

/** The value as it stands in memory, read by a little-endian load of `size` bytes. */
function littleEndian(value: bigint, size: number): number {
  let result = 0;
  for (let index = 0; index < size; index += 1) {
    result += Number((value >> BigInt(8 * (size - 1 - index))) & 0xffn) * 2 ** (8 * index);
  }
  return result;
}

/** `(bytes & mask) == value`, piece by piece as the bytes stand in the frame. */
function askBytes(
  emitter: Emitter,
  { field, mask }: Operand,
  value: bigint,
  yes: string,
  no: string,
): void {
  const first = field.offset >> 3;
  const length = Math.ceil((field.offset + field.width) / 8) - first;
  const below = BigInt((first + length) * 8 - (field.offset + field.width));
  const wantMask = mask << below;
  const wantValue = value << below;
  if ((wantValue & ~wantMask) !== 0n) {
    emit(emitter, ja(no));
    return;
  }
  if (field.base === 'meta') throw new Error('bug: metadata has no bytes');
  const base = baseRegister(emitter, field.base);
  for (const { offset, size } of pieces(first, length, 4)) {
    const shift = BigInt(8 * (first + length - offset - size));
    const pieceMask = (wantMask >> shift) & ones(8 * size);
    if (pieceMask === 0n) continue;
    emit(emitter, ldx(size, r0, base, offset));
    const wanted = littleEndian((wantValue >> shift) & ones(8 * size), size);
    if (pieceMask !== ones(8 * size)) emit(emitter, and32(r0, littleEndian(pieceMask, size)));
    emit(emitter, jne32(r0, wanted, no));
  }
  emit(emitter, ja(yes));
}

/** `lo <= operand <= hi` for operands of at most 64 bits. */
function askRange(emitter: Emitter, question: Compare, yes: string, no: string): void {
  const { operand, lo, hi, view } = question;
  loadOperand(emitter, r1, operand, view);
  const top = ones(operand.field.width);
  if (operand.field.width <= 32) {
    if (lo === hi) emit(emitter, jne32(r1, Number(lo), no));
    else if (lo === 0n) emit(emitter, jgt32(r1, Number(hi), no));
    else if (hi >= top) emit(emitter, jlt32(r1, Number(lo), no));
    else emit(emitter, ...between32(Number(lo), Number(hi), no));
    emit(emitter, ja(yes));
    return;
  }
  if (lo > 0n) emit(emitter, ldImm64(r2, lo), sub(r1, r2));
  emit(emitter, ldImm64(r2, hi - lo), jgt(r1, r2, no), ja(yes));
}

/** r1 in lo..hi by one unsigned comparison. */
function between32(lo: number, hi: number, no: string): Insn[] {
  return [sub32(r1, lo), jgt32(r1, hi - lo, no)];
}

/** `lo <= field <= hi` for plain 128-bit fields: the upper halves decide unless they are equal. */
function askWide(emitter: Emitter, question: Compare, yes: string, no: string): void {
  const { operand, lo, hi, view } = question;
  if (operand.field.width !== 128 || !isWhole(operand)) {
    throw new Error(`bug: ${operand.field.name} cannot be compared by a program`);
  }
  loadField(emitter, r1, operand.field, view, 0, 64);
  loadField(emitter, r2, operand.field, view, 64, 64);
  const edge = (bound: bigint, name: string, less: string, more: string): void => {
    const done = newLabel(emitter, name);
    emit(emitter, ldImm64(r0, bound >> 64n));
    emit(emitter, jgt(r1, r0, more), jne(r1, r0, less));
    emit(emitter, ldImm64(r0, bound & ones(64)), jgt(r2, r0, more));
    emit(emitter, jne(r2, r0, less), ja(done), label(done));
  };
  // Below lo: no; above hi: no; equal to either: inside.
  const aboveLow = newLabel(emitter, 'above');
  if (lo > 0n) {
    edge(lo, 'equal', no, aboveLow);
    emit(emitter, ja(yes), label(aboveLow));
  }
  if (hi < ones(128)) edge(hi, 'equal', yes, no);
  emit(emitter, ja(yes));
}

/** Fields a program can load: headers anywhere, and the metadata it works out itself. */
export function isLoadable(field: Field): boolean {
  return field.base !== 'meta' || LOADABLE.has(fieldKey(field));
}

const LOADABLE: ReadonlySet<string> = new Set([
  META.protocol.name,
  META.nfproto.name,
  META.l4proto.name,
  META.length.name,
  FRAME.tags.name,
  FRAME.fragment.name,
  FRAME.checksum.name,
]);
