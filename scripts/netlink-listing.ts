/** A value of `width` bits loaded from `base` at bit `offset`: ((load & mask) ^ xor) << shift. */
export interface Load {
  readonly base: string;
  readonly offset: number;
  readonly width: number;
  readonly mask: bigint;
  readonly xor: bigint;
  readonly shift: number;
}

/** Collects tests into groups that are cut where something else happens. */
export interface Collector {
  readonly equal: (load: Load, value: bigint) => void;
  readonly other: (text: string) => void;
  readonly step: (kind: string) => void;
  readonly tokens: () => readonly string[];
}

const INDEX_FIELDS = /^meta [io]if$/;

/** Load, operator and values as text; interface indices are names for us, so they are left out. */
export function describe(load: Load, operator: string, ...values: readonly bigint[]): string {
  if (INDEX_FIELDS.test(load.base)) return `${load.base} ${operator}`;
  const { base, offset, width, mask, shift } = load;
  const isExact = operator === 'eq' || operator === 'neq';
  if (isExact && load.shift === 0 && width > 8 && (mask & 0xffn) === 0n) {
    // nft loads only the bytes that a prefix covers.
    const shorter = { ...load, width: width - 8, mask: mask >> 8n, xor: load.xor >> 8n };
    return describe(shorter, operator, ...values.map((value) => value >> 8n));
  }
  // An exact comparison of `x ^ c` is one of `x` with another value.
  const fold = isExact ? load.xor : 0n;
  const xor = load.xor ^ fold;
  const text = values.map((value) => (value ^ fold).toString(16));
  return `${base}@${offset}+${width}&${mask.toString(16)}^${xor.toString(16)}<<${shift} ${operator} ${text.join(' ')}`;
}

export function collect(): Collector {
  const tokens: string[] = [];
  let bits = new Map<string, string>();
  let others: string[] = [];
  const flush = (): void => {
    if (bits.size > 0 || others.length > 0) {
      const equalities = [...bits].map(([key, value]) => `${key}=${value}`).sort();
      tokens.push([...equalities, ...others.sort()].join('\n'));
    }
    bits = new Map();
    others = [];
  };
  return {
    equal: (load, value) => {
      if (load.shift !== 0) {
        others.push(describe(load, 'eq', value));
        return;
      }
      if (INDEX_FIELDS.test(load.base)) {
        bits.set(load.base, '*');
        return;
      }
      const expected = value ^ load.xor;
      if ((expected & ~load.mask) !== 0n) others.push(`impossible ${describe(load, 'eq', value)}`);
      for (let bit = 0; bit < load.width; bit += 1) {
        const place = BigInt(load.width - 1 - bit);
        if (((load.mask >> place) & 1n) === 0n) continue;
        const key = `${load.base}:${String(load.offset + bit).padStart(5, '0')}`;
        const wanted = String((expected >> place) & 1n);
        const known = bits.get(key);
        bits.set(key, known === undefined || known === wanted ? wanted : 'contradiction');
      }
    },
    other: (text) => {
      others.push(text);
    },
    step: (kind) => {
      flush();
      if (kind !== 'effect' || tokens.at(-1) !== 'effect') tokens.push(kind);
    },
    tokens: () => {
      flush();
      return tokens;
    },
  };
}

interface Register {
  load: Load;
  /** Memory holds the value least significant byte first. */
  readonly hostOrder: boolean;
  ordered: boolean;
}

const META_NAMES: Readonly<Record<string, readonly [name: string, bytes: number, host: boolean]>> =
  {
    protocol: ['meta protocol', 2, false],
    nfproto: ['meta nfproto', 1, false],
    l4proto: ['meta l4proto', 1, false],
    len: ['meta length', 4, true],
    pkttype: ['meta pkttype', 1, false],
    mark: ['meta mark', 4, true],
    priority: ['meta priority', 4, true],
    iif: ['meta iif', 4, true],
    oif: ['meta oif', 4, true],
    iifname: ['meta iifname', 16, false],
    oifname: ['meta oifname', 16, false],
    iifgroup: ['meta iifgroup', 4, true],
    oifgroup: ['meta oifgroup', 4, true],
    iiftype: ['meta iiftype', 2, true],
    oiftype: ['meta oiftype', 2, true],
  };

const BASES: Readonly<Record<string, string>> = { link: 'll', network: 'nh', transport: 'th' };

