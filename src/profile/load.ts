import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { z } from 'zod';
import type { Diagnostic, Result } from '../support/diagnostics.ts';
import { errorAt, fail, succeed } from '../support/diagnostics.ts';
import type { JsonPath, PlacedJson } from './json-places.ts';
import { readPlacedJson } from './json-places.ts';
import type { Profile } from './schema.ts';
import { profileSchema } from './schema.ts';

/** The profiles that come with the package; two levels up from src/profile as from dist/profile. */
const SHIPPED = join(import.meta.dirname, '..', '..', 'hw-profiles');
const SCHEMA_FILE = 'schema.json';

function isJsonPath(path: readonly PropertyKey[]): path is JsonPath {
  return path.every((step) => typeof step !== 'symbol');
}

/** `limits.maps.kinds[1].kind`. */
function formatPath(path: JsonPath): string {
  return path
    .map((step, index) =>
      typeof step === 'number' ? `[${step}]` : index === 0 ? step : `.${step}`,
    )
    .join('');
}

/** What a file has to change about one of zod's issues. */
function helpFor(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'unrecognized_keys':
      return 'remove it, or correct its spelling (hw-profiles/schema.json lists every key)';
    case 'invalid_value':
      return `write ${issue.values.map((value) => JSON.stringify(value)).join(' or ')}`;
    case 'too_big':
    case 'too_small':
      return 'write what the source says; a number beyond the possible would plan what cannot load';
    case 'custom':
      return 'the file contradicts itself here: change one of the two';
    default:
      return 'see hw-profiles/schema.json for what belongs here';
  }
}

function codeFor(issue: z.core.$ZodIssue): string {
  if (issue.code === 'unrecognized_keys') return 'profile/unknown-key';
  if (issue.path.at(-1) === 'unit') return 'profile/wrong-unit';
  if (issue.code === 'too_big' || issue.code === 'too_small') return 'profile/impossible-number';
  if (issue.message.startsWith('impossible')) return 'profile/impossible-number';
  return 'profile/wrong-value';
}

/** One diagnostic an issue, or one an unknown key. */
function diagnose(issue: z.core.$ZodIssue, json: PlacedJson): readonly Diagnostic[] {
  const path = isJsonPath(issue.path) ? issue.path : [];
  const code = codeFor(issue);
  const help = helpFor(issue);
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => {
      const where = [...path, key];
      const message = `unknown key \`${formatPath(where)}\``;
      return errorAt(code, message, { place: json.placeOfKey(where), help });
    });
  }
  const at = path.length === 0 ? 'the profile' : `\`${formatPath(path)}\``;
  const missing = issue.code === 'invalid_type' && issue.input === undefined;
  const message = missing ? `${at} is missing` : `${at}: ${issue.message}`;
  return [errorAt(code, message, { place: json.placeOf(path), help })];
}

function compareLines(left: Diagnostic, right: Diagnostic): number {
  if (left.place?.kind !== 'file' || right.place?.kind !== 'file') return 0;
  return (left.place.line ?? 0) - (right.place.line ?? 0);
}

/** Checks the text of one profile file; `file` is what diagnostics call it. */
export function parseProfile(text: string, file: string): Result<Profile> {
  const json = readPlacedJson(text, file);
  if (!json.ok) return json;
  const checked = profileSchema.safeParse(json.value.value, { reportInput: true });
  if (checked.success) return succeed(checked.data);
  const found = checked.error.issues.flatMap((issue) => diagnose(issue, json.value));
  return fail(...found.sort(compareLines));
}

/** A file, not the name of a shipped profile. */
function isFile(nameOrFile: string): boolean {
  return nameOrFile.includes('/') || nameOrFile.endsWith('.json');
}

async function shippedNames(): Promise<readonly string[]> {
  const files = await readdir(SHIPPED);
  return files
    .filter((file) => file.endsWith('.json') && file !== SCHEMA_FILE)
    .map((file) => basename(file, '.json'))
    .sort();
}

/** Reads and checks one file; `shownAs` is what diagnostics call it. */
export async function readProfileFile(path: string, shownAs: string): Promise<Result<Profile>> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return fail(
      errorAt('profile/unreadable', `cannot read the profile: ${why}`, {
        help: 'check the path; shipped profiles are named without `/` and `.json`',
        place: { kind: 'file', file: shownAs, line: null, column: null },
      }),
    );
  }
  return parseProfile(text, shownAs);
}

/** The profile of that name in hw-profiles/, or in that file (a string with `/` or ending in `.json`). */
export async function loadProfile(nameOrFile: string): Promise<Result<Profile>> {
  if (isFile(nameOrFile)) return readProfileFile(nameOrFile, nameOrFile);
  const names = await shippedNames();
  if (!names.includes(nameOrFile)) {
    return fail(
      errorAt('profile/unknown-name', `there is no profile \`${nameOrFile}\``, {
        help: `known are ${names.join(', ')}; your own file is given with its path`,
      }),
    );
  }
  return readProfileFile(join(SHIPPED, `${nameOrFile}.json`), `hw-profiles/${nameOrFile}.json`);
}

/** Every shipped profile, by name. */
export async function loadShippedProfiles(): Promise<Result<readonly Profile[]>> {
  const profiles: Profile[] = [];
  for (const name of await shippedNames()) {
    const loaded = await loadProfile(name);
    if (!loaded.ok) return loaded;
    profiles.push(loaded.value);
  }
  return succeed(profiles);
}
