import { type Diagnostic, errorAt, type Result } from '../support/diagnostics.ts';

/** How a command went on one host. */
export type HostOutcome<T> =
  | {
      readonly state: 'done';
      readonly host: string;
      readonly report: T;
      readonly diagnostics: readonly Diagnostic[];
    }
  | {
      /** The host refused, or could not be reached; `untouched`: never asked, since others failed. */
      readonly state: 'failed' | 'untouched';
      readonly host: string;
      readonly report: null;
      readonly diagnostics: readonly Diagnostic[];
    };

/** In which order hosts are worked on. */
export interface FleetOptions {
  /** Hosts at the same time, at least 1. */
  readonly parallel: number;
  /** Hosts that go first, and alone; none of the others is touched unless all of them are well. */
  readonly canary: number;
  /** Do not begin with further hosts once one failed. */
  readonly stopOnFailure: boolean;
}

/** What is done on every host. */
export interface FleetWork<H, T> {
  readonly nameOf: (host: H) => string;
  readonly run: (host: H) => Promise<Result<T>>;
  /** Whether a canary that was worked on is still well, after some time. */
  readonly isWell: (host: H) => Promise<Result<unknown>>;
  /** Called as each host is done with, in that order. */
  readonly onOutcome: (outcome: HostOutcome<T>) => void;
}

function outcomeOf<T>(host: string, result: Result<T>): HostOutcome<T> {
  const { diagnostics } = result;
  return result.ok
    ? { state: 'done', host, report: result.value, diagnostics }
    : { state: 'failed', host, report: null, diagnostics };
}

function failure(error: unknown): Result<never> {
  const message = error instanceof Error ? error.message : String(error);
  return { ok: false, diagnostics: [errorAt('fleet/failed', message)] };
}

/** Works through hosts, so many at a time; false once one of them failed. */
async function runSome<H, T>(
  hosts: readonly H[],
  most: number,
  stopOnFailure: boolean,
  work: (host: H) => Promise<HostOutcome<T>>,
): Promise<{ readonly outcomes: readonly HostOutcome<T>[]; readonly left: readonly H[] }> {
  const waiting = [...hosts];
  const outcomes: HostOutcome<T>[] = [];
  let isStopped = false;
  const worker = async (): Promise<void> => {
    for (let host = waiting.shift(); host !== undefined; host = waiting.shift()) {
      const outcome = await work(host);
      outcomes.push(outcome);
      if (outcome.state === 'failed' && stopOnFailure) isStopped = true;
      if (isStopped) return;
    }
  };
  await Promise.all(Array.from({ length: Math.min(most, hosts.length) }, worker));
  return { outcomes, left: waiting };
}

/**
 * Does the same on many hosts: the canaries first, then the others, until one fails. A host that was
 * begun is always brought to its end; those that were not are left as they are.
 */
export async function runFleet<H, T>(
  hosts: readonly H[],
  { parallel, canary, stopOnFailure }: FleetOptions,
  { nameOf, run, isWell, onOutcome }: FleetWork<H, T>,
): Promise<readonly HostOutcome<T>[]> {
  const workOn =
    (isCanary: boolean) =>
    async (host: H): Promise<HostOutcome<T>> => {
      let result: Result<T>;
      try {
        result = await run(host);
        const well = result.ok && isCanary ? await isWell(host) : null;
        if (well?.ok === false) result = well;
      } catch (error) {
        result = failure(error);
      }
      const outcome = outcomeOf(nameOf(host), result);
      onOutcome(outcome);
      return outcome;
    };
  const first = await runSome(hosts.slice(0, canary), parallel, stopOnFailure, workOn(true));
  const isFine = first.outcomes.every(({ state }) => state === 'done');
  const others = hosts.slice(canary);
  const rest =
    isFine || !stopOnFailure
      ? await runSome(others, parallel, stopOnFailure, workOn(false))
      : { outcomes: [], left: others };
  const untouched = [...first.left, ...rest.left].map((host): HostOutcome<T> => {
    const outcome = {
      state: 'untouched',
      host: nameOf(host),
      report: null,
      diagnostics: [],
    } as const;
    onOutcome(outcome);
    return outcome;
  });
  return [...first.outcomes, ...rest.outcomes, ...untouched];
}
