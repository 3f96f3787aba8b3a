import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';
import { formatRuleId } from '../ir/ruleset.ts';
import { fromHex } from '../support/bits.ts';
import type { Result } from '../support/diagnostics.ts';
import { errorAt, fail, succeed } from '../support/diagnostics.ts';
import type { TraceReport } from './core.ts';
import { traceFrames } from './core.ts';
import { unwrapResult } from './exit.ts';
import { addHostOption, refuseUsage } from './machine.ts';
import type { CommonOptions } from './options.ts';
import { addCommonOptions, loadProfiles, readSituation } from './options.ts';
import { describeTerminal, renderTable } from './output.ts';
import { readPcap } from './pcap.ts';

interface TraceOptions extends CommonOptions {
  readonly frame: readonly Uint8Array[];
  readonly pcap?: string;
}

function collectFrame(text: string, before: readonly Uint8Array[]): readonly Uint8Array[] {
  const frame = fromHex(text);
  if (frame === null || frame.length === 0) {
    throw new InvalidArgumentError('A frame is an even number of hex digits.');
  }
  return [...before, frame];
}

async function readFrames(options: TraceOptions): Promise<Result<readonly Uint8Array[]>> {
  if (options.pcap === undefined) return succeed(options.frame);
  try {
    return readPcap(await readFile(options.pcap), options.pcap);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return fail(errorAt('trace/unreadable', `cannot read the capture: ${why}`));
  }
}

function renderTrace(report: TraceReport, width: number): string {
  const blocks = report.frames.map(({ bytes, answers }, index) => {
    const rows = answers.map(({ by, verdict, rule, text, reason }) => [
      `  ${by}`,
      verdict,
      rule === null ? '' : formatRuleId(rule),
      reason === null ? text : `${text} (${reason.message})`,
    ]);
    return `frame ${index + 1}, ${bytes} bytes\n${renderTable(rows, width)}`;
  });
  return blocks.join('\n\n');
}

async function runTrace(
  path: string | undefined,
  options: TraceOptions,
  command: Command,
): Promise<void> {
  if (options.frame.length > 0 === (options.pcap !== undefined)) {
    refuseUsage(command, 'give frames either by --frame HEX or by --pcap FILE');
  }
  const frames = unwrapResult(await readFrames(options));
  if (frames === null) return;
  const situation = unwrapResult(await readSituation(command, path, options));
  if (situation === null) return;
  const profiles = unwrapResult(await loadProfiles(options.profile));
  if (profiles === null) return;
  const report = unwrapResult(traceFrames({ ...situation, profiles, frames }));
  if (report === null) return;
  const text = options.json
    ? JSON.stringify(report, null, 2)
    : renderTrace(report, describeTerminal(process.stdout).width);
  console.log(text);
}

/** `trace`: which rule decides given frames. */
export function addTraceCommand(program: Command): void {
  addHostOption(addCommonOptions(program.command('trace')))
    .description('say which rule decides a frame, in the reference and in every tier')
    .addOption(
      new Option('--frame <HEX>', 'a whole frame from its Ethernet header on; repeatable')
        .argParser(collectFrame)
        .default([], 'none'),
    )
    .option('--pcap <FILE>', 'the frames of a capture')
    .action(runTrace);
}
