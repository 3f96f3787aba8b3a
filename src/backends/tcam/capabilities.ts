import type { Classifier, Entry } from '../../ir/classifier.ts';
import { type Field, fieldKey, META } from '../../ir/fields.ts';
import { testedFields } from '../../ir/operand.ts';
import { presenceOf, type Region, truthOf } from '../../ir/region.ts';
import type { Test } from '../../ir/ruleset.ts';
import { type Capabilities, unknownTest } from '../../ir/specialise.ts';
import type { TcamProfile } from '../../profile/schema.ts';
import { ones } from '../../support/bits.ts';
import type { Reason } from '../../support/diagnostics.ts';
import { remember } from '../../support/remember.ts';
import { locate } from './layout.ts';
import { canonicalField, planProfileTables, type TablePlan } from './plan-tables.ts';
import { reduceKey } from './reduce-key.ts';
import { rewriteFrameTests } from './rewrite-frame.ts';

const NOT_COUNTED: Reason = {
  code: 'tcam/counters',
  message: 'one counter for the many rows of a rule is not what hardware has (concede counters)',
};

function reason(code: string, message: string): Reason {
  return { code, message };
}

/** A field as tests of this table name it. */
function canonical(test: Test, plan: TablePlan): Test {
  if (test.kind === 'compare') {
    const field = canonicalField(test.operand.field, plan.version);
    return field === test.operand.field ? test : { ...test, operand: { ...test.operand, field } };
  }
  if (test.kind === 'lookup') {
    const key = test.key.map((operand) => {
      const field = canonicalField(operand.field, plan.version);
      return field === operand.field ? operand : { ...operand, field };
    });
    return key.every((operand, index) => operand === test.key[index]) ? test : { ...test, key };
  }
  return test;
}

/** Whether an entry certainly does not match, and leaves no state behind by being looked at. */
function isOff({ tests, view }: Entry, region: Region): boolean {
  if (tests.some((test) => test.kind === 'unknown')) return false;
  return tests.some((test) => isOfAbsent(test, view, region));
}

/** Whether a test looks at something that no frame of the region has, and so does not hold. */
function isOfAbsent(test: Test, view: Entry['view'], region: Region): boolean {
  if (test.kind === 'unknown') return false;
  return testedFields(test).some((field) => presenceOf(field, view, region) === 'absent');
}

/** An entry with its tests as the key of a table names them; without any where its frames never match. */
function prepareEntry(original: Entry, plan: TablePlan): Entry {
  const entry = rewriteFrameTests(original, plan.version);
  if (isOff(entry, plan.region)) {
    return { ...entry, tests: [], counts: [], effects: [], then: entry.otherwise };
  }
  const tests = entry.tests.map((test) => reduceKey(canonical(test, plan), plan.region));
  return { ...entry, tests };
}

/** A walk for the frames of one table. */
export function prepare({ entries, ...rest }: Classifier, plan: TablePlan): Classifier {
  return { ...rest, entries: entries.map((entry) => prepareEntry(entry, plan)) };
}

/** Whether a table without a given key could have the field. */
function isKeyable(field: Field, { version, served }: TablePlan): boolean {
  if (field.base === 'meta') {
    const key = fieldKey(field);
    return key === META.protocol.name || key === META.l4proto.name;
  }
  if (field.base === 'll') return true;
  if (version === 'other') return field.base === 'nh' && served.fixed.length > 0;
  return true;
}

/** What one table's key can evaluate. */
export function capabilitiesOf(
  plan: TablePlan,
  options: { readonly final: boolean; readonly mayMiscount: boolean },
): Capabilities {
  const { columns } = plan;
  const fieldReason = (field: Field): Reason | null => {
    const known = plan.region.get(fieldKey(field));
    if (known !== undefined && known.lo === known.hi) return null;
    const isThere =
      columns === null
        ? isKeyable(field, plan)
        : locate({ columns }, field, ones(field.width)) !== null;
    return isThere
      ? null
      : reason('tcam/field', `the key of ${plan.name} does not have ${field.name}`);
  };
  return {
    field: (field) => (columns === null ? fieldReason(field) : null),
    test: (test) => {
      if (columns === null || test.kind === 'unknown') return null;
      // Of a field that the key has a part of, tests on just that part are fine.
      const operands = test.kind === 'compare' ? [test.operand] : test.key;
      for (const { field, mask } of operands) {
        const whole = fieldReason(field);
        if (
          whole !== null &&
          (mask === ones(field.width) || locate({ columns }, field, mask) === null)
        ) {
          return whole;
        }
      }
      return null;
    },
    exact: options.final,
    counters: options.final ? null : NOT_COUNTED,
    mayMiscount: options.mayMiscount || options.final,
  };
}

/** Whether frames of the region may match an entry as far as its tests can tell. */
export function mayMatch({ tests, view }: Entry, region: Region): boolean {
  return tests.every((test) => {
    if (test.kind === 'unknown') return true;
    return !isOfAbsent(test, view, region) && truthOf(test, region) !== 'false';
  });
}

/** The tests of an entry as the key of a table names them; null when none of its frames match. */
export function testsIn(entry: Entry, plan: TablePlan): readonly Test[] | null {
  const own = prepareEntry(entry, plan);
  const isPrepared = own.tests.length === entry.tests.length;
  return isPrepared && mayMatch(own, plan.region) ? own.tests : null;
}

/** What some table of a device can evaluate: what an entry asks of a frame must be in one key. */
export function deviceCapabilities(profile: TcamProfile): Capabilities {
  const options = { final: false, mayMiscount: false };
  const tables = planProfileTables(profile).map((plan) => ({
    plan,
    able: capabilitiesOf(plan, options),
  }));
  const together = (entry: Entry): Reason | null => {
    let missing: Reason | null = null;
    for (const { plan, able } of tables) {
      const tests = testsIn(entry, plan);
      if (tests === null) continue;
      const lack = tests.reduce<Reason | null>(
        (found, test) => found ?? (test.kind === 'unknown' ? null : unknownTest(test, able)),
        null,
      );
      if (lack === null) return null;
      missing ??= lack;
    }
    return missing ?? reason('tcam/frames', `no key of ${profile.name} is for such frames`);
  };
  return {
    field: () => null,
    test: () => null,
    together: remember(together),
    counters: NOT_COUNTED,
    mayMiscount: false,
  };
}
