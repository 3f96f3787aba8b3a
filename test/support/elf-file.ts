import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Writes the object to a temporary file for as long as `use` runs. */
export async function withElfFile<T>(
  elf: Uint8Array,
  use: (path: string) => Promise<T>,
): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'nfo-elf-'));
  try {
    const path = join(directory, 'program.o');
    await writeFile(path, elf);
    return await use(path);
  } finally {
    await rm(directory, { recursive: true });
  }
}
