import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type HostOutcome, runFleet } from '../deploy/fleet.ts';
import type { InventoryHost } from '../deploy/inventory.ts';
import type { SshTarget } from '../deploy/ssh/target.ts';
import { formatDiagnostic, type Result, succeed } from '../support/diagnostics.ts';
import { EXIT, unwrapResult } from './exit.ts';
import { addSshOptions, type Machine, openMachine, parseHost, refuseUsage } from './machine.ts';
import { reportDiagnostics } from './output.ts';
import { readTextFile } from './read-file.ts';

/** Options of commands that work on machines, as commander hands them over. */
export interface FleetCliOptions {
  readonly host: readonly InventoryHost[];
  readonly inventory?: string;
  readonly parallel: number;
  readonly acceptNew?: boolean;
  readonly json?: boolean;
  /** Where a failure on one host stops the others. */
  readonly canary?: number;
  readonly canaryWait?: number;
}

/** What a command does on one machine, and how it tells of it. */
export interface MachineWork<T> {
  readonly run: (machine: Machine) => Promise<Result<T>>;
  /** For a terminal; ends with a newline. */
  readonly render: (report: T) => string;
  /** A machine that was worked on is still well. */
  readonly isWell?: (machine: Machine) => Promise<Result<unknown>>;
}

function collectHost(text: string, before: readonly InventoryHost[]): readonly InventoryHost[] {
  return [...before, { name: text, target: parseHost(text) }];
}

const MOST_PARALLEL = 100;

function parseCount(most: number): (text: string) => number {
  return (text) => {
    const count = Number(text);
    if (/^\d+$/.test(text) && count <= most) return count;
    throw new InvalidArgumentError(`A whole number, ${most} at most.`);
  };
}

function parseParallel(text: string): number {
  const count = parseCount(MOST_PARALLEL)(text);
  if (count > 0) return count;
  throw new InvalidArgumentError('At least 1.');
}

/** Adds `--host`, `--inventory` and what goes with them; `careful`: a few hosts may go first, and a failure stops. */
export function addFleetOptions(command: Command, careful: boolean): Command {
  addSshOptions(command)
    .addOption(
      new Option('--host <USER@HOST>', 'there instead of here, by SSH; repeatable')
        .argParser(collectHost)
        .default([], 'this machine'),
    )
    .option('--inventory <FILE>', 'hosts: one a line, or an inventory of Ansible (INI, YAML)')
    .addOption(
      new Option('--parallel <N>', 'hosts at the same time').argParser(parseParallel).default(10),
    );
  if (!careful) return command;
  return command
    .addOption(
      new Option('--canary <N>', 'so many hosts first; the others only when these are well')
        .argParser(parseCount(10_000))
        .default(0),
    )
    .addOption(
      new Option('--canary-wait <SECONDS>', 'how long a canary has to stay well')
        .argParser(parseCount(86_400))
        .default(10),
    );
}

async function readInventory(file: string): Promise<Result<readonly InventoryHost[]>> {
  const text = await readTextFile(file, 'inventory/unreadable', 'the inventory');
  if (!text.ok) return text;
  // Most runs need no inventory, and reading YAML is a library of its own.
  const { parseInventory } = await import('../deploy/inventory.ts');
  return parseInventory(text.value, file);
}

function keyOf({ user, host, port }: SshTarget): string {
  return JSON.stringify([user, host, port]);
}

/** The hosts that are meant, each once; none: this machine. */
async function chooseHosts(options: FleetCliOptions): Promise<Result<readonly InventoryHost[]>> {
  const listed =
    options.inventory === undefined ? succeed([]) : await readInventory(options.inventory);
  if (!listed.ok) return listed;
  const all = [...options.host, ...listed.value];
  return succeed([...new Map(all.map((host) => [keyOf(host.target), host])).values()]);
}

async function onMachine<T>(
  target: SshTarget | undefined,
  options: FleetCliOptions,
  ask: ((prompt: string) => Promise<string | null>) | undefined,
  work: (machine: Machine) => Promise<Result<T>>,
): Promise<Result<T>> {
  const opened = await openMachine(target, options.acceptNew === true, ask);
  if (!opened.ok) return opened;
  try {
    const result = await work(opened.value);
    return { ...result, diagnostics: [...opened.diagnostics, ...result.diagnostics] };
  } finally {
    opened.value.close();
  }
}

