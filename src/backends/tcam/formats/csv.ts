import { type Cell, cellsOf, type TableSet } from '../table.ts';

function quote(text: string): string {
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function formatCell({ value, mask, range }: Cell, bits: number): string {
  if (range !== null) return `${range.lo}-${range.hi}`;
  if (mask === 0n) return '';
  const digits = Math.ceil(bits / 4);
  const hex = (number: bigint): string => `0x${number.toString(16).padStart(digits, '0')}`;
  return mask === (1n << BigInt(bits)) - 1n ? hex(value) : `${hex(value)}/${hex(mask)}`;
}

/** One line a row, for people and spreadsheets: number, action, one cell a field, the rules. */
export function writeCsv({ tables }: TableSet): string {
  const blocks = tables.map((table) => {
    const names = table.columns.map(({ field }) => quote(field.name));
    const head = ['table', 'row', 'action', ...names, 'rules'].join(',');
    const rows = table.rows.map((row, index) => {
      const cells = cellsOf(table.columns, row).map((cell, column) =>
        formatCell(cell, table.columns[column]?.bits ?? 0),
      );
      const rules = quote(row.rules.join('; '));
      return [quote(table.name), index + 1, row.action, ...cells, rules].join(',');
    });
    const empty = names.map(() => '');
    const last = [quote(table.name), 'default', table.default, ...empty, ''].join(',');
    return [head, ...rows, last].join('\n');
  });
  return `${blocks.join('\n\n')}\n`;
}
