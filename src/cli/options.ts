import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';
import { STRUCTURES, type Structure } from '../backends/backend.ts';
import { probeFacts } from '../deploy/probe-facts.ts';
import { formatPorts, probeReplyPorts } from '../deploy/probe-ports.ts';
import type { SshTarget } from '../deploy/ssh/target.ts';
import { NOT_FOUND } from '../deploy/transport.ts';
import { CONCESSIONS, type Concession } from '../ir/concede.ts';
import { type Facts, nothingKnown } from '../ir/facts.ts';
import { type PortRange, repliesMatter } from '../ir/flows.ts';
import { familyStates } from '../ir/path.ts';
import type { Ruleset } from '../ir/ruleset.ts';
import { type RulesetSource, readRuleset } from '../nft/read.ts';
import type { RunProgram } from '../nft/read-process.ts';
import { refuseConcessions } from '../plan/check-concessions.ts';
import type { Situation } from '../plan/place.ts';
import { loadProfile } from '../profile/load.ts';
import type { Profile } from '../profile/schema.ts';
import type { Diagnostic, Result } from '../support/diagnostics.ts';
import { fail, formatDiagnostic, succeed } from '../support/diagnostics.ts';
import { FACT_FORMS, parseFacts } from './facts.ts';
import { readFactsFile } from './facts-file.ts';
import { type Machine, openMachine, parseDevice, refuseUsage } from './machine.ts';

/** Options that say what the ruleset's situation is, as commander hands them over. */
export interface SituationOptions {
  readonly dev?: string;
  readonly profile: readonly string[];
  readonly fact: readonly string[];
  readonly facts?: string;
  readonly concede: Granted;
  readonly structure?: Structure;
  readonly json?: boolean;
}

/** Options of every command that looks at a ruleset. */
export interface CommonOptions extends SituationOptions {
  readonly host?: SshTarget;
  readonly acceptNew?: boolean;
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return before.includes(value) ? before : [...before, value];
}

/** What `--concede` grants: names, and the value that one of them has. */
type Granted = Pick<Situation, 'concessions' | 'replyPorts'>;

function isConcession(name: string): name is Concession {
  return Object.hasOwn(CONCESSIONS, name);
}

const MOST_PORT = 65_535;

/** `32768-60999,123`: ports and ranges of them. */
function parsePorts(text: string): readonly PortRange[] {
  return text.split(',').map((part) => {
    const [from, to = from] = part.split('-').map(Number);
    const known = /^\d+(-\d+)?$/.test(part) && from !== undefined && to !== undefined;
    if (known && from <= to && to <= MOST_PORT) return { from, to };
    throw new InvalidArgumentError(`\`${part}\` is no port or range, as 32768-60999.`);
  });
}

function collectConcession(text: string, before: Granted): Granted {
  const [name = '', value] = text.split('=', 2);
  if (!isConcession(name)) {
    throw new InvalidArgumentError(`Known are ${Object.keys(CONCESSIONS).join(', ')}.`);
  }
  if ((name === 'reply-ports') !== (value !== undefined)) {
    throw new InvalidArgumentError('Only reply-ports has a value, as reply-ports=32768-60999.');
  }
  const concessions = [...new Set([...before.concessions, name])];
  const replyPorts = value === undefined ? before.replyPorts : parsePorts(value);
  return { concessions, replyPorts };
}

const RULESET_HELP = '.nft file, JSON of `nft -j list ruleset`, or - ; without it the live one';

/** Adds RULESET and the common options to a command. */
export function addCommonOptions(command: Command): Command {
  return addSituationOptions(command.argument('[RULESET]', RULESET_HELP));
}

