import { isObject, member, soleEntry, textMember } from './json.ts';

/** Elements of anonymous sets that are written out; what is beyond is an ellipsis. */
const MOST_ELEMENTS = 16;

function quote(text: string): string {
  return `"${text}"`;
}

function renderList(list: readonly unknown[], render: (item: unknown) => string): string {
  const shown = list.slice(0, MOST_ELEMENTS).map(render);
  if (list.length > MOST_ELEMENTS) shown.push('...');
  return shown.join(', ');
}

function renderSet(list: unknown): string {
  if (!Array.isArray(list)) return renderExpression(list);
  return `{ ${renderList(list, renderElement)} }`;
}

function renderElement(item: unknown): string {
  if (Array.isArray(item) && item.length === 2) {
    return `${renderExpression(item[0])} : ${renderData(item[1])}`;
  }
  return renderExpression(item);
}

function renderData(data: unknown): string {
  const entry = soleEntry(data);
  return entry !== null && VERDICTS.has(entry[0])
    ? renderVerdict(entry[0], entry[1])
    : renderExpression(data);
}

const VERDICTS: ReadonlySet<string> = new Set([
  'accept',
  'drop',
  'continue',
  'return',
  'jump',
  'goto',
]);

function renderVerdict(key: string, body: unknown): string {
  const target = textMember(body, 'target');
  return target === null ? key : `${key} ${target}`;
}

function renderOperator(key: string, body: readonly unknown[]): string {
  const flags = key === '|' ? ' | ' : ` ${key} `;
  return body
    .map((part) => {
      const text = renderExpression(part);
      const nested = soleEntry(part);
      const open = Array.isArray(part) || (nested !== null && /^[&|^<>]+$/.test(nested[0]));
      return open
        ? `(${Array.isArray(part) ? part.map(renderExpression).join(' | ') : text})`
        : text;
    })
    .join(flags);
}

function renderPayload(body: unknown): string {
  const base = textMember(body, 'base');
  if (base !== null) {
    return `@${base},${String(member(body, 'offset'))},${String(member(body, 'len'))}`;
  }
  const tunnel = textMember(body, 'tunnel');
  const own = `${textMember(body, 'protocol') ?? '?'} ${textMember(body, 'field') ?? '?'}`;
  return tunnel === null ? own : `${tunnel} ${own}`;
}

/** meta keys that nft prints without the word `meta`. */
const BARE_META: ReadonlySet<string> = new Set([
  'iif',
  'iifname',
  'iifgroup',
  'iiftype',
  'oif',
  'oifname',
  'oifgroup',
  'oiftype',
]);

function renderWords(key: string, body: unknown): string {
  const words = isObject(body)
    ? Object.values(body).map((value) =>
        Array.isArray(value) ? value.map(renderExpression).join(',') : renderExpression(value),
      )
    : body === null
      ? []
      : [renderExpression(body)];
  return [key, ...words].join(' ');
}

/** An expression as nft writes it, as far as JSON tells. */
export function renderExpression(value: unknown): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (Array.isArray(value)) return renderList(value, renderExpression).replaceAll(', ', ',');
  const entry = soleEntry(value);
  if (entry === null) return value === null ? '' : JSON.stringify(value);
  const [key, body] = entry;
  switch (key) {
    case 'payload':
      return renderPayload(body);
    case 'meta': {
      const name = textMember(body, 'key') ?? '?';
      return BARE_META.has(name) ? name : `meta ${name}`;
    }
    case 'ct': {
      const direction = textMember(body, 'dir');
      const name = textMember(body, 'key') ?? '?';
      return direction === null ? `ct ${name}` : `ct ${direction} ${name}`;
    }
    case 'prefix':
      return `${renderExpression(member(body, 'addr'))}/${String(member(body, 'len'))}`;
    case 'range':
      return Array.isArray(body) ? body.map(renderExpression).join('-') : renderExpression(body);
    case 'concat':
      return Array.isArray(body) ? body.map(renderExpression).join(' . ') : renderExpression(body);
    case 'set':
      return renderSet(body);
    case 'elem':
      return renderExpression(member(body, 'val'));
    case 'map':
      return `${renderExpression(member(body, 'key'))} map ${renderExpression(member(body, 'data'))}`;
    default:
      return /^(&|\||\^|<<|>>)$/.test(key) && Array.isArray(body)
        ? renderOperator(key, body)
        : renderWords(key, body);
  }
}

const INTERFACE_KEY = /^[io]if(name)?$/;

