import { joinBytes } from './frames.ts';

interface Section {
  readonly name: string;
  readonly type: number;
  readonly flags: bigint;
  readonly data: Uint8Array;
  readonly link: number;
  readonly info: number;
  readonly entrySize: bigint;
}

function text(words: string): Uint8Array {
  return new TextEncoder().encode(words);
}

/** Elf64_Sym: name u32, info u8, other u8, section u16, value u64, size u64 (ELF-64, 5). */
function symbol(name: number, info: number, section: number, size: number): Uint8Array {
  const data = new Uint8Array(24);
  const view = new DataView(data.buffer);
  view.setUint32(0, name, true);
  view.setUint8(4, info);
  view.setUint16(6, section, true);
  view.setBigUint64(16, BigInt(size), true);
  return data;
}

/** Elf64_Shdr (ELF-64, 6), alignment 8. */
function sectionHeader(section: Section, name: number, offset: number): Uint8Array {
  const data = new Uint8Array(64);
  const view = new DataView(data.buffer);
  view.setUint32(0, name, true);
  view.setUint32(4, section.type, true);
  view.setBigUint64(8, section.flags, true);
  view.setBigUint64(24, BigInt(offset), true);
  view.setBigUint64(32, BigInt(section.data.length), true);
  view.setUint32(40, section.link, true);
  view.setUint32(44, section.info, true);
  view.setBigUint64(48, 8n, true);
  view.setBigUint64(56, section.entrySize, true);
  return data;
}

/** Elf64_Ehdr (ELF-64, 4): relocatable (1), machine EM_BPF (247), little-endian. */
function fileHeader(sectionHeaders: number, count: number, names: number): Uint8Array {
  const data = new Uint8Array(64);
  const view = new DataView(data.buffer);
  data.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 1, true);
  view.setUint16(18, 247, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(40, BigInt(sectionHeaders), true);
  view.setUint16(52, 64, true);
  view.setUint16(58, 64, true);
  view.setUint16(60, count, true);
  view.setUint16(62, names, true);
  return data;
}

/** An object with one XDP program (`insns` as 8-byte words) and no maps, to test the lab itself. */
export function minimalXdpObject(insns: readonly bigint[]): Uint8Array {
  const code = new Uint8Array(new BigUint64Array(insns).buffer);
  const plain = { flags: 0n, link: 0, info: 0, entrySize: 0n };
  // SHT_NULL 0, SHT_PROGBITS 1, SHT_SYMTAB 2, SHT_STRTAB 3; STB_GLOBAL << 4 | STT_FUNC is 0x12.
  const sections: readonly Section[] = [
    { ...plain, name: '', type: 0, data: new Uint8Array(0) },
    { ...plain, name: 'xdp', type: 1, flags: 6n, data: code },
    { ...plain, name: 'license', type: 1, flags: 3n, data: text('GPL\0') },
    { ...plain, name: '.strtab', type: 3, data: text('\0program\0') },
    {
      ...{ name: '.symtab', type: 2, flags: 0n, link: 3, info: 1, entrySize: 24n },
      data: joinBytes(new Uint8Array(24), symbol(1, 0x12, 1, code.length)),
    },
  ];
  const names = [...sections.map((section) => section.name), '.shstrtab'];
  const nameData = text(`${names.join('\0')}\0`);
  const all = [...sections, { ...plain, name: '.shstrtab', type: 3, data: nameData }];
  const bodies: Uint8Array[] = [];
  const headers: Uint8Array[] = [];
  let offset = 64;
  let nameAt = 0;
  for (const section of all) {
    const padded = new Uint8Array(Math.ceil(section.data.length / 8) * 8);
    padded.set(section.data);
    bodies.push(padded);
    headers.push(sectionHeader(section, nameAt, section.type === 0 ? 0 : offset));
    offset += padded.length;
    nameAt += section.name.length + 1;
  }
  return joinBytes(fileHeader(offset, all.length, all.length - 1), ...bodies, ...headers);
}