/** Adds the common options to a command that reads its arguments by itself. */
export function addSituationOptions(command: Command): Command {
  const concessions = Object.entries(CONCESSIONS).map(([name, what]) => `${name} (${what})`);
  return command
    .addOption(new Option('--dev <IF>', 'the device frames arrive on').argParser(parseDevice))
    .addOption(
      new Option('--profile <NAME|FILE>', 'what the hardware can do; repeatable, nearest first')
        .argParser(collect)
        .default([], 'xdp-native'),
    )
    .addOption(
      new Option('--fact <NAME=VALUE>', `true of the machine: ${FACT_FORMS.join(', ')}`)
        .argParser(collect)
        .default([], 'none'),
    )
    .option(
      '--facts <FILE>',
      'a JSON object of facts, as `plan --json` gives them; --fact adds to it',
    )
    .addOption(
      new Option('--concede <NAME>', `give up: ${concessions.join(', ')}`)
        .argParser(collectConcession)
        .default({ concessions: [], replyPorts: null }, 'none'),
    )
    .addOption(
      new Option('--structure <NAME>', 'XDP: how many rules are asked; auto takes the cheaper one')
        .choices(STRUCTURES)
        .default('auto'),
    )
    .option('--json', 'machine-readable output');
}

/** Devices the ruleset's ingress chains are bound to. */
function ingressDevices(ruleset: Ruleset): readonly string[] {
  const names = new Set<string>();
  for (const { base } of ruleset.tables.flatMap(({ chains }) => chains)) {
    if (base?.hook !== 'ingress') continue;
    for (const name of base.devices ?? []) names.add(name);
  }
  return [...names];
}

function chooseDevice(command: Command, options: SituationOptions, ruleset: Ruleset): string {
  if (options.dev !== undefined) return options.dev;
  const found = ingressDevices(ruleset);
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  const why =
    found.length === 0 ? 'the ruleset names none' : `the ruleset names ${found.join(', ')}`;
  return refuseUsage(command, `which device do the frames arrive on? Give --dev IF (${why}).`);
}

function checkFacts(
  command: Command,
  device: string,
  given: readonly string[],
  base: Facts = nothingKnown(device),
): Facts {
  const facts = parseFacts(device, given, base);
  if (facts.ok) return facts.value;
  const [first] = facts.diagnostics;
  const text = first === undefined ? 'bad --fact' : formatDiagnostic(first);
  return refuseUsage(command, text.replace(/^error\S* /, ''));
}

/** The profiles of `--profile`; without any, `xdp-native`. */
export async function loadProfiles(names: readonly string[]): Promise<Result<readonly Profile[]>> {
  const profiles: Profile[] = [];
  for (const name of names.length === 0 ? ['xdp-native'] : names) {
    const loaded = await loadProfile(name);
    if (!loaded.ok) return loaded;
    profiles.push(loaded.value);
  }
  return succeed(profiles);
}

/** What `--fact` says goes before what was found on the machine. */
function mergeFacts(given: Facts, found: Facts): Facts {
  return {
    device: given.device,
    role: given.role ?? found.role,
    localAddresses: given.localAddresses ?? found.localAddresses,
    mac: given.mac ?? found.mac,
    groOff: given.groOff || found.groOff,
    rpFilterOff: given.rpFilterOff || found.rpFilterOff,
    routed: given.routed || found.routed,
    rxVlanOff: given.rxVlanOff || found.rxVlanOff,
    conntrackFresh: given.conntrackFresh || found.conntrackFresh,
    soleDevice: given.soleDevice || found.soleDevice,
    vlans: given.vlans ?? found.vlans,
    master: given.master ?? found.master,
    masterMac: given.masterMac ?? found.masterMac,
    bridgePlain: given.bridgePlain || found.bridgePlain,
    brNetfilter: given.brNetfilter ?? found.brNetfilter,
    group: given.group ?? found.group,
  };
}

/** Runs programs on the machine as the readers of nft want it. */
function programRunner({ transport }: Machine): RunProgram {
  return async (program, args) => {
    const { code, stdout, stderr } = await transport.run([program, ...args]);
    return { started: code !== NOT_FOUND, status: code, signal: null, stdout, stderr };
  };
}

