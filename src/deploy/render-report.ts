import { formatProgram } from './attachment.ts';
import type { Changes } from './changes.ts';
import type { ConfirmReport } from './confirm.ts';
import type { DeployReport } from './deploy.ts';
import { formatOwner } from './owner-counts.ts';
import type { DeployPreview } from './preview.ts';
import { printable } from './render-status.ts';
import type { RollbackReport } from './rollback.ts';
import type { TablesReport } from './tables.ts';
import type { UndeployReport } from './undeploy.ts';

function renderLines(lines: readonly string[]): string {
  return `${lines.map(printable).join('\n')}\n`;
}

/** One line for a terminal, and one for each program that went. */
export function renderDeploy(report: DeployReport): string {
  const { device, mode, programId, rulesetChecksum, atomic } = report;
  if (report.inPlace !== null) {
    const { words, rulesIn, rulesOut } = report.inPlace;
    const counted = (sign: string, rules: number): readonly string[] =>
      rules === 0 ? [] : [`${sign}${rules} rule${rules === 1 ? '' : 's'}`];
    const changes = [...counted('+', rulesIn), ...counted('-', rulesOut)];
    const what = changes.length === 0 ? 'sets or order' : changes.join(', ');
    return renderLines([
      `${device}: ${what}, in place, ${words} words, ruleset ${rulesetChecksum}`,
    ]);
  }
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

/** Where the filters are, and what they stand in for. */
export function renderTables(report: TablesReport): string {
  const { device, filters, chain, mode, rulesetChecksum, replaced, confirm } = report;
  const where = mode === 'offload' ? 'in the device' : 'in the host';
  return renderLines([
    `${device}: ${filters} filters of tc ${where}, chain ${chain}, ruleset ${rulesetChecksum}`,
    ...(replaced === null
      ? []
      : [`${device}: they replaced those of generation ${replaced} in one step`]),
    ...(confirm === null
      ? []
      : [`${device}: goes back by itself unless confirmed within ${confirm} s`]),
  ]);
}

/** Rules that are listed one by one. */
const MOST_RULES = 20;

function renderRules(sign: '+' | '-', rules: readonly string[]): readonly string[] {
  const more = rules.length - MOST_RULES;
  const listed = rules.slice(0, MOST_RULES).map((rule) => `${sign} ${rule}`);
  return more > 0 ? [...listed, `${sign} and ${more} more rules`] : listed;
}

function renderChanges({ rulesIn, rulesOut, counters, maps }: Changes): readonly string[] {
  const { kept, begun, ended } = counters;
  const lines = [
    ...renderRules('-', rulesOut),
    ...renderRules('+', rulesIn),
    ...maps.map(({ name, added, removed }) => `~ map ${name}: ${added} added, ${removed} removed`),
  ];
  return [
    ...(lines.length === 0 ? ['the same rules and sets as now'] : lines),
    `counters: ${kept} go on, ${begun} begin, ${ended} end`,
  ];
}

/** The steps, numbered from 1, and what is different from now. */
export function renderPreview({ steps, changes }: DeployPreview): string {
  const numbered = steps.map((step, index) => `${index + 1}. ${step}`);
  return renderLines([...numbered, ...(changes === null ? [] : renderChanges(changes))]);
}

function nameRemoved(removed: UndeployReport['removed']): string {
  if (removed === null) return 'nothing to remove';
  if ('filters' in removed) return `${removed.filters} filters removed`;
  return `${formatProgram(removed)} removed`;
}

/** What went, and what it had counted. */
export function renderUndeploy(report: UndeployReport): string {
  const { device, removed, left, counters } = report;
  const counted = counters.filter(({ hardware }) => hardware.packets > 0 || hardware.bytes > 0);
  const zero = counters.length - counted.length;
  return renderLines([
    `${device}: ${nameRemoved(removed)}`,
    ...left.map((program) => `${device}: the ${formatProgram(program)} stays`),
    ...counted.map((counter) => {
      const { packets, bytes } = counter.hardware;
      return `${formatOwner(counter)}: ${packets} packets, ${bytes} bytes`;
    }),
    ...(zero === 0 ? [] : [`${zero} ${zero === 1 ? 'counter' : 'counters'} counted nothing`]),
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
