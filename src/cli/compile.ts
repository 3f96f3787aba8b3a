import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';
import type { Artifact } from '../backends/backend.ts';
import {
  DIALECTS,
  type Dialect,
  LINK_TYPES,
  type LinkType,
  type Meaning,
} from '../backends/cbpf/meaning.ts';
import { EFFORTS, type Effort } from '../backends/tcam/minimise.ts';
import { findRule } from '../plan/find-rule.ts';
import { errorAt, fail } from '../support/diagnostics.ts';
import type { CompileRequest, StageName, TargetName } from './core.ts';
import { compileRuleset, emitStage, FORMATS, STAGES, TARGETS } from './core.ts';
import { unwrapResult } from './exit.ts';
import { addHostOption, refuseUsage } from './machine.ts';
import type { CommonOptions } from './options.ts';
import { addCommonOptions, loadProfiles, readSituation } from './options.ts';
import { writeFiles } from './output.ts';
import { readTableText } from './table-file.ts';

interface CompileOptions extends CommonOptions {
  readonly target: TargetName;
  readonly format?: string;
  readonly output?: string;
  readonly emit?: StageName;
  readonly returnDrop: number;
  readonly returnContinue: number;
  readonly dialect: Dialect;
  readonly linktype: LinkType;
  readonly frames: Meaning['frames'];
  readonly perRule?: boolean;
  readonly match?: string;
  readonly effort: Effort;
  readonly final?: boolean;
  readonly since?: string;
}

/** A cBPF return value is u32: BPF_RET, include/uapi/linux/filter.h. */
const MOST_RETURN = 0xffff_ffff;

function parseReturn(text: string): number {
  const value = /^(\d+|0x[0-9a-fA-F]+)$/.test(text) ? Number(text) : Number.NaN;
  if (value <= MOST_RETURN) return value;
  throw new InvalidArgumentError('A number from 0 to 0xffffffff.');
}

/** Options that say how classic BPF programs are made. */
const CBPF_OPTIONS: readonly Option[] = [
  new Option('--return-drop <N>', 'cbpf: return value for drop').argParser(parseReturn).default(0),
  new Option('--return-continue <N>', 'cbpf: return value for continue')
    .argParser(parseReturn)
    .default(MOST_RETURN, '0xffffffff'),
  new Option('--dialect <DIALECT>', 'cbpf: linux reads tags and more beside the packet')
    .choices(DIALECTS)
    .default('portable'),
  new Option('--linktype <TYPE>', 'cbpf: what packets start with')
    .choices(LINK_TYPES)
    .default('EN10MB'),
  new Option('--frames <FRAMES>', 'cbpf: well-formed leaves out checks of headers, for captures')
    .choices(['any', 'well-formed'])
    .default('any'),
  new Option('--match <RULE>', 'cbpf: select what this rule matches, for a capture'),
  new Option('--per-rule', 'cbpf: one piece of code for each rule, not one optimised whole'),
];

/** What is given; by itself a filter for captures returns what tcpdump's do (its MAXIMUM_SNAPLEN). */
function returnsOf(command: Command, { match, returnDrop, returnContinue }: CompileOptions) {
  const isCapture = match !== undefined;
  const given = (name: string): boolean => command.getOptionValueSource(name) !== 'default';
  return {
    drop: isCapture && !given('returnDrop') ? 262_144 : returnDrop,
    continue: isCapture && !given('returnContinue') ? 0 : returnContinue,
  };
}

/** Checks what commander cannot: options that belong to one target. */
function checkUsage(command: Command, options: CompileOptions): string {
  const { target } = options;
  const known = FORMATS[target];
  const format = options.format ?? known[0] ?? '';
  if (!known.includes(format)) {
    refuseUsage(
      command,
      `--target ${target} has no format '${format}'; it has ${known.join(', ')}`,
    );
  }
  if (options.profile.length > 1) {
    refuseUsage(command, 'compile makes one artifact: give one --profile');
  }
  for (const option of CBPF_OPTIONS) {
    const source = command.getOptionValueSource(option.attributeName());
    if (target === 'cbpf' || source === 'default' || source === undefined) continue;
    refuseUsage(command, `${option.long} belongs to --target cbpf`);
  }
  if (options.dialect === 'linux' && options.linktype === 'LINUX_SLL2') {
    refuseUsage(command, 'the kernel gives no filter frames of --linktype LINUX_SLL2');
  }
  const returns = returnsOf(command, options);
  if (returns.drop === returns.continue) {
    refuseUsage(command, '--return-drop and --return-continue must differ');
  }
  const isTcamOnly =
    command.getOptionValueSource('effort') !== 'default' ||
    options.final === true ||
    options.since !== undefined;
  if (isTcamOnly && target !== 'tcam') {
    refuseUsage(command, '--effort, --final and --since belong to --target tcam');
  }
  if (options.since !== undefined && options.format !== undefined && options.format !== 'json') {
    refuseUsage(command, '--since writes JSON: leave --format out');
  }
  if (options.emit !== undefined && options.output !== undefined) {
    refuseUsage(command, '--emit prints to standard output: leave -o out');
  }
  return format;
}

