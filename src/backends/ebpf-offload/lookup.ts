import { sortedElements } from '../../ir/region.ts';
import type { ElementSet, Operand } from '../../ir/ruleset.ts';
import { ones } from '../../support/bits.ts';
import { type Emitter, emit } from './emitter.ts';
import { ja } from './insn.ts';
import { askBoxes, askInCode } from './lookup-code.ts';
import { askInData } from './lookup-data.ts';
import type { Lookup } from './lookup-key.ts';
import { askInMap } from './lookup-map.ts';
import { isExact } from './set-key.ts';
import { questionCost, setMapOf } from './set-maps.ts';

/** Elements up to which a set is cheaper as code than as data. */
const CODE_ELEMENTS = 16;
/** Elements up to which no hash map is cheaper than code, and beyond which code never is. */
const SMALL_SET = 2;
const MOST_CODE = 400;

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
  const askCode = (): void => {
    const isBoxes = sortedElements(elements) === null && !isExact(elements);
    (isBoxes ? askBoxes : askInCode)(emitter, question, yes, no);
  };
  const size = elements.lo.length;
  if (size <= (emitter.dialect.dataSections ? CODE_ELEMENTS : SMALL_SET)) askCode();
  else if (emitter.dialect.dataSections) {
    if (sortedElements(elements) === null && !isExact(elements)) askCode();
    else askInData(emitter, question, yes, no);
  } else askCheapest(emitter, question, askCode, yes, no);
}

/** As code or in a hash map, whichever is fewer NFP instructions. */
function askCheapest(
  emitter: Emitter,
  question: Lookup,
  askCode: () => void,
  yes: string,
  no: string,
): void {
  const map = setMapOf(emitter, question);
  if (map === null) {
    askCode();
    return;
  }
  const from = emitter.insns.length;
  askInMap(emitter, question, map, yes, no);
  if (question.set.elements.lo.length > MOST_CODE) {
    emitter.maps.add(map);
    return;
  }
  const inMap = emitter.insns.splice(from);
  askCode();
  if (questionCost(emitter, emitter.insns.slice(from)) <= questionCost(emitter, inMap)) return;
  emitter.insns.length = from;
  emit(emitter, ...inMap);
  emitter.maps.add(map);
}
