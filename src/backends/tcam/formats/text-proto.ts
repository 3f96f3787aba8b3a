/** A message in protobuf's text form: fields in the order they stand in. */
export interface Message {
  readonly fields: readonly (readonly [name: string, value: Message | string | number | boolean])[];
}

const TOKEN =
  /\s+|#[^\n]*|("(?:[^"\\\n]|\\[^\n])*")|(-?\d{1,15}\b|0x[0-9a-fA-F]{1,12}\b)|([A-Za-z_]\w*)|([:{}<>[\],;])/y;

/** Escapes of a string, protobuf's text format: hexadecimal and octal bytes, and C's letters. */
const ESCAPE = /\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))/g;
const LETTERS: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t' };

/** The bytes of a string, one character each. */
function unquote(text: string): string {
  return text
    .slice(1, -1)
    .replaceAll(ESCAPE, (_, hex?: string, octal?: string, letter?: string) =>
      letter === undefined
        ? String.fromCharCode(
            hex === undefined ? Number.parseInt(octal ?? '0', 8) : Number.parseInt(hex, 16),
          )
        : (LETTERS[letter] ?? letter),
    );
}

type Token =
  | { readonly kind: 'text' | 'name' | 'sign'; readonly text: string }
  | { readonly kind: 'number'; readonly value: number };

function tokensOf(text: string): readonly Token[] | null {
  const tokens: Token[] = [];
  const pattern = new RegExp(TOKEN);
  while (pattern.lastIndex < text.length) {
    const match = pattern.exec(text);
    if (match === null) return null;
    const [, quoted, number, name, sign] = match;
    if (quoted !== undefined) tokens.push({ kind: 'text', text: unquote(quoted) });
    else if (number !== undefined) tokens.push({ kind: 'number', value: Number(number) });
    else if (name !== undefined) tokens.push({ kind: 'name', text: name });
    else if (sign !== undefined && sign !== ',' && sign !== ';')
      tokens.push({ kind: 'sign', text: sign });
  }
  return tokens;
}

/** Messages within messages at most. */
const DEPTH_LIMIT = 32;

/** Reads protobuf's text form, as far as P4Runtime's files use it; null when it is none. */
export function parseTextProto(text: string): Message | null {
  const tokens = tokensOf(text);
  if (tokens === null) return null;
  let at = 0;
  const isSign = (sign: string): boolean => {
    const token = tokens[at];
    return token?.kind === 'sign' && token.text === sign;
  };

  function readValue(depth: number): Message['fields'][number][1] | null {
    if (isSign('{')) {
      at += 1;
      const inner = readMessage(depth + 1);
      if (inner === null || !isSign('}')) return null;
      at += 1;
      return inner;
    }
    const token = tokens?.[at];
    at += 1;
    if (token === undefined || token.kind === 'sign') return null;
    if (token.kind === 'number') return token.value;
    if (token.kind === 'text') return token.text;
    return token.text === 'true' || token.text === 'false' ? token.text === 'true' : token.text;
  }

  function readMessage(depth: number): Message | null {
    const fields: Message['fields'][number][] = [];
    if (depth > DEPTH_LIMIT) return null;
    for (let name = tokens?.[at]; name?.kind === 'name'; name = tokens?.[at]) {
      at += 1;
      if (isSign(':')) at += 1;
      const value = readValue(depth);
      if (value === null) return null;
      fields.push([name.text, value]);
    }
    return { fields };
  }

  const message = readMessage(0);
  return at === tokens.length ? message : null;
}

/** All messages that a message has under a name. */
export function messagesIn({ fields }: Message, name: string): readonly Message[] {
  return fields.flatMap(([own, value]) => (own === name && typeof value === 'object' ? value : []));
}

/** The first number of that name, or null. */
export function numberIn({ fields }: Message, name: string): number | null {
  const found = fields.find(([own, value]) => own === name && typeof value === 'number')?.[1];
  return typeof found === 'number' ? found : null;
}

/** The first string or name of an enum of that name, or null. */
export function textIn({ fields }: Message, name: string): string | null {
  const found = fields.find(([own, value]) => own === name && typeof value === 'string')?.[1];
  return typeof found === 'string' ? found : null;
}
