import type { Classifier } from '../../ir/classifier.ts';
import type { Decision } from '../../ir/decision.ts';
import { testedFields } from '../../ir/operand.ts';
import { isBehindExtensions } from './ask.ts';
import { type Code, createCodeTable } from './code.ts';
import { combineLoads } from './combine-loads.ts';
import { lowerDecision } from './dispatch.ts';
import { keepValues } from './keep-values.ts';
import { LINK_HEADER, type Meaning } from './meaning.ts';
import { meetNeeds } from './meet-needs.ts';
import type { Returns } from './order.ts';
import { threadCode } from './thread-code.ts';

/** Single values asked in turn before they are halved; each halving costs one comparison. */
const SINGLES = 56;

/** What rules at ingress read, which decides what of a frame must be checked. */
function ingressOf({ entries }: Pick<Classifier, 'entries'>): Meaning['ingress'] {
  const fields = entries
    .filter(({ view }) => view === 'ingress')
    .flatMap(({ tests }) => tests.flatMap(testedFields));
  return {
    reads: fields.some(({ base }) => base !== 'meta') || fields.some(isBehindExtensions),
    transport: fields.some(isBehindExtensions),
  };
}

/** What a program for these entries takes for granted under some options. */
export function meaningOf(
  classifier: Pick<Classifier, 'entries'>,
  options: Pick<Meaning, 'dialect' | 'linkType' | 'frames'> & { readonly returns: Returns },
): Meaning {
  const { dialect, linkType, frames, returns } = options;
  return {
    ...{ dialect, linkType, frames, indexIp6: false, leaf: SINGLES },
    failedLoad: returns.continue === 0 ? 'continue' : 'reject',
    ingress: ingressOf(classifier),
  };
}

/** Bytes that a well-formed packet has at least: ARP's, or IP's padded to Ethernet's shortest frame. */
const SHORTEST_PACKET = 28;

/** A decision as code, led past all that need not be executed. */
export function shorten(decision: Decision, meaning: Meaning): Code {
  const isWhole = meaning.frames === 'well-formed';
  const shortest = LINK_HEADER[meaning.linkType] + (isWhole ? SHORTEST_PACKET : 0);
  const code = lowerDecision(createCodeTable(), meaning, decision);
  const met = threadCode(meetNeeds(threadCode(code, shortest)), shortest);
  const combined = combineLoads(met, meaning, shortest);
  const threaded = combined === met ? met : threadCode(combined, shortest);
  return keepValues(threaded, meaning, shortest);
}
