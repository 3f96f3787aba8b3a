import type { Assembly } from './assemble.ts';
import { mapVariableBytes, writeMapBtf } from './btf.ts';
import { createByteWriter, createStringTable } from './byte-writer.ts';
import {
  EHDR_BYTES,
  EM_BPF,
  ET_REL,
  IDENT,
  R_BPF_64_64,
  SHDR_BYTES,
  SHF,
  SHT,
  STB,
  STT,
  SYM_BYTES,
} from './elf-format.ts';
import type { MapDefinition } from './maps.ts';
import { SLOT_BYTES } from './opcodes.ts';

/** A program of an object; programs of one section stand in it in order. */
export interface ObjectProgram {
  /** What loaders go by: `xdp`. */
  readonly section: string;
  /** At most 15 letters, digits, `_`, `.` (BPF_OBJ_NAME_LEN). */
  readonly name: string;
  readonly assembly: Pick<Assembly, 'code' | 'relocations'>;
}

/** Initialised data that `ld_map_value` addresses; libbpf makes it a map of one entry. */
export interface ObjectData {
  /** `.rodata` is frozen once loaded, `.data` stays writable; both take a suffix (`.data.tree`). */
  readonly name: string;
  readonly content: Uint8Array;
}

/** A relocatable BPF object. */
export interface BpfObject {
  readonly programs: readonly ObjectProgram[];
  /** The kernel knows `GPL`, `GPL v2`, `Dual BSD/GPL`...; `null` writes no license section. */
  readonly license: string | null;
  readonly maps: readonly MapDefinition[];
  readonly data: readonly ObjectData[];
}

interface Section {
  readonly name: string;
  readonly type: number;
  readonly flags: number;
  readonly content: Uint8Array;
  readonly align: number;
  readonly entrySize: number;
  /** Names of the sections that sh_link and sh_info point at, or sh_info's number. */
  readonly link: string | null;
  readonly info: string | number;
}

interface ObjectSymbol {
  readonly name: string;
  readonly binding: number;
  readonly type: number;
  readonly section: string;
  readonly value: number;
  readonly size: number;
}

/** Names the kernel takes for programs and maps: bpf_obj_name_cpy(), kernel/bpf/syscall.c. */
const OBJECT_NAME = /^[A-Za-z0-9_.]{1,15}$/;

function plainSection(name: string, flags: number, content: Uint8Array, align: number): Section {
  return {
    name,
    type: SHT.progbits,
    flags,
    content,
    align,
    entrySize: 0,
    link: null,
    info: 0,
  };
}

function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const writer = createByteWriter();
  for (const part of parts) writer.bytes(part);
  return writer.finish();
}

/** Each program with the byte where it starts in its section, by section in order of appearance. */
function groupPrograms(
  programs: readonly ObjectProgram[],
): ReadonlyMap<string, readonly { readonly program: ObjectProgram; readonly start: number }[]> {
  const groups = new Map<string, { readonly program: ObjectProgram; readonly start: number }[]>();
  for (const program of programs) {
    if (!OBJECT_NAME.test(program.name)) {
      throw new Error(`bug: ${program.name} is no name for a program`);
    }
    const group = groups.get(program.section) ?? [];
    const last = group.at(-1);
    const start = last === undefined ? 0 : last.start + last.program.assembly.code.length;
    groups.set(program.section, [...group, { program, start }]);
  }
  return groups;
}

/** Symbols, local ones first as ELF wants: sections with data, then programs, then maps. */
function collectSymbols(object: BpfObject): readonly ObjectSymbol[] {
  const sections = object.data.map(
    ({ name }): ObjectSymbol => ({
      name: '',
      binding: STB.local,
      type: STT.section,
      section: name,
      value: 0,
      size: 0,
    }),
  );
  const programs = [...groupPrograms(object.programs).values()].flat().map(
    ({ program, start }): ObjectSymbol => ({
      name: program.name,
      binding: STB.global,
      type: STT.func,
      section: program.section,
      value: start,
      size: program.assembly.code.length,
    }),
  );
  let value = 0;
  const maps = object.maps.map((map): ObjectSymbol => {
    if (!OBJECT_NAME.test(map.name)) throw new Error(`bug: ${map.name} is no name for a map`);
    const size = mapVariableBytes(map);
    value += size;
    return {
      name: map.name,
      binding: STB.global,
      type: STT.object,
      section: '.maps',
      value: value - size,
      size,
    };
  });
  return [...sections, ...programs, ...maps];
}

/*
 * Elf64_Rel, little-endian:
 *
 *   bytes 0-7: r_offset            bytes 8-11: type   bytes 12-15: symbol index
 */
function writeRelocations(
  group: readonly { readonly program: ObjectProgram; readonly start: number }[],
  symbols: readonly ObjectSymbol[],
): Uint8Array {
  const writer = createByteWriter();
  for (const { program, start } of group) {
    for (const { insnIndex, map, kind } of program.assembly.relocations) {
      const symbol = symbols.findIndex((candidate) =>
        kind === 'map'
          ? candidate.type === STT.object && candidate.name === map
          : candidate.type === STT.section && candidate.section === map,
      );
      if (symbol === -1) throw new Error(`bug: ${program.name} uses ${map}, which is not defined`);
      writer.u64(start + insnIndex * SLOT_BYTES);
      writer.u32(R_BPF_64_64, symbol + 1); // symbol 0 is the null symbol
    }
  }
  return writer.finish();
}

