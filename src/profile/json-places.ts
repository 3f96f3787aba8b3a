import type { Place, Result } from '../support/diagnostics.ts';
import { errorAt, fail, succeed } from '../support/diagnostics.ts';

/** Steps from the top of a JSON document to one value. */
export type JsonPath = readonly (string | number)[];

/** A JSON document that knows where its parts stand. */
export interface PlacedJson {
  readonly value: unknown;
  /** Place of the value at `path`, or of the nearest value above it. */
  readonly placeOf: (path: JsonPath) => Place;
  /** Place of the member's name `path` ends in. */
  readonly placeOfKey: (path: JsonPath) => Place;
}

const SPACE = /[ \t\n\r]*/y;
const STRING = /"(?:[^"\\\p{Cc}]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/uy;
const SCALAR = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])|(?:true|false|null)\b/y;

/** What stopped the scanner; never leaves this file. */
interface Fault {
  readonly offset: number;
  readonly message: string;
}

interface Scan {
  readonly text: string;
  at: number;
  readonly values: Map<string, number>;
  readonly keys: Map<string, number>;
  fault: Fault | null;
}

function take(scan: Scan, pattern: RegExp): string | null {
  pattern.lastIndex = scan.at;
  const found = pattern.exec(scan.text)?.[0] ?? null;
  scan.at += found?.length ?? 0;
  return found;
}

/** Takes `char` behind blanks, if it is there. */
function takeChar(scan: Scan, char: string): boolean {
  take(scan, SPACE);
  if (scan.text.charAt(scan.at) !== char) return false;
  scan.at += 1;
  return true;
}

function stop(scan: Scan, message: string, offset = scan.at): undefined {
  scan.fault ??= { offset, message };
  return undefined;
}

function scanObject(scan: Scan, path: JsonPath): unknown {
  const members = new Map<string, unknown>();
  if (takeChar(scan, '}')) return {};
  do {
    take(scan, SPACE);
    const offset = scan.at;
    const name = take(scan, STRING);
    if (name === null) return stop(scan, 'expected a member name in double quotes');
    const key = String(JSON.parse(name));
    if (members.has(key)) return stop(scan, `the member \`${key}\` is written twice`, offset);
    if (!takeChar(scan, ':')) return stop(scan, `expected \`:\` after the name \`${key}\``);
    scan.keys.set(JSON.stringify([...path, key]), offset);
    members.set(key, scanValue(scan, [...path, key]));
    if (scan.fault !== null) return undefined;
  } while (takeChar(scan, ','));
  if (!takeChar(scan, '}')) return stop(scan, 'expected `,` or `}`');
  return Object.fromEntries(members);
}

function scanArray(scan: Scan, path: JsonPath): unknown {
  const items: unknown[] = [];
  if (takeChar(scan, ']')) return items;
  do {
    items.push(scanValue(scan, [...path, items.length]));
    if (scan.fault !== null) return undefined;
  } while (takeChar(scan, ','));
  if (!takeChar(scan, ']')) return stop(scan, 'expected `,` or `]`');
  return items;
}

function scanValue(scan: Scan, path: JsonPath): unknown {
  take(scan, SPACE);
  scan.values.set(JSON.stringify(path), scan.at);
  if (takeChar(scan, '{')) return scanObject(scan, path);
  if (takeChar(scan, '[')) return scanArray(scan, path);
  const scalar = take(scan, STRING) ?? take(scan, SCALAR);
  if (scalar === null) return stop(scan, 'expected a JSON value');
  const value: unknown = JSON.parse(scalar);
  return value;
}

/** Reads JSON strictly (a member written twice is an error) and keeps the place of every part. */
export function readPlacedJson(text: string, file: string): Result<PlacedJson> {
  const place = (offset: number): Place => {
    const before = text.slice(0, offset);
    return {
      kind: 'file',
      file,
      line: before.split('\n').length,
      column: offset - before.lastIndexOf('\n'),
    };
  };
  const scan: Scan = { text, at: 0, values: new Map(), keys: new Map(), fault: null };
  const value = scanValue(scan, []);
  take(scan, SPACE);
  if (scan.fault === null && scan.at < text.length) stop(scan, 'expected the end of the file');
  if (scan.fault !== null) {
    const { offset, message } = scan.fault;
    const ended = offset >= text.trimEnd().length;
    return fail(
      errorAt('profile/json-syntax', ended ? `${message}, but the file ends here` : message, {
        place: place(offset),
        help: 'the file must be plain JSON: no comments, no trailing commas',
      }),
    );
  }
  const placeOf = (path: JsonPath): Place => {
    for (let length = path.length; length > 0; length -= 1) {
      const offset = scan.values.get(JSON.stringify(path.slice(0, length)));
      if (offset !== undefined) return place(offset);
    }
    return place(scan.values.get('[]') ?? 0);
  };
  const placeOfKey = (path: JsonPath): Place => {
    const offset = scan.keys.get(JSON.stringify(path));
    return offset === undefined ? placeOf(path) : place(offset);
  };
  return succeed({ value, placeOf, placeOfKey });
}
