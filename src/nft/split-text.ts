/** Text of one piece: far below the 212,992 bytes (net.core.wmem_default) that one batch may have. */
const PIECE_LENGTH = 12_000;

/** A statement, or a block with its head, its own statements and where it ends. */
interface Node {
  readonly head: string;
  readonly body: readonly Node[] | null;
}

interface Cursor {
  readonly text: string;
  at: number;
}

/** Skips a quoted text or a comment at the cursor; false when there is none. */
function skipOpaque(cursor: Cursor): boolean {
  const char = cursor.text.charAt(cursor.at);
  if (char !== '"' && char !== '#') return false;
  const end = cursor.text.indexOf(char === '"' ? '"' : '\n', cursor.at + 1);
  cursor.at = end < 0 ? cursor.text.length : char === '"' ? end + 1 : end;
  return true;
}

/** Moves behind the brace that closes the one at the cursor. */
function skipBraces(cursor: Cursor): void {
  let depth = 0;
  while (cursor.at < cursor.text.length) {
    if (skipOpaque(cursor)) continue;
    const char = cursor.text.charAt(cursor.at);
    cursor.at += 1;
    if (char === '{') depth += 1;
    if (char === '}') depth -= 1;
    if (depth === 0) return;
  }
}

const BLOCK = /^\s*(?:add\s+|create\s+)?(?:table|chain|set|map)\s[^=]*$/;

/** Statements up to the closing brace of the block that the cursor is in. */
function readNodes(cursor: Cursor): readonly Node[] {
  const nodes: Node[] = [];
  let from = cursor.at;
  const end = (): void => {
    const head = cursor.text.slice(from, cursor.at).trim();
    if (head !== '' && !head.startsWith('#')) nodes.push({ head, body: null });
  };
  while (cursor.at < cursor.text.length) {
    const char = cursor.text.charAt(cursor.at);
    if (char === '#') {
      end();
      skipOpaque(cursor);
      from = cursor.at;
    } else if (skipOpaque(cursor)) {
      // A quoted text holds nothing of interest.
    } else if (char === '{' && BLOCK.test(cursor.text.slice(from, cursor.at))) {
      const head = cursor.text.slice(from, cursor.at).trim();
      cursor.at += 1;
      nodes.push({ head, body: readNodes(cursor) });
      from = cursor.at;
    } else if (char === '{') {
      skipBraces(cursor);
    } else if (char === '}') {
      end();
      cursor.at += 1;
      return nodes;
    } else if (char === '\\') {
      cursor.at += 2;
    } else if (char === '\n' || char === ';') {
      end();
      cursor.at += 1;
      from = cursor.at;
    } else {
      cursor.at += 1;
    }
  }
  end();
  return nodes;
}

function write(nodes: readonly Node[]): string {
  return nodes
    .map(({ head, body }) => (body === null ? head : `${head} {\n${write(body)}\n}`))
    .join('\n');
}

const DECLARES = /^(type|typeof|policy|comment|device|devices|flags|hook|define|redefine)\b/;

/** The table or chain with what it declares, and without rules and elements. */
function skeleton(node: Node): Node {
  if (node.body === null) return node;
  const inChain = /\bchain\s/.test(node.head);
  const body = node.body
    .filter(({ head, body: inner }) =>
      inChain ? DECLARES.test(head) : inner !== null || !/^elements\b/.test(head),
    )
    .map(skeleton);
  return { ...node, body };
}

function chunks(lines: readonly string[]): readonly (readonly string[])[] {
  const result: string[][] = [];
  let length = PIECE_LENGTH;
  for (const line of lines) {
    if (length + line.length > PIECE_LENGTH) {
      result.push([]);
      length = 0;
    }
    result.at(-1)?.push(line);
    length += line.length + 1;
  }
  return result;
}

function* fill(table: Node, node: Node): Generator<string> {
  const defines = (table.body ?? []).filter(({ head }) => head.startsWith('define'));
  const tableName = table.head.replace(/^(add|create)\s+/, '');
  const name = node.head.replace(/^(add|create)\s+/, '');
  if (/^chain\s/.test(name)) {
    const rules = (node.body ?? [])
      .filter(({ head }) => !DECLARES.test(head))
      .map(({ head }) => head);
    for (const part of chunks(rules)) {
      yield `${tableName} {\n${write(defines)}\n${name} {\n${part.join('\n')}\n}\n}\n`;
    }
    return;
  }
  // A set named again in a block would have to repeat its type.
  const target = `${tableName.replace(/^table\s+/, '')} ${name.replace(/^(set|map)\s+/, '')}`;
  for (const { head } of node.body ?? []) {
    const list = /^elements\s*=\s*\{([\s\S]*)\}\s*$/.exec(head)?.[1];
    if (list === undefined) continue;
    const items = list
      .replace(/#.*$/gm, '')
      .split(',')
      .filter((item) => item.trim() !== '');
    for (const part of chunks(items.map((item) => item.trim()))) {
      yield `${write(defines)}\nadd element ${target} { ${part.join(', ')} }\n`;
    }
  }
}

/**
 * Cuts nft text that is too long for one batch into texts that can be loaded one after the other:
 * first what is declared, then elements and rules in order. Null for text with includes, whose parts
 * cannot be told apart here.
 */
export function splitText(text: string): readonly string[] | null {
  if (/^\s*include\b/m.test(text)) return null;
  const nodes = readNodes({ text, at: 0 });
  const defines = write(nodes.filter(({ head }) => head.startsWith('define')));
  const tables = nodes.filter(({ head, body }) => body !== null && /\btable\s/.test(head));
  // Sets come first: rules name them, they name no rules.
  const parts = tables.flatMap((table) => (table.body ?? []).map((node) => ({ table, node })));
  const sets = parts.filter(({ node }) => /^(add\s+|create\s+)?(set|map)\s/.test(node.head));
  const chains = parts.filter(({ node }) => /^(add\s+|create\s+)?chain\s/.test(node.head));
  const fillings = [...sets, ...chains].flatMap(({ table, node }) => [...fill(table, node)]);
  return [
    `${write(nodes.map(skeleton))}\n`,
    ...fillings.map((filling) => `${defines}\n${filling}`),
  ];
}
