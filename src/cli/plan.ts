import type { Command } from 'commander';
import { formatMarkdown } from '../plan/markdown.ts';
import { planRuleset } from '../plan/plan.ts';
import { HOST, type PlanReport } from '../plan/report.ts';
import { unwrapResult } from './exit.ts';
import type { CommonOptions } from './options.ts';
import {
  addCommonOptions,
  addHostOption,
  loadProfiles,
  readSituation,
  refuseUsage,
} from './options.ts';
import { describeTerminal } from './output.ts';
import { type PlanView, renderPlan, selectRules } from './plan-table.ts';

interface PlanOptions extends CommonOptions {
  readonly tier?: string;
  readonly all?: boolean;
  readonly md?: boolean;
}

function formatPlan(report: PlanReport, options: PlanOptions, view: PlanView): string {
  const rules = selectRules(report, view);
  if (options.json) return JSON.stringify({ ...report, rules }, null, 2);
  if (options.md) return formatMarkdown(report, rules);
  return renderPlan(report, describeTerminal(process.stdout), view);
}

async function runPlan(
  path: string | undefined,
  options: PlanOptions,
  command: Command,
): Promise<void> {
  if (options.json && options.md) refuseUsage(command, '--json and --md exclude each other');
  const situation = unwrapResult(await readSituation(command, path, options));
  if (situation === null) return;
  const profiles = unwrapResult(await loadProfiles(options.profile));
  if (profiles === null) return;
  const view = { tier: options.tier ?? null, all: options.all === true };
  const tiers = [...profiles.map(({ name }) => name), HOST];
  if (view.tier !== null && !tiers.includes(view.tier)) {
    refuseUsage(command, `no tier ${view.tier} in this plan: there are ${tiers.join(', ')}`);
  }
  const report = unwrapResult(planRuleset(situation, profiles));
  if (report === null) return;
  console.log(formatPlan(report, options, view));
}

/** `plan`: which rules move where, and why the others stay. */
export function addPlanCommand(program: Command): void {
  addHostOption(addCommonOptions(program.command('plan')))
    .description('show which rules the hardware can take over, and why the others stay')
    .option('--tier <NAME>', 'only rules of this tier, or host')
    .option('--all', 'one line for every rule, also of a long ruleset')
    .option('--md', 'Markdown, for a change ticket')
    .action(runPlan);
}