/** Memory bytes of registers printed as little-endian 32-bit words. */
function memory(words: readonly string[]): number[] {
  return words.flatMap((word) => {
    const value = Number.parseInt(word, 16) >>> 0;
    return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
  });
}

function integer(bytes: readonly number[], little: boolean): bigint {
  const ordered = little ? [...bytes].reverse() : bytes;
  return ordered.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

function constantOf(register: Register, words: readonly string[]): bigint {
  const bytes = memory(words).slice(0, register.load.width / 8);
  while (bytes.length < register.load.width / 8) bytes.push(0);
  return integer(bytes, register.hostOrder && !register.ordered);
}

/** First 32-bit word of a register; 1..4 are the old 128-bit ones. */
function wordIndex(register: number): number {
  return register <= 4 ? (register - 1) * 4 : register - 8;
}

/** One block of a listing: set contents by order of appearance, then instructions. */
export interface Block {
  readonly rule: string;
  readonly family: string;
  readonly sets: readonly (readonly string[])[];
  readonly instructions: readonly string[];
}

export function parseBlocks(text: string): readonly Block[] {
  return text.split(/^# ?(?=\S)/m).flatMap((part): Block[] => {
    const lines = part.split('\n');
    const rule = (lines[0] ?? '').trim();
    if (rule === '') return [];
    const sets: string[][] = [];
    const instructions: string[] = [];
    let family = '';
    for (const line of lines.slice(1)) {
      const plain = line.trim();
      if (plain.startsWith('[ ')) instructions.push(plain.slice(2, -1).trim());
      else if (plain.startsWith('element')) {
        const items = plain.split(/\[end\]/).map((item) => item.replace(/^\s*element/, '').trim());
        (sets.at(-1) ?? []).push(...items.filter((item) => item !== ''));
      } else if (/^__(set|map|objmap)%d\s+\S+\s+[0-9a-f]+(\s+size\s+\d+)?$/.test(plain)) {
        if (!/\s0$/.test(plain)) sets.push([]);
      } else if (/^(ip|ip6|inet|arp|bridge|netdev)\b/.test(plain))
        family = plain.split(' ')[0] ?? '';
    }
    return [{ rule, family, sets, instructions }];
  });
}

function splitParts(registers: readonly Register[], words: readonly string[]): bigint {
  let at = 0;
  let value = 0n;
  for (const register of registers) {
    const count = Math.ceil(register.load.width / 32);
    value =
      (value << BigInt(register.load.width)) | constantOf(register, words.slice(at, at + count));
    at += count;
  }
  return value;
}

/** `lo-hi:verdict` of every element, in order. */
function readSet(registers: readonly Register[], items: readonly string[]): readonly string[] {
  const width = registers.reduce((sum, { load }) => sum + load.width, 0);
  const top = (1n << BigInt(width)) - 1n;
  const show = (lo: bigint, hi: bigint, verdict: string): string =>
    registers.some(({ load }) => INDEX_FIELDS.test(load.base))
      ? `* ${verdict}`
      : `${lo.toString(16)}-${hi.toString(16)} ${verdict}`;
  const catchall = items.find((item) => item.startsWith(':'));
  const rest = items.filter((item) => item !== catchall);
  const parsed = rest.map((item) => {
    const [key = '', data = ''] = item.split(/\s+:\s+/);
    const [low = '', high] = key.split(/\s+-\s+/);
    const verdict = data.replace(/\s*\d+$/, '').trim();
    const lo = splitParts(registers, low.trim().split(/\s+/));
    const hi = high === undefined ? null : splitParts(registers, high.trim().split(/\s+/));
    const isEnd = / ?1$/.test(data) && verdict === '';
    return { lo, hi, verdict: verdict.replace(/^(jump|goto) -> /, '$1 '), isEnd };
  });
  const isInterval = parsed.some(({ isEnd }) => isEnd);
  const sorted = parsed.sort((a, b) => (a.lo < b.lo ? -1 : a.lo > b.lo ? 1 : a.isEnd ? -1 : 1));
  if (catchall !== undefined) {
    // The element `*` stands for every key that no other element holds.
    const verdict = catchall
      .replace(/^:\s*/, '')
      .replace(/\s*\d+$/, '')
      .trim();
    const texts = sorted.map((element) => show(element.lo, element.lo, element.verdict));
    let next = 0n;
    for (const { lo } of sorted) {
      if (lo > next) texts.push(show(next, lo - 1n, verdict));
      next = lo + 1n;
    }
    return [...texts, show(next, top, verdict)].sort();
  }
  return sorted
    .flatMap(({ lo, hi, verdict, isEnd }, index): string[] => {
      if (isEnd) return [];
      if (hi !== null) return [show(lo, hi, verdict)];
      if (!isInterval) return [show(lo, lo, verdict)];
      const next = sorted.slice(index + 1).find((other) => other.lo > lo);
      return [show(lo, next === undefined ? top : next.lo - 1n, verdict)];
    })
    .sort();
}

