import { type Result, succeed } from '../../../support/diagnostics.ts';
import { cellsOf, type TableSet, type TcamTable } from '../table.ts';

/** P4Runtime 1.4, "ID Allocation for P4Info Objects": the type of an object is its id's first byte. */
const TABLE_ID = 0x02000000;
const ACTION_IDS = { drop: 0x01000001, pass: 0x01000002 } as const;

/** Bytes in network order without leading zeros ("canonical binary string"), as a text proto has them. */
function bytesOf(value: bigint): string {
  const digits = value.toString(16);
  const padded = digits.length % 2 === 0 ? digits : `0${digits}`;
  return `"${(padded.match(/../g) ?? []).map((byte) => `\\x${byte}`).join('')}"`;
}

function actionOf(action: TcamTable['default']): string {
  const id = action === 'drop' ? ACTION_IDS.drop : ACTION_IDS.pass;
  return `action { action { action_id: ${id} } }`;
}

/**
 * A WriteRequest in text form: rows with the highest priority first, don't-care fields left out, and
 * the default action of every table.
 */
export function writeP4Runtime({ tables }: TableSet): Result<string> {
  const lines = ['device_id: 1'];
  for (const [place, table] of tables.entries()) {
    const id = `table_id: ${TABLE_ID + place + 1}`;
    for (const [index, row] of table.rows.entries()) {
      const matches = cellsOf(table.columns, row).flatMap(({ value, mask }, column) => {
        if (mask === 0n) return [];
        const field = `field_id: ${column + 1}`;
        return `match { ${field} ternary { value: ${bytesOf(value)} mask: ${bytesOf(mask)} } }`;
      });
      const entry = [
        id,
        ...matches,
        `priority: ${table.rows.length - index}`,
        actionOf(row.action),
      ];
      lines.push(`updates { type: INSERT entity { table_entry { ${entry.join(' ')} } } }`);
    }
    const end = `${id} ${actionOf(table.default)} is_default_action: true`;
    lines.push(`updates { type: MODIFY entity { table_entry { ${end} } } }`);
  }
  return succeed(`${lines.join('\n')}\n`);
}

function identifier(name: string): string {
  return name.replaceAll(/[^a-z0-9]+/gi, '_');
}

/** The P4Info that `writeP4Runtime`'s request fits. */
export function writeP4Info({ tables }: TableSet): string {
  const lines: string[] = [];
  for (const [place, { name, columns, served, rows }] of tables.entries()) {
    const alias = identifier(name);
    const only = served.fixed.map(({ field, values }) => `${field.name} ${values.join(', ')}`);
    const doc = only.length === 0 ? '' : ` doc { brief: "only for ${only.join(' and ')}" }`;
    lines.push('tables {');
    lines.push(
      `  preamble { id: ${TABLE_ID + place + 1} name: "nft.${alias}" alias: "${alias}"${doc} }`,
    );
    for (const [index, { field, bits }] of columns.entries()) {
      const key = `id: ${index + 1} name: "${identifier(field.name)}" bitwidth: ${bits}`;
      lines.push(`  match_fields { ${key} match_type: TERNARY }`);
    }
    for (const id of Object.values(ACTION_IDS)) lines.push(`  action_refs { id: ${id} }`);
    lines.push(`  size: ${Math.max(1, rows.length)}`, '}');
  }
  for (const [name, id] of Object.entries(ACTION_IDS)) {
    lines.push(`actions { preamble { id: ${id} name: "nft.${name}" alias: "${name}" } }`);
  }
  return `${lines.join('\n')}\n`;
}
