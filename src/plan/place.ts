import {
  capabilitiesOf,
  compileXdp,
  isXdpProfile,
  type XdpArtifact,
} from '../backends/ebpf-offload/compile.ts';
import type { HookName } from '../backends/ebpf-offload/hook.ts';
import type { Classifier } from '../ir/classifier.ts';
import { type Concession, concede } from '../ir/concede.ts';
import type { Facts } from '../ir/facts.ts';
import { type Flattened, flatten } from '../ir/flatten.ts';
import type { PortRange } from '../ir/flows.ts';
import type { Ruleset } from '../ir/ruleset.ts';
import { type Specialised, specialise } from '../ir/specialise.ts';
import type { Profile, XdpProfile } from '../profile/schema.ts';
import { type Diagnostic, errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';

/** What is to be placed: a ruleset as one machine runs it, and what its operator gives up. */
export interface Situation {
  readonly ruleset: Ruleset;
  readonly facts: Facts;
  readonly concessions: readonly Concession[];
  /** The value of the concession `reply-ports`; null where it is not granted. */
  readonly replyPorts: readonly PortRange[] | null;
  /** Where programs are attached, `xdp` when left out. */
  readonly hook?: HookName;
}

/** One tier with what it takes over. */
export interface PlacedTier {
  readonly profile: Profile;
  /** The ruleset as it looks under the facts that hold on this tier. */
  readonly flattened: Flattened;
  readonly artifact: XdpArtifact;
  /** Entries of the classifier beyond this one did not fit the tier; null when all did. */
  readonly fitted: number | null;
}

/** Facts that hold because of how the tier works. */
function factsOn(profile: XdpProfile, facts: Facts): Facts {
  return profile.receive.gro.value === 'switched-off' ? { ...facts, groOff: true } : facts;
}

const TOO_BIG = {
  code: 'plan/capacity',
  message: 'the tier has no room left for it',
};

/** The classifier with all entries from `count` on left to the kernel. */
function cutClassifier(classifier: Classifier, count: number): Classifier {
  const unknown = { kind: 'unknown', reason: TOO_BIG } as const;
  const entries = classifier.entries.map((entry, index) =>
    index < count
      ? entry
      : { ...entry, tests: [], counts: [], effects: [], then: unknown, otherwise: unknown },
  );
  return { ...classifier, entries };
}

function isTooBig(diagnostics: readonly Diagnostic[]): boolean {
  return diagnostics.every(({ code }) => code === 'ebpf/too-big');
}

/** The ruleset as it looks on a tier; what is given up no longer binds it. */
function flattenFor({ ruleset, facts, concessions, replyPorts }: Situation, profile: XdpProfile) {
  const granted = new Set(concessions);
  const flattened = flatten(ruleset, factsOn(profile, facts), {
    loopedCopies: profile.receive.loopedCopies.value,
    flows: { synIsNew: granted.has('syn-is-new'), replyPorts },
  });
  return { ...flattened, classifier: concede(flattened.classifier, granted) };
}

/** What a tier could decide if it had room for everything; null for a tier without a backend. */
export function specialiseFor(
  situation: Situation,
  profile: Profile,
): { readonly flattened: Flattened; readonly specialised: Specialised } | null {
  if (!isXdpProfile(profile)) return null;
  const flattened = flattenFor(situation, profile);
  const mayMiscount = situation.concessions.includes('counters');
  const tier = { ...capabilitiesOf(profile), mayMiscount };
  return { flattened, specialised: specialise(flattened.classifier, tier) };
}

/**
 * Places a ruleset on one tier: everything it can decide or, where that is too big for it, the
 * longest beginning of the path that fits (found by halving; what fits grows with the beginning).
 */
export function placeTier(situation: Situation, profile: Profile): Result<PlacedTier> {
  if (!isXdpProfile(profile)) {
    return fail(
      errorAt(
        'plan/tier-kind',
        `profile ${profile.name}: no backend for kind ${profile.kind} yet`,
        {
          help: 'use a profile of kind xdp-native, xdp-generic or xdp-offload',
        },
      ),
    );
  }
  const flattened = flattenFor(situation, profile);
  const { classifier } = flattened;
  const options = {
    mayMiscount: situation.concessions.includes('counters'),
    hook: situation.hook ?? 'xdp',
  };
  const whole = compileXdp(classifier, profile, options);
  const placed = { profile, flattened };
  if (whole.ok) {
    return succeed({ ...placed, artifact: whole.value, fitted: null }, whole.diagnostics);
  }
  if (!isTooBig(whole.diagnostics)) return whole;
  let fitted = 0;
  let tooMany = classifier.entries.length;
  let best = compileXdp(cutClassifier(classifier, 0), profile, options);
  while (tooMany - fitted > 1) {
    const middle = (fitted + tooMany) >> 1;
    const tried = compileXdp(cutClassifier(classifier, middle), profile, options);
    if (tried.ok) {
      fitted = middle;
      best = tried;
    } else tooMany = middle;
  }
  return best.ok ? succeed({ ...placed, artifact: best.value, fitted }, best.diagnostics) : best;
}

/** Places a ruleset on every tier, nearest to the wire first. */
export function placeRuleset(
  situation: Situation,
  profiles: readonly Profile[],
): Result<readonly PlacedTier[]> {
  const tiers: PlacedTier[] = [];
  const noticed: Diagnostic[] = [];
  for (const profile of profiles) {
    const placed = placeTier(situation, profile);
    if (!placed.ok) return placed;
    tiers.push(placed.value);
    noticed.push(...placed.diagnostics);
  }
  return succeed(tiers, noticed);
}
