import type { Classifier } from '../../ir/classifier.ts';
import type { DecisionOptions } from '../../ir/decision.ts';
import type { XdpProfile } from '../../profile/schema.ts';
import { type Diagnostic, errorAt } from '../../support/diagnostics.ts';
import type { Structure } from '../backend.ts';
import type { Dialect } from './dialect.ts';

/**
 * Entries from which on trees are taken. Up to about a thousand rules code that is cut by values is as fast
 * or faster; at ten thousand it takes twice as long to build, and several times as long to load, for
 * nanoseconds that are about the same (`npm run bench -- xdp`, docs/structures.md).
 */
const TREE_ENTRIES = 1_500;
/** Rules that follow each other from which on they become a table then. */
const TREE_RULES = 150;

/** The same where trees are asked for: below it they would be larger than all that they take in. */
const FORCED_RULES = 4;

/** Whether tables can be data beside the program, which changes while it runs. */
function hasTables({ dataSections, scarceInsns }: Dialect): boolean {
  return dataSections && !scarceInsns;
}

/** How rules are asked, as an option of the decision. */
export function chooseStructure(
  { entries }: Classifier,
  dialect: Dialect,
  wanted: Structure,
): Pick<DecisionOptions, 'tableRules'> {
  if (wanted === 'code' || !hasTables(dialect)) return { tableRules: null };
  if (wanted === 'tree') return { tableRules: FORCED_RULES };
  return { tableRules: entries.length < TREE_ENTRIES ? null : TREE_RULES };
}

/** Why a device cannot have the structure that is asked for, or null. */
export function structureProblem(
  profile: XdpProfile,
  dialect: Dialect,
  wanted: Structure,
): Diagnostic | null {
  if (wanted !== 'tree' || hasTables(dialect)) return null;
  const message = `${profile.name} has no data sections for the trees of --structure tree`;
  return errorAt('ebpf/structure', message, { help: 'leave --structure out, or use code' });
}
