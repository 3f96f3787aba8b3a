import { CONCESSIONS, type Concession } from '../ir/concede.ts';
import type { PortRange } from '../ir/flows.ts';
import { refuseConcession } from './check-concessions.ts';
import { createViewer, type PlacedTier, type SeenTier, type Situation } from './place.ts';
import type { ConcessionOffer, JointOffer } from './report.ts';
import { decidedRules } from './walk.ts';

/** What Linux opens connections from unless told otherwise: net.ipv4.ip_local_port_range. */
const USUAL_PORTS: readonly PortRange[] = [{ from: 32_768, to: 60_999 }];

function usualValue(name: string): string | undefined {
  if (name !== 'reply-ports') return undefined;
  return USUAL_PORTS.map(({ from, to }) => `${from}-${to}`).join();
}

/** A concession that could be granted. */
interface Offer {
  readonly name: Concession;
  readonly terms: Pick<ConcessionOffer, 'value' | 'needs'>;
  readonly grant: (situation: Situation) => Situation;
}

function offerOf(name: Concession, situation: Situation): Offer | null {
  if (situation.concessions.includes(name)) return null;
  const plainGrant = (to: Situation): Situation => ({
    ...to,
    concessions: [...to.concessions, name],
  });
  if (name !== 'reply-ports') {
    const isRefused = refuseConcession(name, situation) !== null;
    return isRefused ? null : { name, terms: {}, grant: plainGrant };
  }
  const grant = (to: Situation): Situation => ({
    ...plainGrant(to),
    facts: { ...to.facts, conntrackFresh: true },
    replyPorts: USUAL_PORTS,
  });
  if (refuseConcession(name, grant(situation)) !== null) return null;
  const value = usualValue(name);
  const needs = situation.facts.conntrackFresh ? {} : { needs: ['conntrack=fresh'] };
  return { name, terms: { ...(value === undefined ? {} : { value }), ...needs }, grant };
}

/** Counts how many rules tiers would decide beside those of the plan, were some offers granted. */
function createCounter(situation: Situation, placed: readonly PlacedTier[]) {
  const before = new Set(placed.flatMap((tier) => [...decidedRules(tier)]));
  // A tier that had to choose has no room for more.
  const roomy = placed.filter(({ choice }) => choice === null || choice.leftOver.size === 0);
  return (offers: readonly Offer[]): number => {
    const granted = offers.reduce((now, { grant }) => grant(now), situation);
    const view = createViewer(granted);
    const moved = new Set<string>();
    for (const { tier } of roomy) {
      const seen: SeenTier = view(tier);
      for (const key of decidedRules(seen)) if (!before.has(key)) moved.add(key);
    }
    return moved.size;
  };
}

/** Leaves out, one after the other from the last, what all the others move without it. */
function leaveOutNeedless(
  offers: readonly Offer[],
  most: number,
  count: (offers: readonly Offer[]) => number,
): readonly Offer[] {
  return offers.reduceRight<readonly Offer[]>((left, offer) => {
    const without = left.filter((other) => other !== offer);
    return count(without) === most ? without : left;
  }, offers);
}

/**
 * What granting each concession alone would move, and what all of them would; those that cannot help
 * here, or are unsafe, are not offered, those that help only with others are. Nothing is compiled: moved is what a tier could decide.
 */
export function offerConcessions(
  situation: Situation,
  placed: readonly PlacedTier[],
): { readonly offers: readonly ConcessionOffer[]; readonly together: JointOffer | null } {
  const names = Object.keys(CONCESSIONS) as Concession[]; // the keys of a const object
  const possible = names.flatMap((name) => offerOf(name, situation) ?? []);
  const count = createCounter(situation, placed);
  const alone = possible.map((offer) => ({ offer, unlocks: count([offer]) }));
  const unlocks = possible.length < 2 ? 0 : count(possible);
  const most = Math.max(0, ...alone.map((offer) => offer.unlocks));
  const needed = unlocks > most ? leaveOutNeedless(possible, unlocks, count) : [];
  const together = unlocks > most ? { names: needed.map(({ name }) => name), unlocks } : null;
  const offers = alone
    .filter((one) => one.unlocks > 0 || needed.includes(one.offer))
    .map((one) => ({ name: one.offer.name, unlocks: one.unlocks, ...one.offer.terms }));
  return { offers, together };
}
