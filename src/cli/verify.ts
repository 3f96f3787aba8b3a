import type { Command } from 'commander';
import { Option } from 'commander';
import { besideOf, TCAM_FORMATS, type TcamFormat } from '../backends/tcam/artifact.ts';
import { type VerifyReport, verifyRulesets, verifyTableFile } from '../plan/verify.ts';
import type { Result } from '../support/diagnostics.ts';
import { EXIT, unwrapResult } from './exit.ts';
import { refuseUsage } from './machine.ts';
import type { CommonOptions } from './options.ts';
import { addCommonOptions, readSituation } from './options.ts';
import { describeTerminal, renderTable } from './output.ts';
import { readTableText } from './table-file.ts';

interface VerifyOptions extends CommonOptions {
  readonly table?: string;
  readonly format: TcamFormat;
  readonly final?: boolean;
}

const KINDS = {
  equal: 'proven equal',
  less: 'drops less than the ruleset (allowed in front of nftables)',
  wrong: 'decides frames otherwise',
  unknown: 'not proven: too many cases, or rules ask for what is not in the key',
} as const;

async function verifyFile(
  situation: Parameters<typeof verifyTableFile>[0],
  path: string,
  { format, final = false }: VerifyOptions,
): Promise<Result<VerifyReport>> {
  const file = await readTableText(path);
  if (!file.ok) return file;
  const suffix = besideOf(format);
  const beside = suffix === null ? null : await readTableText(path + suffix);
  if (beside?.ok === false) return beside;
  const text = beside?.value.text ?? null;
  return verifyTableFile(situation, { ...file.value, format, beside: text }, final);
}

function renderReport({ tables }: VerifyReport, width: number): string {
  const rows = tables.map(({ table, kind, row, action, reference }) => [
    table,
    KINDS[kind],
    action === null ? '' : `${row === null ? 'default' : `row ${row + 1}`}: ${action}`,
    reference.length === 0 ? '' : `reference: ${reference.join(', ')}`,
  ]);
  const frames = tables.flatMap(({ table, frame }) =>
    frame === null ? [] : [`frame that shows it (${table}):`, `  ${frame}`],
  );
  return [renderTable(rows, width), ...frames].join('\n');
}

async function runVerify(
  path: string | undefined,
  other: string | undefined,
  options: VerifyOptions,
  command: Command,
): Promise<void> {
  if ((other === undefined) === (options.table === undefined)) {
    refuseUsage(command, 'give either a second ruleset or --table FILE');
  }
  const final = options.final === true;
  const situation = unwrapResult(await readSituation(command, path, options));
  if (situation === null) return;
  let result: Result<VerifyReport>;
  if (other === undefined) result = await verifyFile(situation, options.table ?? '', options);
  else {
    const second = unwrapResult(await readSituation(command, other, options));
    if (second === null) return;
    result = verifyRulesets(situation, second, final);
  }
  const report = unwrapResult(result);
  if (report === null) return;
  const text = options.json
    ? JSON.stringify(report, null, 2)
    : renderReport(report, describeTerminal(process.stdout).width);
  console.log(text);
  if (!report.holds) process.exitCode = EXIT.refused;
}

/** `verify`: proves a table file against a ruleset, or two rulesets against each other. */
export function addVerifyCommand(program: Command): void {
  addCommonOptions(program.command('verify'))
    .argument('[OTHER]', 'a second ruleset, to compare with the first')
    .description('prove that a table file, or another ruleset, decides every frame the same')
    .option('--table <FILE>', 'tables as `compile --target tcam` writes them')
    .addOption(
      new Option('--format <FORMAT>', 'of the tables')
        .choices(TCAM_FORMATS)
        .default(TCAM_FORMATS[0]),
    )
    .option('--final', 'the device forwards by itself, so that it has to decide everything')
    .action(runVerify);
}
