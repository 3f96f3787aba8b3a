/** `npm run bench`, or `npm run bench -- NAME` for another file of this folder. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const name = process.argv[2] ?? 'compile';
const path = join(import.meta.dirname, `${name}.ts`);
if (!/^[a-z-]+$/.test(name) || !existsSync(path)) throw new Error(`there is no bench/${name}.ts`);
await import(pathToFileURL(path).href);
