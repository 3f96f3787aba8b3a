import type { AttachHook, Structure, Tier } from '../backends/backend.ts';
import type { XdpArtifact } from '../backends/ebpf-offload/compile.ts';
import { type Concession, concede } from '../ir/concede.ts';
import type { Facts } from '../ir/facts.ts';
import { type Flattened, type FlattenOptions, flatten } from '../ir/flatten.ts';
import type { PortRange } from '../ir/flows.ts';
import type { Ruleset } from '../ir/ruleset.ts';
import { type Specialised, specialise } from '../ir/specialise.ts';
import type { Profile } from '../profile/schema.ts';
import { type Diagnostic, type Result, succeed } from '../support/diagnostics.ts';
import { openTier, type TierArtifact } from './backends.ts';
import { type Fitted, fitTier } from './choose.ts';
import { NOTHING_SETTLED, type Settled, settleFor } from './settle.ts';
import { type Weights, weighRules } from './weights.ts';

/** What is to be placed: a ruleset as one machine runs it, and what its operator gives up. */
export interface Situation {
  readonly ruleset: Ruleset;
  readonly facts: Facts;
  readonly concessions: readonly Concession[];
  /** The value of the concession `reply-ports`; null where it is not granted. */
  readonly replyPorts: readonly PortRange[] | null;
  /** Where programs are attached, `xdp` when left out. */
  readonly hook?: AttachHook;
  /** How tiers ask many rules, `auto` when left out. */
  readonly structure?: Structure;
  /** What runs on the only tier already; see `TierOptions`. */
  readonly base?: object;
}

/** One tier with what it could decide of a ruleset, its size left aside. */
export interface SeenTier {
  readonly profile: Profile;
  readonly tier: Tier<TierArtifact>;
  /** The ruleset as it looks under the facts that hold on this tier. */
  readonly flattened: Flattened;
  readonly specialised: Specialised;
}

/** One tier with what it takes over. */
export interface PlacedTier extends SeenTier {
  readonly artifact: TierArtifact;
  readonly compiled: Fitted<TierArtifact>['compiled'];
  /** What was chosen where not all fitted, else null. */
  readonly choice: Fitted<TierArtifact>['choice'];
}

/** The ruleset as it looks where frames come in that way; what is given up no longer binds it. */
export function flattenSituation(
  { ruleset, facts, concessions, replyPorts }: Situation,
  received: Omit<FlattenOptions, 'flows'>,
): Flattened {
  const granted = new Set(concessions);
  const flows = { synIsNew: granted.has('syn-is-new'), replyPorts };
  const flattened = flatten(ruleset, facts, { ...received, flows });
  return { ...flattened, classifier: concede(flattened.classifier, granted, ruleset) };
}

/** Looks at a ruleset as tiers see it; what several tiers see alike is worked out once. */
export type Viewer = (tier: Tier<TierArtifact>) => SeenTier;

/** Prepares to look at one situation through any number of tiers. */
export function createViewer(situation: Situation): Viewer {
  const { facts, concessions } = situation;
  const known = new Map<string, Flattened>();
  const flattenFor = ({ receivePath }: Tier<TierArtifact>): Flattened => {
    const { loopedCopies, switchesGroOff } = receivePath;
    const key = `${loopedCopies} ${facts.groOff || switchesGroOff}`;
    const before = known.get(key);
    if (before !== undefined) return before;
    const onTier = switchesGroOff ? { ...facts, groOff: true } : facts;
    const flattened = flattenSituation({ ...situation, facts: onTier }, { loopedCopies });
    known.set(key, flattened);
    return flattened;
  };
  return (tier) => {
    const flattened = flattenFor(tier);
    const capabilities = { ...tier.capabilities, mayMiscount: concessions.includes('counters') };
    const specialised = specialise(flattened.classifier, capabilities);
    return { profile: tier.profile, tier, flattened, specialised };
  };
}

function placeSeen(
  seen: SeenTier,
  situation: Situation,
  weights: Weights,
  settled: Settled,
): Result<PlacedTier> {
  const { flattened, specialised, tier } = seen;
  const { classifier } = flattened;
  const options = {
    mayMiscount: situation.concessions.includes('counters'),
    hook: situation.hook ?? 'xdp',
    structure: situation.structure ?? 'auto',
    ...(situation.base === undefined ? {} : { base: situation.base }),
  };
  const fitted = fitTier(tier, { classifier, specialised, weights, settled, options });
  if (!fitted.ok) return fitted;
  const { compiled, choice } = fitted.value;
  return { ...fitted, value: { ...seen, artifact: compiled.artifact, compiled, choice } };
}

/** What a tier could decide if it had room for everything; null for a tier without a backend. */
export function specialiseFor(situation: Situation, profile: Profile): SeenTier | null {
  const tier = openTier(profile);
  return tier.ok ? createViewer(situation)(tier.value) : null;
}

/**
 * Places a ruleset on one tier: everything it can decide or, where that is too big for it, what is
 * worth most.
 */
export function placeTier(situation: Situation, profile: Profile): Result<PlacedTier> {
  const placed = placeRuleset(situation, [profile]);
  if (!placed.ok) return placed;
  const [only] = placed.value;
  if (only === undefined) throw new Error('bug: a profile without a tier');
  return succeed(only, placed.diagnostics);
}

/** `placeTier` on a tier of an XDP kind, for what loads the object. */
export function placeXdp(
  situation: Situation,
  profile: Profile,
): Result<PlacedTier & { readonly artifact: XdpArtifact }> {
  const placed = placeTier(situation, profile);
  if (!placed.ok) return placed;
  const { artifact } = placed.value;
  if (!('elf' in artifact)) throw new Error('bug: this tier runs no XDP programs');
  return { ...placed, value: { ...placed.value, artifact } };
}

/**
 * Places a ruleset on every tier, nearest to the wire first. What one drops for certain does not
 * come to those behind it, so they leave it out.
 */
export function placeRuleset(
  situation: Situation,
  profiles: readonly Profile[],
  view: Viewer = createViewer(situation),
): Result<readonly PlacedTier[]> {
  const tiers: PlacedTier[] = [];
  const noticed: Diagnostic[] = [];
  const weights = weighRules(situation.ruleset);
  for (const profile of profiles) {
    const tier = openTier(profile);
    if (!tier.ok) return tier;
    const seen = view(tier.value);
    const settled = tiers.length === 0 ? NOTHING_SETTLED : settleFor(seen, tiers);
    const placed = placeSeen(seen, situation, weights, settled);
    if (!placed.ok) return placed;
    tiers.push(placed.value);
    noticed.push(...placed.diagnostics);
  }
  return succeed(tiers, noticed);
}
