import { errorAt, fail, type Place, type Result, succeed } from '../support/diagnostics.ts';

/** Line and column, from 1, of a character offset. */
function placeOf(text: string, offset: number, file: string): Place {
  const before = text.slice(0, offset);
  const line = before.split('\n').length;
  return { kind: 'file', file, line, column: offset - before.lastIndexOf('\n') };
}

const SPACE = /[ \t\n\r]*/y;
const SCALAR =
  /"(?:[^"\\\p{Cc}]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/uy;

/** The offset where `text` stops being JSON; its length when it ends too early. */
function findFault(text: string): number {
  const closers: string[] = [];
  let at = 0;
  let expected: 'value' | 'value or close' | 'key' | 'key or close' | 'separator' = 'value';
  const match = (pattern: RegExp): number => {
    pattern.lastIndex = at;
    return pattern.exec(text)?.[0].length ?? 0;
  };
  for (;;) {
    at += match(SPACE);
    if (at >= text.length) return text.length;
    const char = text.charAt(at);
    const closer = closers.at(-1);
    if (expected === 'separator') {
      if (closer === undefined) return at;
      if (char === closer) closers.pop();
      else if (char !== ',') return at;
      else expected = closer === '}' ? 'key' : 'value';
      at += 1;
    } else if (char === closer && expected.endsWith('or close')) {
      closers.pop();
      expected = 'separator';
      at += 1;
    } else if (expected.startsWith('key')) {
      const length = char === '"' ? match(SCALAR) : 0;
      if (length === 0) return at;
      at += length;
      at += match(SPACE);
      if (text.charAt(at) !== ':') return at;
      at += 1;
      expected = 'value';
    } else if (char === '{' || char === '[') {
      closers.push(char === '{' ? '}' : ']');
      expected = char === '{' ? 'key or close' : 'value or close';
      at += 1;
    } else {
      const length = match(SCALAR);
      if (length === 0) return at;
      at += length;
      expected = 'separator';
    }
  }
}

/** Parses JSON; a syntax error is one diagnostic with line and column. */
export function parseJson(text: string, file: string): Result<unknown> {
  try {
    return succeed(JSON.parse(text) as unknown);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    const offset = findFault(text);
    const place = placeOf(text, offset, file);
    if (offset >= text.trimEnd().length) {
      return fail(
        errorAt('read/json-truncated', 'the JSON text ends before it is complete', {
          place,
          help: 'write the listing again: nft -j list ruleset > FILE',
        }),
      );
    }
    const seen = JSON.stringify(text.slice(offset, offset + 20));
    return fail(errorAt('read/json-syntax', `not valid JSON at ${seen}`, { place }));
  }
}