/** Bytes to a pipe or file as they are; never to a terminal. */
function printArtifact(command: Command, artifact: Artifact): void {
  const [main, ...others] = artifact.files;
  if (main === undefined) throw new Error('bug: an artifact without a file');
  if (others.length > 0) {
    const parts = others.map(({ suffix }) => `FILE${suffix}`).join(', ');
    unwrapResult(
      fail(
        errorAt('compile/needs-file', `this artifact is more than one file (${parts})`, {
          help: 'add -o FILE',
        }),
      ),
    );
    return;
  }
  if (process.stdout.isTTY && main.content.includes(0)) {
    refuseUsage(command, 'binary output does not go to a terminal: add -o FILE');
  }
  process.stdout.write(main.content);
}

async function writeArtifact(output: string, artifact: Artifact, json: boolean): Promise<void> {
  const files = artifact.files.map(({ suffix, content }) => ({ path: output + suffix, content }));
  try {
    await writeFiles(files);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const help = 'nothing was replaced; check the directory and its permissions';
    unwrapResult(fail(errorAt('compile/unwritable', `cannot write: ${why}`, { help })));
    return;
  }
  if (!json) return;
  const written = files.map(({ path, content }) => ({ path, bytes: content.length }));
  const summary = { format: 'nft-offload/compile@1', files: written, usage: artifact.usage };
  console.log(JSON.stringify(summary, null, 2));
}

async function runCompile(
  path: string | undefined,
  options: CompileOptions,
  command: Command,
): Promise<void> {
  const format = checkUsage(command, options);
  const situation = unwrapResult(await readSituation(command, path, options));
  if (situation === null) return;
  // OpenFlow rows need the protocols that Open vSwitch wants beside ports.
  const implied = { cbpf: ['cbpf'], openflow: ['openvswitch'] }[
    options.target === 'cbpf' ? 'cbpf' : format
  ];
  const names = options.profile.length > 0 ? options.profile : (implied ?? []);
  const profiles = unwrapResult(await loadProfiles(names));
  if (profiles === null) return;
  const found = options.match === undefined ? null : findRule(situation.ruleset, options.match);
  const rule = found === null ? null : unwrapResult(found);
  if (found?.ok === false) return;
  let since: CompileRequest['since'] = null;
  if (options.since !== undefined) {
    since = unwrapResult(await readTableText(options.since));
    if (since === null) return;
  }
  const request: CompileRequest = {
    ...situation,
    target: options.target,
    format,
    profile: options.target !== 'tcam' || names.length > 0 ? (profiles[0] ?? null) : null,
    cbpf: {
      dialect: options.dialect,
      linkType: options.linktype,
      frames: options.frames,
      rule: rule?.id ?? null,
      returns: returnsOf(command, options),
      perRule: options.perRule === true,
    },
    effort: options.effort,
    final: options.final === true,
    since,
  };
  if (options.emit !== undefined) {
    const text = unwrapResult(emitStage(request, options.emit));
    if (text !== null) process.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
    return;
  }
  const artifact = unwrapResult(compileRuleset(request));
  if (artifact === null) return;
  if (options.output === undefined) printArtifact(command, artifact);
  else await writeArtifact(options.output, artifact, options.json === true);
}

/** `compile`: one target's artifact, or one stage on the way to it. */
export function addCompileCommand(program: Command): void {
  const formats = Object.entries(FORMATS).map(
    ([target, names]) => `${target}: ${names.join(', ')}`,
  );
  const command = addHostOption(addCommonOptions(program.command('compile')))
    .description('compile what can be decided early to BPF or a TCAM table')
    .addOption(
      new Option('--target <TARGET>', 'what to compile for').choices(TARGETS).makeOptionMandatory(),
    )
    .option('--format <FORMAT>', `output format (${formats.join('; ')})`)
    .option('-o, --output <FILE>', 'where to write; replaced only when all of it is good')
    .addOption(new Option('--emit <STAGE>', 'print this stage instead').choices(STAGES))
    .addOption(
      new Option('--effort <LEVEL>', 'tcam: how hard to look for fewer rows')
        .choices(EFFORTS)
        .default('normal'),
    )
    .option('--final', 'tcam: the device forwards by itself, so that it has to decide everything')
    .option(
      '--since <FILE>',
      'tcam: the JSON of the tables that are loaded; write only what changes',
    )
    .action(runCompile);
  for (const option of CBPF_OPTIONS) command.addOption(option);
}
