import { errorAt, fail, type Result, succeed } from '../../support/diagnostics.ts';
import type { Relocation } from './assemble.ts';
import { readMapBtf } from './btf-read.ts';
import type { BpfObject, ObjectData, ObjectProgram } from './elf.ts';
import {
  EHDR_BYTES,
  EM_BPF,
  ET_REL,
  IDENT,
  R_BPF_64_64,
  REL_BYTES,
  SHDR_BYTES,
  SHF,
  SHT,
  STT,
  SYM_BYTES,
} from './elf-format.ts';
import type { MapDefinition } from './maps.ts';
import { SLOT_BYTES } from './opcodes.ts';

/** A section as it stands in the file; sections count from 0, which is empty. */
export interface ElfSection {
  readonly name: string;
  readonly type: number;
  readonly flags: number;
  readonly content: Uint8Array;
  readonly link: number;
  readonly info: number;
}

/** A symbol; `section` is a section's number or a reserved one (0 undefined, 0xfff1 absolute). */
export interface ElfSymbol {
  readonly name: string;
  readonly binding: number;
  readonly type: number;
  readonly section: number;
  readonly value: number;
  readonly size: number;
}

/** `symbol` counts from 0, which is empty. */
export interface ElfRelocation {
  /** Number of the section whose bytes are to be changed. */
  readonly section: number;
  readonly offset: number;
  readonly type: number;
  readonly symbol: number;
}

export interface ElfFile {
  readonly sections: readonly ElfSection[];
  readonly symbols: readonly ElfSymbol[];
  readonly relocations: readonly ElfRelocation[];
  readonly maps: readonly MapDefinition[];
}

function bad(message: string): Result<never> {
  return fail(
    errorAt('ebpf/bad-object', message, {
      help: 'give a relocatable 64-bit little-endian BPF object',
    }),
  );
}

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

/** Offsets and sizes are far below 2^53, so a number holds them. */
function u64(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true));
}

/** Bytes at `offset`; `RangeError` beyond the end. */
function bytesAt(data: Uint8Array, offset: number, length: number): Uint8Array {
  if (offset + length > data.length) throw new RangeError('beyond the end');
  return data.subarray(offset, offset + length);
}

function textAt(data: Uint8Array, offset: number): string {
  const end = data.indexOf(0, offset);
  if (end === -1) throw new RangeError('a name without an end');
  return new TextDecoder().decode(data.subarray(offset, end));
}

function readSections(file: Uint8Array): readonly ElfSection[] {
  const header = viewOf(file);
  const count = header.getUint16(60, true);
  const view = viewOf(bytesAt(file, u64(header, 40), count * SHDR_BYTES));
  const headers = Array.from({ length: count }, (_, index) => {
    const at = index * SHDR_BYTES;
    const type = view.getUint32(at + 4, true);
    const isEmpty = type === SHT.null || type === SHT.nobits;
    return {
      nameAt: view.getUint32(at, true),
      type,
      flags: u64(view, at + 8),
      content: isEmpty ? new Uint8Array() : bytesAt(file, u64(view, at + 24), u64(view, at + 32)),
      link: view.getUint32(at + 40, true),
      info: view.getUint32(at + 44, true),
    };
  });
  const names = headers[header.getUint16(62, true)]?.content ?? new Uint8Array();
  return headers.map(({ nameAt, type, flags, content, link, info }) => ({
    name: type === SHT.null ? '' : textAt(names, nameAt),
    type,
    flags,
    content,
    link,
    info,
  }));
}

function readSymbols(sections: readonly ElfSection[]): readonly ElfSymbol[] {
  const table = sections.find(({ type }) => type === SHT.symtab);
  if (table === undefined) return [];
  const strings = sections[table.link]?.content ?? new Uint8Array();
  const view = viewOf(table.content);
  return Array.from({ length: Math.floor(table.content.length / SYM_BYTES) }, (_, index) => {
    const at = index * SYM_BYTES;
    const info = view.getUint8(at + 4);
    return {
      name: textAt(strings, view.getUint32(at, true)),
      binding: info >> 4,
      type: info & 0x0f,
      section: view.getUint16(at + 6, true),
      value: u64(view, at + 8),
      size: u64(view, at + 16),
    };
  });
}

