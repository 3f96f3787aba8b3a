import { formatInsn } from './format.ts';
import type { Line } from './order.ts';

/** A program as `tcpdump -d` numbers it, each instruction with the rule it is for. */
export function formatListing(lines: readonly Line[]): string {
  const rows = lines.map(({ insn, rule }, at) => {
    const text = formatInsn(insn, (skipped) => String(at + 1 + skipped));
    const number = `(${String(at).padStart(3, '0')})`;
    return rule === null ? `${number} ${text}` : `${number} ${text.padEnd(32)} ; ${rule}`;
  });
  return `${rows.join('\n')}\n`;
}
