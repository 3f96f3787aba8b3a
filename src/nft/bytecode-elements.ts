import { endianness } from 'node:os';
import type { SetElements, Verdict } from '../ir/ruleset.ts';
import { ones } from '../support/bits.ts';

/** One part of a key as it lies in the kernel's registers. */
export interface KeyPart {
  readonly width: number;
  /** Memory holds the value least significant byte first. */
  readonly little: boolean;
}

/** Whether integers that the kernel keeps in its own order have the least significant byte first. */
export const HOST_LITTLE: boolean = endianness() === 'LE';

/** Memory bytes of registers that are printed as 32-bit words in the order of the host. */
function memory(words: readonly string[]): number[] {
  return words.flatMap((word) => {
    const value = Number.parseInt(word, 16) >>> 0;
    const bytes = [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
    return HOST_LITTLE ? bytes : bytes.reverse();
  });
}

/** The integer that `words` hold in registers of this part; null when they are not as many. */
export function readWords(part: KeyPart, words: readonly string[]): bigint | null {
  if (words.length !== Math.ceil(part.width / 32)) return null;
  const bytes = memory(words).slice(0, part.width / 8);
  if (part.little) bytes.reverse();
  if (bytes.length <= 4) {
    return BigInt(bytes.reduce((value, byte) => value * 256 + byte, 0));
  }
  return BigInt(`0x${bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('')}`);
}

function readKey(parts: readonly KeyPart[], text: string): bigint | null {
  const words = text.split(' ');
  let at = 0;
  let key = 0n;
  for (const part of parts) {
    const count = Math.ceil(part.width / 32);
    const value = readWords(part, words.slice(at, at + count));
    if (value === null) return null;
    key = parts.length === 1 ? value : (key << BigInt(part.width)) | value;
    at += count;
  }
  return at === words.length ? key : null;
}

interface ElementLine {
  readonly low: string;
  readonly high: string;
  readonly data: string;
  readonly flags: number;
  readonly userdata: string;
}

const END = ' [end]';
const WORDS = /^[0-9a-f]{8}( [0-9a-f]{8})*$/;

/**
 * `element KEY [ - END] : [DATA] FLAGS [end] [userdata = {...}]`, nftnl_set_elem_snprintf of libnftnl;
 * null for a line that is not of this form.
 */
function splitElement(line: string): ElementLine | null {
  const colon = line.indexOf(' : ');
  const end = line.indexOf(END, colon);
  const start = line.indexOf('element ');
  if (colon < 0 || end < 0 || start < 0) return null;
  const key = line.slice(start + 'element '.length, colon);
  const dash = key.indexOf(' - ');
  const low = (dash < 0 ? key : key.slice(0, dash)).trim();
  const high = dash < 0 ? '' : key.slice(dash + ' - '.length).trim();
  const rest = line.slice(colon + ' : '.length, end);
  const space = rest.lastIndexOf(' ');
  const flags = Number(rest.slice(space + 1));
  const isKey = (text: string): boolean => text === '' || WORDS.test(text);
  if (!isKey(low) || !isKey(high) || !Number.isInteger(flags)) return null;
  const data = space < 0 ? '' : rest.slice(0, space).trim();
  return { low, high, data, flags, userdata: line.slice(end + END.length) };
}

/** The number of words in an element's key, or null when the set has none. */
export function keyWords(lines: readonly string[]): number | null {
  for (const line of lines) {
    const low = splitElement(line)?.low ?? '';
    if (low !== '') return low.split(' ').length;
  }
  return null;
}

// NFT_SET_ELEM_INTERVAL_END and NFT_SET_ELEM_CATCHALL of include/uapi/linux/netfilter/nf_tables.h.
const INTERVAL_END = 1;
const CATCHALL = 2;

// NFTNL_UDATA_SET_ELEM_FLAGS with SET_ELEM_F_INTERVAL_OPEN: the element extends to the highest key.
const OPEN = '\\x01\\x04\\x01\\x00\\x00\\x00';

interface Element {
  readonly lo: bigint;
  readonly hi: bigint | null;
  readonly verdict: Verdict | null;
  readonly isEnd: boolean;
}

function readVerdict(data: string): Verdict | null {
  switch (data) {
    case 'accept':
    case 'drop':
    case 'continue':
    case 'return':
      return { kind: data };
    default: {
      const call = /^(jump|goto) -> (\S+)$/.exec(data);
      if (call === null) return null;
      return { kind: call[1] === 'jump' ? 'jump' : 'goto', chain: call[2] ?? '' };
    }
  }
}

/** Contents of a set, and whether a set of intervals would be printed the same. */
export interface BytecodeElements {
  readonly elements: SetElements;
  readonly isAmbiguous: boolean;
}

/** `asIntervals` tells how to read a set that is printed alike with and without intervals. */
export function readBytecodeElements(
  parts: readonly KeyPart[],
  lines: readonly string[],
  withVerdicts: boolean,
  asIntervals: boolean,
): BytecodeElements | null {
  const elements: Element[] = [];
  let catchall: Verdict | 'key' | null = null;
  let isOpen = false;
  for (const line of lines) {
    const found = splitElement(line);
    if (found === null || found.flags > CATCHALL) return null;
    const isEnd = found.flags === INTERVAL_END;
    const verdict = withVerdicts ? readVerdict(found.data) : null;
    if (withVerdicts && verdict === null && !isEnd) return null;
    if (found.userdata.includes(OPEN)) isOpen = true;
    if (found.flags === CATCHALL) {
      catchall = verdict ?? 'key';
      continue;
    }
    const lo = readKey(parts, found.low);
    const hi = found.high === '' ? null : readKey(parts, found.high);
    if (lo === null || (found.high !== '' && hi === null)) return null;
    elements.push({ lo, hi, verdict, isEnd });
  }
  sortElements(elements);
  const hasEnds = isOpen || elements.some(({ isEnd }) => isEnd);
  const isAmbiguous = !hasEnds && elements[0]?.lo === 0n && elements[0].hi === null;
  const isInterval = hasEnds || (isAmbiguous && asIntervals);
  const hasRanges = elements.some(({ lo, hi }) => hi !== null && hi !== lo);
  // The kernel compares bytes, so ranges of integers in the order of the host are something else.
  const isOrdered = parts.every(({ width, little }) => !little || width === 8);
  if ((isInterval || hasRanges) && !isOrdered) return null;
  const filled = closeElements(parts, elements, isInterval);
  if (filled === null) return null;
  if (catchall !== null) {
    if (parts.length !== 1) return null;
    fillGaps(filled, parts[0]?.width ?? 0, catchall === 'key' ? null : catchall);
  }
  const isExact = filled.lo.every((lo, index) => lo === filled.hi[index]);
  return {
    elements: {
      parts: parts.map(({ width }) => width),
      lo: filled.lo,
      hi: isExact ? filled.lo : filled.hi,
      verdicts: withVerdicts ? filled.verdicts : null,
    },
    isAmbiguous,
  };
}

function sortElements(elements: Element[]): void {
  elements.sort((a, b) => {
    if (a.lo !== b.lo) return a.lo < b.lo ? -1 : 1;
    return a.isEnd === b.isEnd ? 0 : a.isEnd ? -1 : 1;
  });
}

interface Columns {
  readonly lo: bigint[];
  readonly hi: bigint[];
  readonly verdicts: Verdict[];
}

function closeElements(
  parts: readonly KeyPart[],
  elements: readonly Element[],
  isInterval: boolean,
): Columns | null {
  const columns: Columns = { lo: [], hi: [], verdicts: [] };
  for (const [index, element] of elements.entries()) {
    if (element.isEnd) continue;
    const next = elements[index + 1];
    const top = (): bigint => (next === undefined ? ones(parts[0]?.width ?? 0) : next.lo - 1n);
    columns.lo.push(element.lo);
    columns.hi.push(element.hi ?? (isInterval ? top() : element.lo));
    if (element.verdict !== null) columns.verdicts.push(element.verdict);
  }
  return isInterval && parts.length > 1 ? null : columns;
}

/** The element `*` stands for every key that no other element holds. */
function fillGaps(columns: Columns, width: number, verdict: Verdict | null): void {
  const count = columns.lo.length;
  let next = 0n;
  const add = (lo: bigint, hi: bigint): void => {
    if (lo > hi) return;
    columns.lo.push(lo);
    columns.hi.push(hi);
    if (verdict !== null) columns.verdicts.push(verdict);
  };
  for (let index = 0; index < count; index += 1) {
    add(next, (columns.lo[index] ?? 0n) - 1n);
    next = (columns.hi[index] ?? 0n) + 1n;
  }
  add(next, ones(width));
}
