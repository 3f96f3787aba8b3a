import type { Field } from '../../ir/fields.ts';
import type { Test } from '../../ir/ruleset.ts';
import type { Capabilities } from '../../ir/specialise.ts';
import { ones } from '../../support/bits.ts';
import type { Reason } from '../../support/diagnostics.ts';
import { lookupProblem } from './ask-lookup.ts';
import { fieldProblem } from './field-load.ts';
import type { Meaning } from './meaning.ts';

function isPrefixMask(mask: bigint, width: number): boolean {
  const inverse = mask ^ ones(width);
  return (inverse & (inverse + 1n)) === 0n;
}

/** Fields wider than a register are compared word by word. */
function compareProblem({ operand, lo, hi }: Extract<Test, { kind: 'compare' }>): string | null {
  const { field, mask, xor, shift } = operand;
  if (field.width <= 32) return null;
  if (shift !== 0) return `${field.name} is shifted`;
  if (lo === hi) return null;
  return xor === 0n && isPrefixMask(mask, field.width) && mask === ones(field.width)
    ? null
    : `${field.name} is compared masked with a range`;
}

function reason(code: string, message: string | null): Reason | null {
  return message === null ? null : { code, message };
}

/** What classic BPF programs can evaluate; they count nothing. */
export function capabilitiesOf(
  meaning: Pick<Meaning, 'dialect' | 'linkType'>,
  mayMiscount: boolean,
): Capabilities {
  return {
    field: (field: Field) => reason('cbpf/field', fieldProblem(meaning, field)),
    test: (test: Test) => {
      if (test.kind === 'unknown') return test.reason;
      const problem = test.kind === 'lookup' ? lookupProblem(test) : compareProblem(test);
      return reason('cbpf/operand', problem);
    },
    counters: { code: 'cbpf/counters', message: 'classic BPF programs count nothing' },
    mayMiscount,
  };
}
