import { formatProgram } from './attachment.ts';
import type { ConfirmReport } from './confirm.ts';
import type { DeployReport } from './deploy.ts';
import { formatOwner } from './owner-counts.ts';
import type { DeployPreview } from './preview.ts';
import { printable } from './render-status.ts';
import type { RollbackReport } from './rollback.ts';
import type { UndeployReport } from './undeploy.ts';

function renderLines(lines: readonly string[]): string {
  return `${lines.map(printable).join('\n')}\n`;
}

/** One line for a terminal, and one for each program that went. */
export function renderDeploy(report: DeployReport): string {
  const { device, mode, programId, rulesetChecksum, atomic } = report;
  const how = atomic ? 'in one step' : 'with a gap';
  return renderLines([
    `${device}: ${mode} program ${programId} attached, ruleset ${rulesetChecksum}`,
    ...report.replaced.map(
      (program) => `${device}: it replaced the ${formatProgram(program)} ${how}`,
    ),
    ...(report.confirm === null
      ? []
      : [`${device}: goes back by itself unless confirmed within ${report.confirm} s`]),
  ]);
}

/** The steps, numbered from 1. */
export function renderPreview(preview: DeployPreview): string {
  return renderLines(preview.steps.map((step, index) => `${index + 1}. ${step}`));
}

/** What went, and what it had counted. */
export function renderUndeploy(report: UndeployReport): string {
  const { device, removed, left, counters } = report;
  return renderLines([
    `${device}: ${removed === null ? 'nothing to remove' : `${formatProgram(removed)} removed`}`,
    ...left.map((program) => `${device}: the ${formatProgram(program)} stays`),
    ...counters.map((counter) => {
      const { packets, bytes } = counter.hardware;
      return `${formatOwner(counter)}: ${packets} packets, ${bytes} bytes`;
    }),
  ]);
}

/** One line: what is kept now. */
export function renderConfirm({ device, generation }: ConfirmReport): string {
  return renderLines([`${device}: generation ${generation} is confirmed`]);
}

/** One line: from where to where. */
export function renderRollback({ device, from, to }: RollbackReport): string {
  const what = to === null ? 'no program of ours' : `generation ${to}`;
  const instead = from === null ? '' : ` in place of generation ${from}`;
  return renderLines([`${device}: back to ${what}${instead}`]);
}