function liveSource(machine: Machine): RulesetSource {
  return machine.isRemote ? { kind: 'live', run: programRunner(machine) } : { kind: 'live' };
}

/** Says what `reply-ports` would be on this machine, where granting it may move something. */
async function proposePorts(
  { transport }: Machine,
  { ruleset, facts, replyPorts }: Situation,
): Promise<readonly Diagnostic[]> {
  const states = familyStates(ruleset);
  if (replyPorts !== null || !repliesMatter(ruleset, states, facts)) return [];
  const ports = await probeReplyPorts(transport);
  if (ports === null) return [];
  const message = `this machine seems to open flows from local ports ${formatPorts(ports)} only`;
  const fresh = facts.conntrackFresh ? '' : ' (needs --fact conntrack=fresh as well)';
  const help = `if that is always so: --concede reply-ports=${formatPorts(ports)}${fresh}; see docs/stateful.md`;
  return [{ code: 'plan/reply-ports', severity: 'notice', message, help, place: null }];
}

/** What is known before any machine is looked at. */
export interface Given {
  /** Of `--facts`. */
  readonly base: Facts | undefined;
  /** Null for the live one. */
  readonly ruleset: Result<Ruleset> | null;
}

/** Reads the files that the command line names; wrong usage is said before any of them is read. */
export async function readGiven(
  command: Command,
  path: string | undefined,
  options: SituationOptions,
): Promise<Result<Given>> {
  const file = options.facts === undefined ? null : await readFactsFile(options.facts);
  if (file !== null && !file.ok) return file;
  const base = file?.value;
  checkFacts(command, options.dev ?? '', options.fact, base);
  if (path === undefined) return succeed({ base, ruleset: null });
  const read = await readRuleset(path === '-' ? { kind: 'stdin' } : { kind: 'file', path });
  return read.ok ? succeed({ base, ruleset: read }) : read;
}

/** The situation on one machine; `probe` looks there for facts. */
export async function situationOn(
  command: Command,
  machine: Machine,
  { base, ruleset }: Given,
  options: SituationOptions,
  probe: boolean,
): Promise<Result<Situation>> {
  const read = ruleset ?? (await readRuleset(liveSource(machine)));
  if (!read.ok) return read;
  const device = chooseDevice(command, options, read.value);
  const given = checkFacts(command, device, options.fact, base);
  const granted = { ...options.concede, structure: options.structure ?? 'auto' };
  if (!probe) return succeed({ ruleset: read.value, facts: given, ...granted }, read.diagnostics);
  const found = await probeFacts(machine.transport, device);
  if (!found.ok) return found;
  const facts = mergeFacts(given, found.value);
  const situation = { ruleset: read.value, facts, ...granted };
  const notices = command.name() === 'plan' ? await proposePorts(machine, situation) : [];
  return succeed(situation, [...read.diagnostics, ...found.diagnostics, ...notices]);
}

/** Concessions that cannot help, or are unsafe, are refused before anything is done. */
export function checkGranted(situation: Situation): Result<Situation> {
  const refused = refuseConcessions(situation);
  return refused.length > 0 ? fail(...refused) : succeed(situation);
}

/** Reads the ruleset and what is known about the machine; the machine itself where it is live. */
export async function readSituation(
  command: Command,
  path: string | undefined,
  options: CommonOptions,
): Promise<Result<Situation>> {
  const given = await readGiven(command, path, options);
  if (!given.ok) return given;
  const machine = await openMachine(options.host, options.acceptNew === true);
  if (!machine.ok) return machine;
  try {
    const probe = path === undefined || options.host !== undefined;
    const situation = await situationOn(command, machine.value, given.value, options, probe);
    if (!situation.ok) return situation;
    const granted = checkGranted(situation.value);
    return { ...granted, diagnostics: [...situation.diagnostics, ...granted.diagnostics] };
  } finally {
    machine.value.close();
  }
}
