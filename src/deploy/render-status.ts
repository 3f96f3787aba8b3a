import { formatProgram } from './attachment.ts';
import type { StepReport } from './guard.ts';
import { formatOwner } from './owner-counts.ts';
import type { AttachmentReport, CountJson, StatusReport } from './status.ts';

function renderAttachment(attachment: AttachmentReport): readonly string[] {
  switch (attachment.kind) {
    case 'none':
      return ['no program attached'];
    case 'foreign':
      return attachment.programs.map(
        (program) => `${formatProgram(program)}, not attached by nft-offload`,
      );
    case 'ours':
      return [
        `${formatProgram(attachment.program)} since ${attachment.since}`,
        `generation ${attachment.generation}, ruleset ${attachment.rulesetChecksum}`,
        ...attachment.beside.map((program) => `beside it the ${formatProgram(program)}`),
      ];
    case 'tables': {
      const { filters, inHardware, mode, chain, generation, rulesetChecksum } = attachment;
      const where = mode === 'offload' ? `${inHardware} of them in the device` : 'in the host';
      return [
        `${filters} filters of tc in chain ${chain}, ${where}`,
        `generation ${generation}, ruleset ${rulesetChecksum}`,
      ];
    }
  }
}

function renderStep({ step, seconds, reason, off, guarded }: StepReport): readonly string[] {
  const why = reason === null ? 'the ruleset has changed' : reason;
  const since = new Date(Date.now() - seconds * 1000).toISOString();
  return [
    step === 'in' ? `in step since ${since}` : `out of step for ${seconds.toFixed(1)} s: ${why}`,
    ...(off === null ? [] : [`the program was taken off: ${off}`]),
    ...(guarded ? [] : ['no guard: changes of the ruleset go unnoticed; start `watch` again']),
  ];
}

function cells(count: CountJson | null): readonly string[] {
  return count === null ? ['-', '-'] : [String(count.packets), String(count.bytes)];
}

/** Columns as wide as they need to be: the first one to the left, numbers to the right. */
function alignColumns(rows: readonly (readonly string[])[]): readonly string[] {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows.map((row) =>
    row
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return column === 0 ? cell.padEnd(width) : cell.padStart(width);
      })
      .join('  ')
      .trimEnd(),
  );
}

/** A control character of a name (tables, chains) must not reach the terminal. */
export function printable(text: string): string {
  return text.replace(/\p{C}/gu, '?');
}

/** The report for a terminal: what runs, what is not as it should be, a table of the counters. */
export function renderStatus(report: StatusReport): string {
  const heading = [
    'counter',
    'hardware',
    'bytes',
    'before',
    'bytes',
    'nftables',
    'bytes',
    'total',
    'bytes',
  ];
  const table = report.counters.map((counter) => [
    formatOwner(counter),
    ...cells(counter.hardware),
    ...cells(counter.carried),
    ...cells(counter.nft),
    ...cells(counter.total),
  ]);
  const lines = [
    ...renderAttachment(report.attachment).map((line) => `${report.device}: ${line}`),
    ...(report.step === null ? [] : renderStep(report.step)).map(
      (line) => `${report.device}: ${line}`,
    ),
    ...report.drift.map(({ code, message }) => `drift[${code}] ${message}`),
    ...(report.kept.length < 2 ? [] : [`kept: generations ${report.kept.join(', ')}`]),
    ...(table.length === 0 ? [] : ['', ...alignColumns([heading, ...table])]),
  ];
  return `${lines.map(printable).join('\n')}\n`;
}
