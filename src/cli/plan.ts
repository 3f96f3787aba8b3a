import type { Command } from 'commander';
import { formatHtml } from '../plan/html.ts';
import { formatMarkdown } from '../plan/markdown.ts';
import { HOST, type PlanReport } from '../plan/report.ts';
import { errorAt, fail } from '../support/diagnostics.ts';
import { unwrapResult } from './exit.ts';
import { addHostOption, refuseUsage } from './machine.ts';
import type { CommonOptions } from './options.ts';
import { addCommonOptions, loadProfiles, readSituation } from './options.ts';
import { describeTerminal, writeFiles } from './output.ts';
import { type PlanView, renderPlan, selectRules } from './plan-table.ts';

interface PlanOptions extends CommonOptions {
  readonly tier?: string;
  readonly all?: boolean;
  readonly md?: boolean;
  readonly html?: string;
  readonly findings?: boolean;
}

function formatPlan(report: PlanReport, options: PlanOptions, view: PlanView): string {
  const rules = selectRules(report, view);
  if (options.json) return JSON.stringify({ ...report, rules }, null, 2);
  if (options.md) return formatMarkdown(report, rules);
  return renderPlan(report, describeTerminal(process.stdout), view);
}

async function writePage(file: string, page: string): Promise<void> {
  try {
    await writeFiles([{ path: file, content: Buffer.from(page) }]);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const help = 'nothing was replaced; check the directory and its permissions';
    unwrapResult(fail(errorAt('plan/unwritable', `cannot write: ${why}`, { help })));
  }
}

async function runPlan(
  path: string | undefined,
  options: PlanOptions,
  command: Command,
): Promise<void> {
  const forms = [options.json, options.md, options.html !== undefined].filter((form) => form);
  if (forms.length > 1) refuseUsage(command, '--json, --md and --html exclude each other');
  // Reading a ruleset is mostly waiting for nft: time to load what plans.
  const [read, { planRuleset }] = await Promise.all([
    readSituation(command, path, options),
    import('../plan/plan.ts'),
  ]);
  const situation = unwrapResult(read);
  if (situation === null) return;
  const profiles = unwrapResult(await loadProfiles(options.profile));
  if (profiles === null) return;
  const view = {
    tier: options.tier ?? null,
    all: options.all === true,
    findings: options.findings === true,
  };
  const tiers = [...profiles.map(({ name }) => name), HOST];
  if (view.tier !== null && !tiers.includes(view.tier)) {
    refuseUsage(command, `no tier ${view.tier} in this plan: there are ${tiers.join(', ')}`);
  }
  const report = unwrapResult(planRuleset(situation, profiles));
  if (report === null) return;
  if (options.html !== undefined) {
    await writePage(options.html, formatHtml(report, selectRules(report, view)));
    return;
  }
  console.log(formatPlan(report, options, view));
}

/** `plan`: which rules move where, and why the others stay. */
export function addPlanCommand(program: Command): void {
  addHostOption(addCommonOptions(program.command('plan')))
    .description('show which rules the hardware can take over, and why the others stay')
    .option('--tier <NAME>', 'only rules of this tier, or host')
    .option('--all', 'one line for every rule, also of a long ruleset')
    .option('--findings', 'list every finding about the ruleset itself, however many')
    .option('--md', 'Markdown, for a change ticket')
    .option('--html <FILE>', 'one HTML page, written to FILE; it needs nothing else')
    .action(runPlan);
}
