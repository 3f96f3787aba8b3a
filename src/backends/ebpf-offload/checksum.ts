import { type Emitter, END, emit, NH, newLabel } from './emitter.ts';
import {
  add,
  and32,
  ja,
  jgt,
  jle32,
  jne32,
  label,
  ldx,
  lsh32,
  mov,
  mov32,
  r0,
  r1,
  r2,
  r3,
  rsh,
} from './insn.ts';

/** IPv4 options, in 4-byte words: ihl is at most 15 of them, 5 are always there (RFC 791). */
const OPTION_WORDS = 10;

/** Asks whether the IPv4 header's one's complement sum is right (RFC 1071); 20 bytes are checked. */
export function askChecksum(emitter: Emitter, right: string, wrong: string): void {
  const fold = newLabel(emitter, 'sum');
  emit(emitter, mov(r1, 0));
  const addWord = (offset: number): void => emit(emitter, ldx(4, r0, NH, offset), add(r1, r0));
  for (let word = 0; word < 5; word += 1) addWord(word * 4);
  emit(emitter, ldx(1, r2, NH, 0), and32(r2, 0x0f), lsh32(r2, 2));
  for (let word = 5; word < 5 + OPTION_WORDS; word += 1) {
    const past = (word + 1) * 4;
    emit(emitter, jle32(r2, word * 4, fold));
    emit(emitter, mov(r3, NH), add(r3, past), jgt(r3, END, wrong));
    addWord(word * 4);
  }
  emit(emitter, label(fold));
  // At most 15 words of 32 bits: 36 bits fold to 32, those to 17, those to 16.
  emit(emitter, mov(r0, r1), rsh(r0, 32), mov32(r1, r1), add(r1, r0));
  for (let round = 0; round < 3; round += 1) {
    emit(emitter, mov(r0, r1), rsh(r0, 16), and32(r1, 0xffff), add(r1, r0));
  }
  emit(emitter, jne32(r1, 0xffff, wrong), ja(right));
}