export function lookupText(
  loads: readonly Load[],
  inverted: boolean,
  set: string | readonly string[],
): string {
  const key = loads.map((load) => describe(load, '')).join('. ');
  const shown = typeof set === 'string' ? `@${set}` : set.join(', ');
  return `${inverted ? 'not ' : ''}in ${key} { ${shown} }`;
}

/** Registers and output while the instructions of one block are followed. */
interface Machine {
  readonly out: Collector;
  readonly registers: Map<number, Register>;
  readonly sets: (readonly string[])[];
}

type Instruction = (machine: Machine, parts: readonly string[], line: string) => void;

function register(machine: Machine, text: string | undefined): Register {
  const found = machine.registers.get(wordIndex(Number(text)));
  if (found === undefined) throw new Error(`register ${text} has not been loaded`);
  return found;
}

/** All registers from the first of a key on: the parts of a concatenation. */
function keyRegisters(machine: Machine, first: string | undefined): readonly Register[] {
  return [...machine.registers]
    .filter(([word]) => word >= wordIndex(Number(first)))
    .sort(([a], [b]) => a - b)
    .map(([, value]) => value);
}

function keysOnly(items: readonly string[]): readonly string[] {
  return items.map((item) => `${item.split(' ')[0]} `);
}

const loadPayload: Instruction = ({ registers }, [length, header, offset, target]) => {
  const width = Number(length) * 8;
  const base = BASES[header ?? ''] ?? 'unknown';
  const load = { base, offset: Number(offset) * 8, width, ...plain(width) };
  registers.set(wordIndex(Number(target)), { load, hostOrder: false, ordered: false });
};

const loadMeta: Instruction = ({ registers }, [key, target]) => {
  const [base, size, hostOrder] = META_NAMES[key ?? ''] ?? [`meta ${key}`, 4, true];
  const load = { base, offset: 0, width: size * 8, ...plain(size * 8) };
  registers.set(wordIndex(Number(target)), { load, hostOrder, ordered: false });
};

const loadCtState: Instruction = ({ registers }, [target]) => {
  const load = { base: 'ct state', offset: 0, width: 32, ...plain(32) };
  registers.set(wordIndex(Number(target)), { load, hostOrder: true, ordered: false });
};

const maskXor: Instruction = (machine, [, source, maskWords, xorWords]) => {
  const value = register(machine, source);
  const mask = constantOf(value, (maskWords ?? '').trim().split(/\s+/));
  const xor = constantOf(value, (xorWords ?? '').trim().split(/\s+/));
  const { load } = value;
  const back = (bits: bigint): bigint =>
    load.shift < 0 ? bits << BigInt(-load.shift) : bits >> BigInt(load.shift);
  value.load = {
    ...load,
    mask: load.mask & back(mask),
    xor: (load.xor & back(mask)) ^ back(xor),
  };
};

const shiftBits: Instruction = (machine, [, source, operator, count]) => {
  const value = register(machine, source);
  const by = Number.parseInt(count ?? '0', 16) * (operator === '<<' ? 1 : -1);
  value.load = { ...value.load, shift: value.load.shift + by };
};

const swapBytes: Instruction = (machine, [target, direction, source]) => {
  const { load, hostOrder } = register(machine, source);
  // Behind ntoh constants are little-endian again.
  const value =
    direction === 'hton'
      ? { load, hostOrder, ordered: true }
      : { load, hostOrder: true, ordered: false };
  machine.registers.set(wordIndex(Number(target)), value);
};

const compareRange: Instruction = (machine, [operator, source, values]) => {
  const value = register(machine, source);
  const words = (values ?? '').split(/\s+/);
  const half = words.length / 2;
  const lo = constantOf(value, words.slice(0, half));
  const hi = constantOf(value, words.slice(half));
  machine.out.other(describe(normal(value.load), `range-${operator}`, lo, hi));
};

