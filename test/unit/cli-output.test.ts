import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import {
  cutText,
  paint,
  renderTable,
  showControls,
  wrapText,
  writeFiles,
} from '../../src/cli/output.ts';

const bytes = (text: string) => new TextEncoder().encode(text);
const folder = () => mkdtempSync(join(tmpdir(), 'nft-offload-'));

it('writes several files and leaves nothing else behind', async () => {
  const at = folder();
  writeFileSync(join(at, 'a'), 'old');
  await writeFiles([
    { path: join(at, 'a'), content: bytes('new') },
    { path: join(at, 'a.maps'), content: bytes('maps') },
  ]);
  expect(readdirSync(at).sort()).toEqual(['a', 'a.maps']);
  expect(readFileSync(join(at, 'a'), 'utf8')).toBe('new');
});

it('replaces nothing when one file cannot be written', async () => {
  const at = folder();
  writeFileSync(join(at, 'a'), 'old');
  const files = [
    { path: join(at, 'a'), content: bytes('new') },
    { path: join(at, 'missing', 'b'), content: bytes('b') },
  ];
  await expect(writeFiles(files)).rejects.toThrow('ENOENT');
  expect(readdirSync(at)).toEqual(['a']);
  expect(readFileSync(join(at, 'a'), 'utf8')).toBe('old');
});

it('cuts at the edge and wraps at blanks', () => {
  expect(cutText('tcp dport 22', 8)).toBe('tcp dpo…');
  expect(cutText('tcp', 3)).toBe('tcp');
  expect(wrapText('tcp dport 22 accept', 10)).toEqual(['tcp dport', '22 accept']);
});

it('aligns columns without trailing blanks', () => {
  const rows = [
    ['a', 'bb', ''],
    ['ccc', 'd', 'long text'],
  ];
  expect(renderTable(rows, 14)).toBe('a    bb\nccc  d   long…');
});

it('paints only where colours are shown', () => {
  expect(paint({ width: 80, colour: false }, 'red', 'x')).toBe('x');
  expect(paint({ width: 80, colour: true }, 'red', 'x')).toBe('\u001b[31mx\u001b[0m');
});

it('a comment cannot drive the terminal', () => {
  expect(showControls('a\u001b[2Jb\n')).toBe('a\\u001b[2Jb\\u000a');
  expect(renderTable([['\u001b[2J']], 80)).toBe('\\u001b[2J');
});
