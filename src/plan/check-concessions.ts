import type { Concession } from '../ir/concede.ts';
import { fairLimits, hasLimit } from '../ir/fair-limits.ts';
import { canTrace } from '../ir/flows.ts';
import { familyStates } from '../ir/path.ts';
import type { Ruleset, Step } from '../ir/ruleset.ts';
import { type Diagnostic, errorAt } from '../support/diagnostics.ts';
import type { Situation } from './place.ts';

/** Why granting a concession is refused: it would change nothing, or not what it says. */
interface Refusal {
  readonly code: 'concession/no-help' | 'concession/unsafe' | 'concession/fact';
  readonly message: string;
  readonly help: string;
}

function hasStep(ruleset: Ruleset, wanted: (step: Step) => boolean): boolean {
  return ruleset.tables.some(({ chains }) =>
    chains.some(({ rules }) => rules.some(({ steps }) => steps.some(wanted))),
  );
}

function hasEffect(ruleset: Ruleset, name: RegExp): boolean {
  return hasStep(ruleset, (step) => step.kind === 'effect' && name.test(step.name));
}

function noHelp(message: string): Refusal {
  return { code: 'concession/no-help', message, help: 'leave it out: it would change nothing' };
}

function unsafe(message: string, help: string): Refusal {
  return { code: 'concession/unsafe', message, help };
}

/** Both concessions about flows rest on what connection tracking certainly does not know. */
function refuseFlows({ ruleset }: Situation): Refusal | null {
  const states = Object.values(familyStates(ruleset));
  if (!states.some(({ tracks }) => tracks)) return noHelp('no rule asks for the state of a flow');
  if (states.some(({ nat }) => nat)) {
    const message = 'the ruleset translates addresses, so flows are not what their packets say';
    return unsafe(message, 'drop what is not wanted at netdev ingress, before connection tracking');
  }
  if (hasEffect(ruleset, /^ct (helper|expectation)/)) {
    const message = 'a connection tracking helper makes the first packets of flows `related`';
    return unsafe(message, 'take the helper out, or the concession');
  }
  if (!canTrace(ruleset)) {
    const message = 'a rule rewrites, copies or proxies packets, so flows may begin in other ways';
    return unsafe(message, 'take that rule out, or the concession');
  }
  return null;
}

function refuseReplyPorts(situation: Situation): Refusal | null {
  const { conntrackFresh, localAddresses } = situation.facts;
  const refused = refuseFlows(situation);
  if (refused !== null) return refused;
  const missing = [
    ...(conntrackFresh ? [] : ['conntrack=fresh']),
    ...(localAddresses === null || localAddresses.length === 0 ? ['local-address=...'] : []),
  ];
  if (missing.length === 0) return null;
  const message = 'only packets to this machine, of flows that began under this ruleset, are sure';
  const help = `give ${missing.map((fact) => `--fact ${fact}`).join(' ')} where that is true`;
  return { code: 'concession/fact', message, help };
}

function refuseLimit({ ruleset }: Situation): Refusal | null {
  if (fairLimits(ruleset).size > 0) return null;
  if (!hasLimit(ruleset)) return noHelp('no rule has a limit of its own');
  const message = 'the limits of this ruleset drop what is within them, or count bytes or marks';
  return unsafe(message, 'say `limit rate over ... drop`, or `limit rate ... accept`');
}

const CHECKS: Readonly<Record<Concession, (situation: Situation) => Refusal | null>> = {
  log: ({ ruleset }) => (hasEffect(ruleset, /^log$/) ? null : noHelp('no rule logs')),
  'reject-as-drop': ({ ruleset }) =>
    hasEffect(ruleset, /^reject$/) ? null : noHelp('no rule rejects'),
  counters: ({ ruleset }) =>
    hasStep(ruleset, ({ kind }) => kind === 'count') ? null : noHelp('no rule counts'),
  'limit-as-accept': refuseLimit,
  'syn-is-new': refuseFlows,
  'reply-ports': refuseReplyPorts,
};

/** Why a concession cannot be granted here; null when it can. */
export function refuseConcession(name: Concession, situation: Situation): Diagnostic | null {
  const refusal = CHECKS[name](situation);
  if (refusal === null) return null;
  const { code, message, help } = refusal;
  return errorAt(code, `--concede ${name}: ${message}`, { help });
}

/** The refusals of all concessions that the situation grants. */
export function refuseConcessions(situation: Situation): readonly Diagnostic[] {
  return situation.concessions.flatMap((name) => refuseConcession(name, situation) ?? []);
}
