import { setTimeout as sleep } from 'node:timers/promises';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { parseJson, readSysctls, warning } from './machine.ts';
import { BRIDGES_HAND_UP, handsUp, type Link, linksSchema } from './probe-links.ts';
import type { Transport } from './transport.ts';

/** A setting under net/ that counts the flows which connection tracking knows. */
export const FLOW_COUNT = 'netfilter/nf_conntrack_count';

/** How many flows connection tracking knows, begun or not; null where that cannot be read. */
export async function countFlows(transport: Transport): Promise<number | null> {
  return (await readSysctls(transport, [FLOW_COUNT]))?.[0] ?? null;
}

/** Packets between the ports of a bridge go through layer-3 chains and make flows known there. */
async function bridgesTrack(transport: Transport): Promise<boolean> {
  const show = ['ip', '-j', '-d', 'link', 'show', 'type', 'bridge'];
  const { code, stdout } = await transport.run(show);
  const bridges = linksSchema.safeParse(parseJson(stdout.trim() === '' ? '[]' : stdout)).data;
  if (code === 0 && bridges?.length === 0) return false;
  if (bridges === undefined || bridges.some(handsUp)) return true;
  const calls = await Promise.all(BRIDGES_HAND_UP.map((file) => readSysctls(transport, [file])));
  return calls.some((values) => values !== null && values[0] !== 0);
}

/**
 * Whether a look at everything together says so too: `bridges` are all there are, and `handUp` what
 * `BRIDGES_HAND_UP` says, null where there is no br_netfilter.
 */
export function knowsNoFlow(
  count: number | null,
  bridges: readonly Link[],
  handUp: readonly number[] | null,
): boolean {
  const track = bridges.some(handsUp) || (handUp?.some((value) => value !== 0) ?? false);
  return count === 0 && (bridges.length === 0 || !track);
}

/** Connection tracking knows no flow, so none from before the ruleset; see docs/stateful.md. */
export async function isFresh(transport: Transport): Promise<boolean> {
  return (await countFlows(transport)) === 0 && !(await bridgesTrack(transport));
}

const EMPTY_IT =
  'wait until none is left with --wait-fresh SECONDS, or empty the table with `conntrack -F`';

/** What speaks against a given `conntrack=fresh`; with `force` it is said and believed. */
export async function reviewFresh(transport: Transport, force: boolean): Promise<Result<null>> {
  const count = await countFlows(transport);
  const bridged = await bridgesTrack(transport);
  if (count === 0 && !bridged) return succeed(null);
  const message = bridged
    ? 'conntrack=fresh is given, but bridged packets make flows known (bridge-nf-call-iptables)'
    : count === null
      ? 'conntrack=fresh is given, but nf_conntrack_count cannot be read here'
      : `conntrack=fresh is given, but connection tracking knows ${count} flows`;
  const code = 'deploy/conntrack-not-fresh';
  if (force) return succeed(null, [warning(code, message)]);
  const help = bridged
    ? 'leave the fact out, or switch that off'
    : `${EMPTY_IT}; if all of them began under this ruleset, say so with --force`;
  return fail(errorAt(code, message, { help }));
}

/** Time as `waitFresh` needs it, in milliseconds. */
export interface Clock {
  readonly now: () => number;
  readonly sleep: (duration: number) => Promise<unknown>;
}

const POLL = 200; // milliseconds: a flow that has just ended stays for seconds anyway

/** Waits until connection tracking knows no flow; that is so from then on, whatever begins after. */
export async function waitFresh(
  transport: Transport,
  seconds: number,
  clock: Clock = { now: () => performance.now(), sleep },
): Promise<Result<null>> {
  const end = clock.now() + seconds * 1000;
  for (;;) {
    if (await isFresh(transport)) return succeed(null);
    const left = end - clock.now();
    if (left > 0) {
      await clock.sleep(Math.min(POLL, left));
      continue;
    }
    const count = await countFlows(transport);
    const known = count === null ? 'cannot be counted' : `are ${count}`;
    const message = `after ${seconds} s the flows that connection tracking knows ${known}`;
    const help =
      count === 0
        ? 'bridged packets make flows known: switch bridge-nf-call-iptables off'
        : 'wait longer, empty the table with `conntrack -F` meanwhile, or leave --wait-fresh out';
    return fail(errorAt('deploy/conntrack-not-fresh', message, { help }));
  }
}
