import { type Diagnostic, errorAt, type Place } from '../../../support/diagnostics.ts';
import type { TableRow, TcamTable } from '../table.ts';

/** What a format cannot say of a row, for whoever wrote the rule. */
export function refuseRow(
  format: string,
  table: TcamTable,
  row: TableRow,
  what: string,
): Diagnostic {
  const [path] = row.rules;
  const place: Place | null = path === undefined ? null : { kind: 'ruleset', path };
  return errorAt('tcam/format', `${format} cannot say ${what} (table ${table.name})`, {
    help: 'use another format, or a profile of the device so that such rules are left to nftables',
    ...(place === null ? {} : { place }),
  });
}
