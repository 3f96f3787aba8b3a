/* Numbers of ELF64 (System V gABI, elf.h) and of its BPF supplement (kernel: llvm_reloc.rst). */

/** Bytes of Elf64_Ehdr, Elf64_Shdr, Elf64_Sym and Elf64_Rel. */
export const EHDR_BYTES = 64;
export const SHDR_BYTES = 64;
export const SYM_BYTES = 24;
export const REL_BYTES = 16;

/** ELF64, little-endian, version 1 of the format: bytes 4-6 of e_ident. */
export const IDENT = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] as const;
/** ET_REL. */
export const ET_REL = 1;
/** EM_BPF. */
export const EM_BPF = 247;

/** sh_type. */
export const SHT = { null: 0, progbits: 1, symtab: 2, strtab: 3, nobits: 8, rel: 9 } as const;
/** sh_flags: written at run time, occupies memory, executable, sh_info is a section index. */
export const SHF = { write: 1, alloc: 2, execinstr: 4, infoLink: 0x40 } as const;

/** Binding (upper half of st_info). */
export const STB = { local: 0, global: 1 } as const;
/** Type (lower half of st_info). */
export const STT = { notype: 0, object: 1, func: 2, section: 3 } as const;

/** R_BPF_64_64: a symbol's address in a two-slot load; libbpf makes it a map or a map value. */
export const R_BPF_64_64 = 1;
