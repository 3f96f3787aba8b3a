import { sortedElements } from '../../ir/region.ts';
import type { ElementSet, Operand } from '../../ir/ruleset.ts';
import { ones } from '../../support/bits.ts';
import { type Emitter, emit } from './emitter.ts';
import { ja } from './insn.ts';
import { askBoxes, askInCode } from './lookup-code.ts';
import { askInData } from './lookup-data.ts';
import type { Lookup } from './lookup-key.ts';
import { isExact } from './set-key.ts';

/** Elements up to which a set is cheaper as code than as data. */
const CODE_ELEMENTS = 16;

/** Why a program cannot do this look-up, or null. */
export function lookupProblem(key: readonly Operand[], set: ElementSet): string | null {
  const { parts } = set.elements;
  if (parts.some((width) => width > 128)) return 'a part of the key is wider than 128 bits';
  const wide = key.find(
    ({ field, mask, xor, shift }) =>
      field.width > 64 && (xor !== 0n || shift !== 0 || mask !== ones(field.width)),
  );
  if (wide !== undefined) return `${wide.field.name} is masked inside a key`;
  return null;
}

/** Emits a look-up; control leaves to `yes` or `no`. r0-r5 are lost. */
export function askLookup(emitter: Emitter, question: Lookup, yes: string, no: string): void {
  const { elements } = question.set;
  if (elements.lo.length === 0) {
    emit(emitter, ja(no));
    return;
  }
  const sorted = sortedElements(elements);
  if (sorted === null && !isExact(elements)) askBoxes(emitter, question, yes, no);
  else if (!emitter.dataSections || elements.lo.length <= CODE_ELEMENTS) {
    askInCode(emitter, question, yes, no);
  } else askInData(emitter, question, yes, no);
}