function renderMatch(body: unknown): string {
  const left = renderExpression(member(body, 'left'));
  const op = textMember(body, 'op') ?? '==';
  const right = member(body, 'right');
  const written = INTERFACE_KEY.test(left) ? renderNames(right) : renderExpression(right);
  const bare = op === 'in' || (op === '==' && !/[&|^<]/.test(left));
  return bare ? `${left} ${written}` : `${left} ${op} ${written}`;
}

function renderNames(right: unknown): string {
  if (typeof right === 'string') return right.startsWith('@') ? right : quote(right);
  const list = member(right, 'set');
  if (Array.isArray(list)) return `{ ${renderList(list, renderNames)} }`;
  return renderExpression(right);
}

function renderCounter(body: unknown): string {
  if (typeof body === 'string') return `counter name ${quote(body)}`;
  const packets = member(body, 'packets');
  if (packets === undefined) return 'counter';
  return `counter packets ${String(packets)} bytes ${String(member(body, 'bytes'))}`;
}

function renderLimit(body: unknown): string {
  if (!isObject(body)) return `limit name ${quote(String(body))}`;
  const over = member(body, 'inv') === true ? 'over ' : '';
  const unit = textMember(body, 'rate_unit');
  const rate = unit === null || unit === 'packets' ? '' : ` ${unit}`;
  const burst = member(body, 'burst');
  const tail = burst === undefined ? '' : ` burst ${String(burst)} packets`;
  return `limit rate ${over}${String(member(body, 'rate'))}${rate}/${String(member(body, 'per'))}${tail}`;
}

function renderLog(body: unknown): string {
  const parts = ['log'];
  for (const key of ['prefix', 'level', 'group', 'snaplen', 'queue-threshold', 'flags']) {
    const value = member(body, key);
    if (value === undefined) continue;
    parts.push(key, key === 'prefix' ? quote(String(value)) : renderExpression(value));
  }
  return parts.join(' ');
}

function renderReject(body: unknown): string {
  const type = textMember(body, 'type');
  if (type === null) return 'reject';
  const code = textMember(body, 'expr');
  return code === null ? `reject with ${type}` : `reject with ${type} ${code}`;
}

function renderNat(key: string, body: unknown): string {
  const family = textMember(body, 'family');
  const address = member(body, 'addr');
  const port = member(body, 'port');
  const head = family === null ? key : `${key} ${family}`;
  if (address === undefined && port === undefined) return head;
  const to = address === undefined ? '' : renderExpression(address);
  return `${head} to ${to}${port === undefined ? '' : `:${renderExpression(port)}`}`;
}

/** One statement as nft writes it, as far as JSON tells. */
export function renderStatement(statement: unknown): string {
  const entry = soleEntry(statement);
  if (entry === null) return JSON.stringify(statement) ?? '';
  const [key, body] = entry;
  if (VERDICTS.has(key)) return renderVerdict(key, body);
  switch (key) {
    case 'match':
      return renderMatch(body);
    case 'vmap':
      return `${renderExpression(member(body, 'key'))} vmap ${renderExpression(member(body, 'data'))}`;
    case 'counter':
      return renderCounter(body);
    case 'limit':
      return renderLimit(body);
    case 'log':
      return renderLog(body);
    case 'reject':
      return renderReject(body);
    case 'snat':
    case 'dnat':
    case 'masquerade':
    case 'redirect':
      return renderNat(key, body);
    case 'mangle':
      return `${renderExpression(member(body, 'key'))} set ${renderExpression(member(body, 'value'))}`;
    case 'set':
    case 'map': {
      const operation = textMember(body, 'op') ?? 'update';
      const name = textMember(body, key) ?? '@?';
      return `${operation} ${name} { ${renderExpression(member(body, 'elem'))} }`;
    }
    case 'quota':
      return typeof body === 'string' ? `quota name ${quote(body)}` : renderWords(key, body);
    case 'ct count':
      return `ct count ${member(body, 'inv') === true ? 'over ' : ''}${String(member(body, 'val'))}`;
    case 'flow':
      return `flow add ${textMember(body, 'flowtable') ?? '@?'}`;
    default:
      return renderWords(key, body);
  }
}

/** A whole rule on one line, with its comment, without the handle. */
export function renderRule(statements: readonly unknown[], comment: string | null): string {
  const parts = statements.map(renderStatement);
  if (comment !== null) parts.push(`comment ${quote(comment)}`);
  return parts.join(' ');
}