/** Nobody is asked for a secret while other hosts are worked on. */
const askNobody = async (): Promise<null> => null;

/** Rows of the table at most; beyond, hosts that are done are only counted. */
const MOST_ROWS = 20;

function renderOutcomes<T>(
  outcomes: readonly HostOutcome<T>[],
  render: (report: T) => string,
): string {
  const done = outcomes.filter(({ state }) => state === 'done');
  const shown =
    outcomes.length <= MOST_ROWS ? outcomes : outcomes.filter((one) => one.state !== 'done');
  const width = Math.max(0, ...shown.map(({ host }) => host.length));
  const rows = shown.map((outcome) => {
    const what =
      outcome.state === 'done'
        ? render(outcome.report)
            .trimEnd()
            .replace(/\n/g, `\n${' '.repeat(width + 2)}`)
        : outcome.state === 'untouched'
          ? 'untouched'
          : `failed: ${outcome.diagnostics.find(({ severity }) => severity === 'error')?.message ?? ''}`;
    return `${outcome.host.padEnd(width)}  ${what}\n`;
  });
  const count = (state: string): number => outcomes.filter((one) => one.state === state).length;
  const [failed, untouched] = [count('failed'), count('untouched')];
  const parts = [
    `${done.length} of ${outcomes.length} hosts done`,
    ...(failed > 0 ? [`${failed} failed`] : []),
    ...(untouched > 0 ? [`${untouched} untouched`] : []),
  ];
  return `${rows.join('')}${parts.join(', ')}\n`;
}

async function runOnFleet<T>(
  hosts: readonly InventoryHost[],
  options: FleetCliOptions,
  work: MachineWork<T>,
): Promise<void> {
  let finished = 0;
  const onOutcome = (outcome: HostOutcome<T>): void => {
    finished += 1;
    if (options.json) console.log(JSON.stringify(outcome));
    if (outcome.state === 'untouched') return;
    for (const diagnostic of outcome.diagnostics) {
      process.stderr.write(`${outcome.host}: ${formatDiagnostic(diagnostic)}\n`);
    }
    process.stderr.write(`[${finished}/${hosts.length}] ${outcome.host}: ${outcome.state}\n`);
  };
  const outcomes = await runFleet(
    hosts,
    {
      parallel: options.parallel,
      canary: options.canary ?? 0,
      stopOnFailure: options.canary !== undefined,
    },
    {
      nameOf: ({ name }) => name,
      run: ({ target }) => onMachine(target, options, askNobody, work.run),
      isWell: async ({ target }) => {
        await sleep((options.canaryWait ?? 0) * 1000);
        // On a new connection, so that a host that locks everybody out is found out.
        return onMachine(target, options, askNobody, work.isWell ?? (async () => succeed(null)));
      },
      onOutcome,
    },
  );
  if (!options.json) process.stdout.write(renderOutcomes(outcomes, work.render));
  const done = outcomes.filter(({ state }) => state === 'done').length;
  if (done < outcomes.length) process.exitCode = done > 0 ? EXIT.partly : EXIT.refused;
}

/** Does the work on this machine, on one host, or on many, and tells of it. */
export async function runOnMachines<T>(
  command: Command,
  options: FleetCliOptions,
  work: MachineWork<T>,
): Promise<void> {
  const hosts = unwrapResult(await chooseHosts(options));
  if (hosts === null) return;
  if (hosts.length > 1) return runOnFleet(hosts, options, work);
  if ((options.canary ?? 0) > 0) refuseUsage(command, '--canary needs several hosts');
  const [host] = hosts;
  const result = await onMachine(host?.target, options, undefined, work.run);
  reportDiagnostics(result.diagnostics);
  if (!result.ok) {
    process.exitCode = EXIT.refused;
    return;
  }
  if (options.json) console.log(JSON.stringify(result.value, null, 2));
  else process.stdout.write(work.render(result.value));
}