/*
 * Elf64_Sym, little-endian:
 *
 *   0-3: name   4: binding:4 type:4   5: visibility   6-7: section   8-15: value   16-23: size
 */
function writeSymbols(
  symbols: readonly ObjectSymbol[],
  names: (text: string) => number,
  sectionIndex: (name: string) => number,
): Uint8Array {
  const writer = createByteWriter();
  writer.bytes(new Uint8Array(SYM_BYTES));
  for (const symbol of symbols) {
    writer.u32(names(symbol.name));
    writer.u8((symbol.binding << 4) | symbol.type, 0);
    writer.u16(sectionIndex(symbol.section));
    writer.u64(symbol.value, symbol.size);
  }
  return writer.finish();
}

/** All sections but the symbol and string tables, in file order. */
function collectSections(object: BpfObject, symbols: readonly ObjectSymbol[]): readonly Section[] {
  const sections: Section[] = [];
  for (const [name, group] of groupPrograms(object.programs)) {
    const code = concatenate(group.map(({ program }) => program.assembly.code));
    sections.push(plainSection(name, SHF.alloc | SHF.execinstr, code, 8));
    const relocations = writeRelocations(group, symbols);
    if (relocations.length === 0) continue;
    sections.push({
      name: `.rel${name}`,
      type: SHT.rel,
      flags: SHF.infoLink,
      content: relocations,
      align: 8,
      entrySize: 16,
      link: '.symtab',
      info: name,
    });
  }
  if (object.license !== null) {
    const text = new TextEncoder().encode(`${object.license}\0`);
    sections.push(plainSection('license', SHF.alloc | SHF.write, text, 1));
  }
  for (const { name, content } of object.data) {
    const flags = name.startsWith('.rodata') ? SHF.alloc : SHF.alloc | SHF.write;
    sections.push(plainSection(name, flags, content, 8));
  }
  if (object.maps.length > 0) {
    const bytes = object.maps.reduce((sum, map) => sum + mapVariableBytes(map), 0);
    sections.push(plainSection('.maps', SHF.alloc | SHF.write, new Uint8Array(bytes), 8));
    sections.push(plainSection('.BTF', 0, writeMapBtf(object.maps), 4));
  }
  return sections;
}

/** Adds `.symtab`, `.strtab` and `.shstrtab`, whose contents depend on what is there. */
function addTables(
  sections: readonly Section[],
  symbols: readonly ObjectSymbol[],
): readonly Section[] {
  const names = sections.map(({ name }) => name);
  const strings = createStringTable();
  const symtab = writeSymbols(symbols, strings.offset, (name) => names.indexOf(name) + 1);
  const locals = symbols.filter(({ binding }) => binding === STB.local).length;
  const headings = createStringTable();
  for (const name of [...names, '.symtab', '.strtab', '.shstrtab']) headings.offset(name);
  return [
    ...sections,
    {
      ...plainSection('.symtab', 0, symtab, 8),
      type: SHT.symtab,
      entrySize: SYM_BYTES,
      link: '.strtab',
      info: locals + 1, // index of the first global symbol
    },
    { ...plainSection('.strtab', 0, strings.finish(), 1), type: SHT.strtab },
    { ...plainSection('.shstrtab', 0, headings.finish(), 1), type: SHT.strtab },
  ];
}

/*
 * Elf64_Shdr, little-endian:
 *
 *   0: name   4: type   8: flags   16: addr   24: offset   32: size   40: link   44: info
 *   48: addralign   56: entsize
 */
function writeHeaders(sections: readonly Section[], offsets: readonly number[]): Uint8Array {
  const index = (name: string): number =>
    sections.findIndex((section) => section.name === name) + 1;
  const headings = createStringTable();
  const writer = createByteWriter();
  writer.bytes(new Uint8Array(SHDR_BYTES));
  sections.forEach((section, position) => {
    writer.u32(headings.offset(section.name), section.type);
    writer.u64(section.flags, 0, offsets[position] ?? 0, section.content.length);
    writer.u32(section.link === null ? 0 : index(section.link));
    writer.u32(typeof section.info === 'number' ? section.info : index(section.info));
    writer.u64(section.align, section.entrySize);
  });
  return writer.finish();
}

/*
 * Elf64_Ehdr, little-endian:
 *
 *   0: e_ident   16: type   18: machine   20: version   24: entry   32: phoff   40: shoff
 *   48: flags   52: ehsize   54: phentsize   56: phnum   58: shentsize   60: shnum   62: shstrndx
 *
 * The file is this header, the sections' contents, then the section headers.
 */
export function writeElf(object: BpfObject): Uint8Array {
  const symbols = collectSymbols(object);
  const sections = addTables(collectSections(object, symbols), symbols);
  const body = createByteWriter();
  body.bytes(new Uint8Array(EHDR_BYTES));
  const offsets = sections.map(({ content, align }) => {
    body.align(align);
    const offset = body.length();
    body.bytes(content);
    return offset;
  });
  body.align(8);
  const headersAt = body.length();
  body.bytes(writeHeaders(sections, offsets));

  const header = createByteWriter();
  header.u8(...IDENT);
  header.align(16);
  header.u16(ET_REL, EM_BPF);
  header.u32(1);
  header.u64(0, 0, headersAt);
  header.u32(0);
  header.u16(EHDR_BYTES, 0, 0, SHDR_BYTES, sections.length + 1, sections.length);
  const file = body.finish();
  file.set(header.finish(), 0);
  return file;
}