function readRelocations(sections: readonly ElfSection[]): readonly ElfRelocation[] {
  return sections.flatMap(({ type, info, content }) => {
    if (type !== SHT.rel) return [];
    const view = viewOf(content);
    return Array.from({ length: Math.floor(content.length / REL_BYTES) }, (_, index) => ({
      section: info,
      offset: u64(view, index * REL_BYTES),
      type: view.getUint32(index * REL_BYTES + 8, true),
      symbol: view.getUint32(index * REL_BYTES + 12, true),
    }));
  });
}

/** Takes a relocatable BPF object apart; the diagnostic is `ebpf/bad-object`. */
export function readElf(file: Uint8Array): Result<ElfFile> {
  if (file.length < EHDR_BYTES || IDENT.some((byte, index) => file[index] !== byte)) {
    return bad('not an ELF64 little-endian file');
  }
  const view = viewOf(file);
  if (view.getUint16(16, true) !== ET_REL || view.getUint16(18, true) !== EM_BPF) {
    return bad('not a relocatable BPF object');
  }
  try {
    const sections = readSections(file);
    const btf = sections.find(({ name }) => name === '.BTF');
    const maps = btf === undefined ? succeed([]) : readMapBtf(btf.content);
    if (!maps.ok) return maps;
    return succeed({
      sections,
      symbols: readSymbols(sections),
      relocations: readRelocations(sections),
      maps: maps.value,
    });
  } catch (error) {
    if (error instanceof RangeError) return bad(`the file is cut short: ${error.message}`);
    throw error;
  }
}

/** What the loader will put into the load at `offset` of a section, or null when it is no map. */
function readTarget(elf: ElfFile, code: Uint8Array, relocation: ElfRelocation): Relocation | null {
  const symbol = elf.symbols[relocation.symbol];
  const section = elf.sections[symbol?.section ?? 0];
  if (symbol === undefined || section === undefined || relocation.type !== R_BPF_64_64) return null;
  const insnIndex = relocation.offset / SLOT_BYTES;
  if (section.name === '.maps') return { insnIndex, map: symbol.name, kind: 'map', offset: 0 };
  const offset = viewOf(code).getInt32(relocation.offset + 4, true) + symbol.value;
  return { insnIndex, map: section.name, kind: 'value', offset };
}

function readProgram(elf: ElfFile, symbol: ElfSymbol): ObjectProgram | null {
  const section = elf.sections[symbol.section];
  if (section === undefined || (section.flags & SHF.execinstr) === 0) return null;
  const end = symbol.value + symbol.size;
  if (end > section.content.length) return null;
  const code = section.content.slice(symbol.value, end);
  const relocations: Relocation[] = [];
  for (const relocation of elf.relocations) {
    if (relocation.section !== symbol.section) continue;
    const at = relocation.offset - symbol.value;
    if (at < 0 || at + 2 * SLOT_BYTES > symbol.size) continue;
    const target = readTarget(elf, code, { ...relocation, offset: at });
    if (target === null) return null;
    relocations.push(target);
  }
  return { section: section.name, name: symbol.name, assembly: { code, relocations } };
}

/** The object that `writeElf` wrote, or another compiler with the same means. */
export function readObject(file: Uint8Array): Result<BpfObject> {
  const elf = readElf(file);
  if (!elf.ok) return elf;
  const { sections, symbols, maps } = elf.value;
  const programs: ObjectProgram[] = [];
  for (const symbol of symbols.filter(({ type }) => type === STT.func)) {
    const program = readProgram(elf.value, symbol);
    if (program === null) return bad(`program ${symbol.name} has references that are no maps`);
    programs.push(program);
  }
  const license = sections.find(({ name }) => name === 'license');
  const data = sections
    .filter(({ name, type }) => /^\.(ro)?data(\..*)?$/.test(name) && type === SHT.progbits)
    .map(({ name, content }): ObjectData => ({ name, content: content.slice() }));
  return succeed({
    programs,
    license: license === undefined ? null : new TextDecoder().decode(license.content.slice(0, -1)),
    maps,
    data,
  });
}
