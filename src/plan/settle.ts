import type { Classifier, Entry, ViewName } from '../ir/classifier.ts';
import type { ElementSet, Test } from '../ir/ruleset.ts';
import { dropsOf } from '../ir/slice.ts';
import type { Specialised } from '../ir/specialise.ts';
import { remember } from '../support/remember.ts';
import { placesOf } from './choose.ts';
import { spellTest } from './match.ts';
import type { PlacedTier, SeenTier } from './place.ts';

/** What earlier tiers of a row drop, as places of the walk; see `placesOf`. */
export interface Settled {
  /** All that a tier could drop there is dropped before: it leaves that out. */
  readonly surely: ReadonlySet<string>;
  /** At least some of it is: worth nothing where there is not room for all. */
  readonly partly: ReadonlySet<string>;
}

export const NOTHING_SETTLED: Settled = { surely: new Set(), partly: new Set() };

/** What a tier has of each entry of the whole walk; some are there twice, see `specialise`. */
const presentIn = remember(({ classifier, origins, tail }: Specialised): readonly Entry[][] => {
  const present: Entry[][] = [];
  for (const [at, entry] of classifier.entries.slice(0, tail).entries()) {
    const origin = origins[at] ?? -1;
    const known = present[origin];
    if (known === undefined) present[origin] = [entry];
    else known.push(entry);
  }
  return present;
});

const indexOfPlaces = remember(
  (classifier: Classifier): ReadonlyMap<string, number> =>
    new Map(placesOf(classifier).map((place, at) => [place, at])),
);

/** Where the entries of one walk are in another; -1 for those that it has not. */
function placesIn(from: Classifier, to: Classifier): readonly number[] {
  if (from === to) return [...from.entries.keys()];
  const indices = indexOfPlaces(to);
  return placesOf(from).map((place) => indices.get(place) ?? -1);
}

function handsOn(entries: readonly Entry[]): boolean {
  return entries.some(({ then }) => then.kind === 'unknown');
}

function haveSameElements(a: ElementSet, b: ElementSet): boolean {
  const [one, other] = [a.elements, b.elements];
  if (one === other) return true;
  const isSame = (those: readonly bigint[], these: readonly bigint[]): boolean =>
    those.length === these.length && those.every((value, at) => value === these[at]);
  return isSame(one.lo, other.lo) && isSame(one.hi, other.hi);
}

/** Whether tests of different walks, of one view, certainly hold for the same packets. */
function isSameTest(a: Test, b: Test, view: ViewName): boolean {
  if (a === b) return true;
  const sameSet =
    a.kind === 'lookup' && b.kind === 'lookup' && haveSameElements(a.set, b.set)
      ? { ...a, set: b.set }
      : a;
  const spelled = spellTest(sameSet, view);
  return spelled !== null && spelled === spellTest(b, view);
}

/** Whether `b` asks nothing that `a` does not; an entry that is there twice asks the same twice. */
function asksNoMore([b]: readonly Entry[], [a]: readonly Entry[]): boolean {
  if (a === undefined || b === undefined || a.view !== b.view) return false;
  return b.tests.every((test) => a.tests.some((other) => isSameTest(other, test, a.view)));
}

/**
 * Whether the later tier, too, would hand on every frame that the earlier one hands on, for certain.
 * Then the earlier one drops all that the later one could, wherever it drops at all.
 */
function seesAsMuch(earlier: SeenTier, later: SeenTier): boolean {
  const [own, theirs] = [presentIn(earlier.specialised), presentIn(later.specialised)];
  const inLater = placesIn(earlier.flattened.classifier, later.flattened.classifier);
  return inLater.every((to, at) => {
    const fate = earlier.specialised.fates[at]?.kind;
    if (fate !== 'kept' && fate !== later.specialised.fates[to]?.kind) return false;
    const [entries = [], others = []] = [own[at], theirs[to]];
    // It may hand all on there, with nothing to do behind it.
    if (entries.length === 0) return !handsOn(others);
    if (!handsOn(entries) || others.length === 0) return true;
    return handsOn(others) && asksNoMore(others, entries);
  });
}

function droppingPlaces({ flattened, specialised, choice }: PlacedTier): readonly string[] {
  const places = placesOf(flattened.classifier);
  const drops = [...(choice?.dropping ?? dropsOf(specialised))];
  return drops.flatMap((at) => places[specialised.origins[at] ?? -1] ?? []);
}

/** What is settled for a tier by those before it. */
export function settleFor(later: SeenTier, earlier: readonly PlacedTier[]): Settled {
  const surely = new Set<string>();
  const partly = new Set<string>();
  for (const tier of earlier) {
    const isSure = tier.tier.decidesAlike && seesAsMuch(tier, later);
    for (const place of droppingPlaces(tier)) (isSure ? surely : partly).add(place);
  }
  return { surely, partly };
}
