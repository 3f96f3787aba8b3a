import { type Facts, nothingKnown } from '../ir/facts.ts';
import { type PlacedJson, readPlacedJson } from '../profile/json-places.ts';
import { errorAt, fail, type Result, succeed } from '../support/diagnostics.ts';
import { addFacts, FACT_FORMS, type GivenFact, isFactName } from './facts.ts';
import { readTextFile } from './read-file.ts';

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A fact's values: one string, or a list of them. */
function valuesOf(value: unknown): readonly string[] | null {
  const list = Array.isArray(value) ? (value as readonly unknown[]) : [value];
  return list.every((item) => typeof item === 'string') ? list : null;
}

function readFact(
  facts: Facts,
  name: string,
  value: unknown,
  { placeOf, placeOfKey }: PlacedJson,
): Result<Facts> {
  if (!isFactName(name)) {
    return fail(
      errorAt('facts/unknown', `there is no fact \`${name}\``, {
        place: placeOfKey([name]),
        help: FACT_FORMS.join(', '),
      }),
    );
  }
  const values = valuesOf(value);
  if (values === null) {
    return fail(
      errorAt('facts/not-text', `${name}: neither a text nor a list of texts`, {
        place: placeOf([name]),
        help: 'as `plan --json` writes it below `facts`',
      }),
    );
  }
  const added = addFacts(
    facts,
    values.map((one): GivenFact => ({ name, value: one })),
  );
  if (added.ok) return added;
  return fail(...added.diagnostics.map((one) => ({ ...one, place: placeOf([name]) })));
}

/** Reads facts from the text of a JSON object: names as of `--fact`, values a text or a list. */
export function parseFactsFile(text: string, file: string): Result<Facts> {
  const json = readPlacedJson(text, file);
  if (!json.ok) {
    return fail(...json.diagnostics.map((one) => ({ ...one, code: 'facts/json-syntax' })));
  }
  const { value, placeOf } = json.value;
  if (!isObject(value)) {
    const place = placeOf([]);
    return fail(errorAt('facts/not-an-object', 'the file holds no JSON object', { place }));
  }
  let facts = nothingKnown('');
  for (const [name, given] of Object.entries(value)) {
    const added = readFact(facts, name, given, json.value);
    if (!added.ok) return added;
    facts = added.value;
  }
  return succeed(facts);
}

/** As `parseFactsFile`, for `--facts FILE`. */
export async function readFactsFile(file: string): Promise<Result<Facts>> {
  const text = await readTextFile(file, 'facts/unreadable', 'the facts');
  return text.ok ? parseFactsFile(text.value, file) : text;
}
