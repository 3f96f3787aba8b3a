import type { Command } from 'commander';
import { planRuleset } from '../plan/plan.ts';
import { unwrapResult } from './exit.ts';
import type { CommonOptions } from './options.ts';
import { addCommonOptions, loadProfiles, readSituation } from './options.ts';
import { describeTerminal } from './output.ts';
import { renderPlan } from './plan-table.ts';

async function runPlan(
  path: string | undefined,
  options: CommonOptions,
  command: Command,
): Promise<void> {
  const situation = unwrapResult(await readSituation(command, path, options));
  if (situation === null) return;
  const profiles = unwrapResult(await loadProfiles(options.profile));
  if (profiles === null) return;
  const report = unwrapResult(planRuleset(situation, profiles));
  if (report === null) return;
  const text = options.json
    ? JSON.stringify(report, null, 2)
    : renderPlan(report, describeTerminal(process.stdout));
  console.log(text);
}

/** `plan`: which rules move where, and why the others stay. */
export function addPlanCommand(program: Command): void {
  addCommonOptions(program.command('plan'))
    .description('show which rules the hardware can take over, and why the others stay')
    .action(runPlan);
}
