import type { ConcessionOffer, PlanReport } from './report.ts';

function optionOf({ name, value }: ConcessionOffer): string {
  return `--concede ${name}${value === undefined ? '' : `=${value}`}`;
}

/** What granting a concession does, in words: how it is granted, and what it moves. */
export function describeOffer(offer: ConcessionOffer): readonly [option: string, effect: string] {
  const { unlocks, value, needs = [] } = offer;
  const about = value === undefined || unlocks === 0 ? '' : 'about ';
  const count = unlocks === 0 ? 'no rule' : `${about}${unlocks} rule${unlocks === 1 ? '' : 's'}`;
  const condition = needs.map((fact) => `; needs --fact ${fact}`).join('');
  return [optionOf(offer), `moves ${count}${unlocks === 0 ? ' alone' : ''}${condition}`];
}

/** What several concessions do at once, as a sentence; null where there is nothing to say. */
export function describeTogether({
  concessions,
  together,
}: Pick<PlanReport, 'concessions' | 'together'>): string | null {
  if (together === null) return null;
  const options = concessions.filter(({ name }) => together.names.includes(name)).map(optionOf);
  return `${options.join(' ')} together move ${together.unlocks} rules`;
}
