import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const PATH = join(import.meta.dirname, 'RESULTS.md');

/** Replaces one section (`title` without `## `) of bench/RESULTS.md, or adds it; `head` the text before all. */
export function writeSection(title: string, body: string, head?: string): void {
  const [before = '', ...sections] = readFileSync(PATH, 'utf8').split(/^## /m);
  const fresh = `${title}\n\n${body.trim()}\n\n`;
  const at = sections.findIndex((section) => section.startsWith(`${title}\n`));
  const kept = sections.map((section) => `${section.trim()}\n\n`);
  const all = at < 0 ? [...kept, fresh] : kept.with(at, fresh);
  const text = [`${(head ?? before).trim()}\n\n`, ...all].join('## ');
  writeFileSync(PATH, `${text.trim()}\n`);
}
