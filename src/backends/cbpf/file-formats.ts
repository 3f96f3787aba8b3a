import { errorAt, fail, type Result, succeed } from '../../support/diagnostics.ts';
import { decodeInsn, encodeInsn } from './encode.ts';
import { formatAssembly } from './format.ts';
import type { Insn, RawInsn } from './insn.ts';
import { parseAssembly } from './parse.ts';

/** How a program is written down; the first is the default. */
export const CBPF_FORMATS = ['ddd', 'dd', 'asm', 'bytecode', 'json'] as const;
export type CbpfFormat = (typeof CBPF_FORMATS)[number];

/** `code jt jf k` in decimal. */
function decimal({ code, jt, jf, k }: RawInsn): string {
  return `${code} ${jt} ${jf} ${k}`;
}

function initialiser({ code, jt, jf, k }: RawInsn): string {
  return `{ 0x${code.toString(16)}, ${jt}, ${jf}, 0x${k.toString(16).padStart(8, '0')} },\n`;
}

const WRITERS: Readonly<Record<CbpfFormat, (insns: readonly RawInsn[]) => string>> = {
  ddd: (insns) => `${insns.length}\n${insns.map((insn) => `${decimal(insn)}\n`).join('')}`,
  dd: (insns) => insns.map(initialiser).join(''),
  asm: (insns) => formatAssembly(insns.map(decodeInsn)),
  bytecode: (insns) => `${insns.length},${insns.map(decimal).join(',')}\n`,
  json: (insns) => {
    const rows = insns.map(
      ({ code, jt, jf, k }) => `    { "code": ${code}, "jt": ${jt}, "jf": ${jf}, "k": ${k} }`,
    );
    return `{\n  "format": "nft-offload/cbpf@1",\n  "insns": [\n${rows.join(',\n')}\n  ]\n}\n`;
  },
};

/**
 * A program as text. ddd: what `tcpdump -ddd` prints; dd: initialisers of `struct sock_filter` in C,
 * as `tcpdump -dd`; asm: for bpf_asm; bytecode: for `iptables -m bpf --bytecode` and `tc filter ...
 * bpf bytecode`; json: an object `{ format, insns: [{ code, jt, jf, k }] }`.
 */
export function writeProgram(insns: readonly Insn[], format: CbpfFormat): string {
  return WRITERS[format](insns.map(encodeInsn));
}

const LIMITS = { code: 0xffff, jt: 0xff, jf: 0xff, k: 0xffff_ffff } as const;

/** Four numbers within the fields of `struct sock_filter`. */
function toRaw(numbers: readonly number[]): RawInsn | null {
  const [code, jt, jf, k] = numbers;
  if (code === undefined || jt === undefined || jf === undefined || k === undefined) return null;
  const insn: RawInsn = { kind: 'raw', code, jt, jf, k };
  const fits = (['code', 'jt', 'jf', 'k'] as const).every(
    (name) => Number.isInteger(insn[name]) && insn[name] >= 0 && insn[name] <= LIMITS[name],
  );
  return numbers.length === 4 && fits ? insn : null;
}

/** Lists of numbers, and how many instructions the text itself says there are. */
interface Listed {
  readonly rows: readonly (readonly number[])[];
  readonly count: number;
}

function splitRows(rows: readonly string[]): number[][] {
  return rows.map((row) => row.trim().split(/\s+/).map(Number));
}

function listDecimal(text: string, separator: string): Listed {
  const [count = '', ...rows] = text.trim().split(separator);
  return { rows: splitRows(rows), count: Number(count) };
}

function listInitialisers(text: string): Listed {
  const rows = [...text.matchAll(/\{([^{}]*)\}/g)].map(([, row = '']) =>
    row.split(',').map(Number),
  );
  return { rows, count: rows.length };
}

function listJson(text: string): Listed | null {
  try {
    const { insns } = JSON.parse(text);
    if (!Array.isArray(insns)) return null;
    const rows = insns.map((insn) => [insn?.code, insn?.jt, insn?.jf, insn?.k]);
    return { rows, count: rows.length };
  } catch {
    return null;
  }
}

function listRows(text: string, format: Exclude<CbpfFormat, 'asm'>): Listed | null {
  switch (format) {
    case 'ddd':
      return listDecimal(text, '\n');
    case 'bytecode':
      return listDecimal(text, ',');
    case 'dd':
      return listInitialisers(text);
    case 'json':
      return listJson(text);
  }
}

/** The inverse of `writeProgram`. */
export function readProgram(text: string, format: CbpfFormat): Result<readonly Insn[]> {
  if (format === 'asm') return parseAssembly(text);
  const listed = listRows(text, format);
  const insns = listed?.rows.map(toRaw) ?? [];
  const whole = insns.filter((insn) => insn !== null);
  if (listed === null || whole.length !== listed.count || whole.length !== insns.length) {
    return fail(errorAt('cbpf/program', `this is no classic BPF program in the format ${format}`));
  }
  return succeed(whole.map(decodeInsn));
}
