import { readFileSync, writeFileSync } from 'node:fs';
import { arch, cpus, release } from 'node:os';
import { join } from 'node:path';

const FILE = join(import.meta.dirname, 'RESULTS.md');

/** The machine and the day, as every section says them first. */
function where(): string {
  const cpu = cpus()[0]?.model ?? 'unknown CPU';
  const day = new Date().toISOString().slice(0, 10);
  return `${cpu}, ${cpus().length} cores, Linux ${release()} ${arch()}, Node ${process.version}, ${day}.`;
}

/**
 * Prints a section of bench/RESULTS.md and puts it in the place of the one with the same title, or at
 * the end. `body` is Markdown without headings of the second level.
 */
export function writeSection(title: string, body: string): void {
  const [head = '', ...sections] = readFileSync(FILE, 'utf8').split(/^## /m);
  const section = `${title}\n\n${where()}\n\n${body.trim()}\n\n`;
  const at = sections.findIndex((text) => text.startsWith(`${title}\n`));
  if (at < 0) sections.push(section);
  else sections[at] = section;
  const all = [head, ...sections].map((text) => text.trimEnd()).join('\n\n## ');
  writeFileSync(FILE, `${all}\n`);
  console.log(`## ${section.trimEnd()}`);
}

/** The middle value; the higher of two. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}
