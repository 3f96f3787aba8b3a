import { bindBackend } from '../backends/backend.ts';
import { cbpfBackendFor } from '../backends/cbpf/backend.ts';
import type { CbpfArtifact, CbpfOptions } from '../backends/cbpf/compile.ts';
import type { Flattened } from '../ir/flatten.ts';
import type { RuleId } from '../ir/ruleset.ts';
import { specialise } from '../ir/specialise.ts';
import type { CbpfProfile } from '../profile/schema.ts';
import { type Result, succeed } from '../support/diagnostics.ts';
import { captureRule } from './capture.ts';
import { type Choice, fitTier } from './choose.ts';
import { flattenSituation, type Situation } from './place.ts';
import { NOTHING_SETTLED } from './settle.ts';
import { weighRules } from './weights.ts';

/** A ruleset as a classic BPF program. */
export interface PlacedCbpf {
  readonly profile: CbpfProfile;
  readonly flattened: Flattened;
  readonly artifact: CbpfArtifact;
  /** What was chosen where not all fitted, else null. */
  readonly choice: Choice | null;
}

/** How a ruleset becomes a program; `rule`: what this one matches is selected, null for what is dropped. */
export interface CbpfRequest extends Omit<CbpfOptions, 'mayMiscount'> {
  readonly rule: RuleId | null;
}

/**
 * Compiles a ruleset to classic BPF: everything that can be decided or, where that is too long, what is
 * worth most.
 */
export function placeCbpf(
  situation: Situation,
  profile: CbpfProfile,
  { rule, ...made }: CbpfRequest,
): Result<PlacedCbpf> {
  const { ruleset } = situation;
  const tier = bindBackend(cbpfBackendFor(made), profile);
  if (tier === null) throw new Error('bug: a cbpf profile that classic BPF does not serve');
  // Where Linux runs a program it has merged segments and taken the tag out, as for the hooks.
  const isLinux = made.dialect === 'linux';
  const facts = isLinux ? { ...situation.facts, rxVlanOff: true, groOff: true } : situation.facts;
  const { loopedCopies } = tier.receivePath;
  const flattened = flattenSituation({ ...situation, facts }, { loopedCopies });
  const classifier = rule === null ? flattened.classifier : captureRule(flattened.classifier, rule);
  const options = { mayMiscount: situation.concessions.includes('counters') };
  const fitted = fitTier(tier, {
    classifier,
    specialised: specialise(classifier, { ...tier.capabilities, ...options }),
    weights: weighRules(ruleset),
    settled: NOTHING_SETTLED,
    options,
  });
  if (!fitted.ok) return fitted;
  const { compiled, choice } = fitted.value;
  const placed = { profile, flattened: { ...flattened, classifier }, choice };
  return succeed({ ...placed, artifact: compiled.artifact }, fitted.diagnostics);
}