const lookUp: Instruction = (machine, [first, name = '', target], line) => {
  const parts = keyRegisters(machine, first);
  const items = name.startsWith('__') ? readSet(parts, machine.sets.shift() ?? []) : name;
  const isData = target !== undefined && target !== '0';
  const shown = isData && typeof items !== 'string' ? keysOnly(items) : items;
  const loads = parts.map(({ load }) => normal(load));
  const text = lookupText(loads, / 0x1/.test(line), shown);
  if (target === '0') machine.out.step(`vmap ${text}`);
  else machine.out.other(text);
  machine.registers.clear();
};

const chooseObject: Instruction = (machine, [first]) => {
  const parts = keyRegisters(machine, first);
  const items = readSet(parts, machine.sets.shift() ?? []);
  const loads = parts.map(({ load }) => normal(load));
  machine.out.other(lookupText(loads, false, keysOnly(items)));
  machine.out.step('effect');
  machine.registers.clear();
};

/** One row an instruction; the first that fits a line is taken, any other line is an effect. */
const INSTRUCTIONS: readonly (readonly [pattern: RegExp, run: Instruction])[] = [
  [/^payload load (\d+)b @ (\w+) header \+ (\d+) => reg (\d+)$/, loadPayload],
  [/^meta load (\w+) => reg (\d+)$/, loadMeta],
  [/^ct load state => reg (\d+)$/, loadCtState],
  [/^bitwise reg (\d+) = \( ?reg (\d+) & ([0-9a-fx ]+) ?\) \^ ([0-9a-fx ]+)$/, maskXor],
  [/^bitwise reg (\d+) = \( reg (\d+) (<<|>>) 0x([0-9a-f]+) \)$/, shiftBits],
  [/^byteorder reg (\d+) = (hton|ntoh)\(reg (\d+), \d+, \d+\)$/, swapBytes],
  [/^range (eq|neq) reg (\d+) (.+)$/, compareRange],
  [/^lookup reg (\d+) set (\S+)(?: dreg (\d+))?/, lookUp],
  [/^objref sreg (\d+) set \S+/, chooseObject],
  [
    /^cmp (\w+) reg (\d+) (.+)$/,
    (machine, [operator = '', source, words = '']) =>
      compare(machine.out, register(machine, source), operator, words.split(/\s+/)),
  ],
  [
    /^immediate reg 0 (.+)$/,
    ({ out }, [verdict = '']) =>
      out.step(`verdict ${verdict.replace(/^(jump|goto) -> /, '$1 ').trim()}`),
  ],
  [/^immediate reg/, () => {}],
  [/^(?:counter|objref type 1 name)/, ({ out }) => out.step('count')],
];

/** Follows a listing's instructions symbolically: what they test, in the form of `Collector`. */
export function readInstructions(block: Block): readonly string[] {
  const machine: Machine = { out: collect(), registers: new Map(), sets: [...block.sets] };
  for (const line of block.instructions) {
    const row = INSTRUCTIONS.find(([pattern]) => pattern.test(line));
    if (row === undefined) machine.out.step('effect');
    else row[1](machine, (row[0].exec(line) ?? []).slice(1), line);
  }
  return machine.out.tokens();
}

function plain(width: number): Pick<Load, 'mask' | 'xor' | 'shift'> {
  return { mask: (1n << BigInt(width)) - 1n, xor: 0n, shift: 0 };
}

/** The same load with a shift to the right undone (values have to be shifted as well). */
export function normal(load: Load): Load {
  return load.shift < 0 ? { ...load, shift: 0 } : load;
}

function compare(out: Collector, register: Register, op: string, words: readonly string[]): void {
  const { load } = register;
  if (load.base.endsWith('ifname') && words.length < 4) {
    // A name with a wildcard is compared on its leading bytes only.
    const bytes = memory(words);
    while (bytes.at(-1) === 0) bytes.pop();
    const kept = BigInt((16 - bytes.length) * 8);
    const mask = (load.mask >> kept) << kept;
    const value = integer(bytes, false) << kept;
    if (op === 'eq') out.equal({ ...load, mask }, value);
    else out.other(describe({ ...load, mask }, op, value));
    return;
  }
  const up = load.shift < 0 ? BigInt(-load.shift) : 0n;
  const value = constantOf(register, words) << up;
  const step = 1n << up;
  const target = normal(load);
  if (op === 'eq') out.equal(target, value);
  else if (op === 'lt') out.other(describe(target, 'lte', value - step));
  else if (op === 'gt') out.other(describe(target, 'gte', value + step));
  else out.other(describe(target, op, value));
}
