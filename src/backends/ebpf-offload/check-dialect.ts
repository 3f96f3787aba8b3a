import type { XdpProfile } from '../../profile/schema.ts';
import { type Diagnostic, errorAt, type Place } from '../../support/diagnostics.ts';
import type { Assembly } from './assemble.ts';
import type { Refused } from './dialect.ts';
import { disassemble } from './disassemble.ts';
import { formatInsn } from './format.ts';
import type { Hook } from './hook.ts';
import { HELPER, type Insn, SKB, XDP_MD } from './insn.ts';
import { isNear, jumpDistance, layOut } from './layout.ts';
import { CALL, JA32 } from './opcodes.ts';
import { constantOf, type Known, sourceValue, trackValues, type Value } from './track.ts';

/** Pseudo source register of a call into the same program: BPF_PSEUDO_CALL, include/uapi/linux/bpf.h. */
const PSEUDO_CALL = 1;
/** Words of 4 bytes: what a device tells apart in a map's value. */
const WORD = 4;

/** MAX_BPF_STACK in include/linux/filter.h, MAX_PACKET_OFF in kernel/bpf/verifier.c. */
const VERIFIED = { stack: 512, packetDepth: 65_535 };

/** What a device refuses, and what else its profile limits. */
type Rule = Refused | 'data-sections' | 'far-jumps' | 'packet-depth' | 'returns' | 'stack';

const MEANING: Readonly<Record<Rule, string>> = {
  'data-sections': 'no read-only data',
  mod: 'no remainder',
  'little-endian': 'no conversion to little-endian',
  'store-immediate': 'stores only registers',
  'store-to-map': 'map values only take atomic additions',
  'variable-map-offset': 'map values are only reached at constant offsets',
  'variable-stack-offset': 'the stack is only reached at constant offsets',
  'wide-multiply': 'no factor beyond 32 bits',
  'divide-by-register': 'no division by a register',
  'atomic-other': 'no atomic operation but a plain addition to a map value',
  'read-of-atomic': 'a word is either read or added to',
  'map-key': 'keys stand on the stack, aligned to 4',
  'context-other': 'of the context only the frame and its end',
  'helper-other': 'no helper but look-ups',
  'mixed-pointers': 'an instruction always reaches the same kind of memory',
  loops: 'jumps only go forward',
  calls: 'no calls inside the program',
  'far-jumps': 'jumps of 16 bits',
  'packet-depth': 'no access so deep in the frame',
  returns: 'nothing returned but the constants for drop and continue',
  stack: 'no access so deep in the stack',
};

interface Access {
  readonly reg: 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10;
  readonly offset: number;
  readonly size: number;
}

function accessOf(insn: Insn): Access | null {
  switch (insn.kind) {
    case 'ldx':
      return { reg: insn.src, offset: insn.offset, size: insn.size };
    case 'stx':
    case 'st':
    case 'atomic_add':
      return { reg: insn.dst, offset: insn.offset, size: insn.size };
    default:
      return null;
  }
}

function pointerOf(insn: Insn, known: Known): Value | null {
  const access = accessOf(insn);
  return access === null ? null : (known.registers[access.reg] ?? null);
}

function isBeyond32(value: Value): boolean {
  return value.kind !== 'number' || value.max > 0xffffffff;
}

function memoryProblems(insn: Insn, known: Known): Refused[] {
  const pointer = pointerOf(insn, known);
  switch (pointer?.kind) {
    case 'mixed':
    case 'nothing':
      return ['mixed-pointers'];
    case 'stack':
      return pointer.offset === null ? ['variable-stack-offset'] : [];
    case 'map-value': {
      const variable: Refused[] = pointer.offset === null ? ['variable-map-offset'] : [];
      return insn.kind === 'stx' || insn.kind === 'st' ? [...variable, 'store-to-map'] : variable;
    }
    case 'context': {
      const words: readonly number[] = [XDP_MD.data, XDP_MD.dataEnd, SKB.data, SKB.dataEnd];
      return insn.kind === 'ldx' && words.includes(insn.offset) ? [] : ['context-other'];
    }
    default:
      return [];
  }
}

function callProblems(helper: number, { registers }: Known): Refused[] {
  if (helper !== HELPER.mapLookupElem) return ['helper-other'];
  const key = registers[2];
  const isAligned = key?.kind === 'stack' && key.offset !== null && key.offset % WORD === 0;
  return isAligned ? [] : ['map-key'];
}

/** What one instruction does that some device refuses. */
function problemsOf(insn: Insn, known: Known): Refused[] {
  const memory = memoryProblems(insn, known);
  switch (insn.kind) {
    case 'alu': {
      if (insn.op === 'mod') return ['mod'];
      if (insn.op === 'div' && insn.src.kind === 'reg') return ['divide-by-register'];
      if (insn.op !== 'mul') return [];
      const factors = [
        sourceValue({ kind: 'reg', reg: insn.dst }, known.registers, insn.width),
        sourceValue(insn.src, known.registers, insn.width),
      ];
      return factors.some(isBeyond32) ? ['wide-multiply'] : [];
    }
    case 'endian':
      return insn.order === 'le' ? ['little-endian'] : [];
    case 'st':
      return [...memory, 'store-immediate'];
    case 'atomic_add':
      return pointerOf(insn, known)?.kind === 'map-value' ? memory : [...memory, 'atomic-other'];
    case 'call':
      return callProblems(insn.helper, known);
    case 'raw':
      return insn.code === CALL && insn.src === PSEUDO_CALL ? ['calls'] : ['atomic-other'];
    default:
      return memory;
  }
}

/** Map words that are added to atomically and read as well, by the instruction that comes second. */
function findReadAtomics(insns: readonly Insn[], values: readonly (Known | null)[]): Set<number> {
  const uses = new Map<string, 'read' | 'atomic'>();
  const wrong = new Set<number>();
  for (const [index, insn] of insns.entries()) {
    const access = accessOf(insn);
    const known = values[index];
    if (access === null || known === null || known === undefined) continue;
    const pointer = known.registers[access.reg];
    if (pointer?.kind !== 'map-value' || pointer.offset === null) continue;
    const use = insn.kind === 'atomic_add' ? 'atomic' : 'read';
    const from = pointer.offset + access.offset;
    for (let at = from - (from % WORD); at < from + access.size; at += WORD) {
      const word = `${pointer.map} ${at}`;
      if ((uses.get(word) ?? use) !== use) wrong.add(index);
      uses.set(word, use);
    }
  }
  return wrong;
}

/** How far behind r10 the stack is reached; what is not known is another rule's. */
function stackDepth(insn: Insn, known: Known): number {
  if (insn.kind === 'call') {
    const key = known.registers[2];
    return key?.kind === 'stack' ? -(key.offset ?? 0) : 0;
  }
  const pointer = pointerOf(insn, known);
  return pointer?.kind === 'stack' ? -((pointer.offset ?? 0) + (accessOf(insn)?.offset ?? 0)) : 0;
}

/** Bytes from the frame's start to the end of what is reached: max_pkt_offset of the kernel's verifier. */
function packetDepth(insn: Insn, known: Known): number {
  const pointer = pointerOf(insn, known);
  const access = accessOf(insn);
  if (pointer?.kind !== 'packet' || access === null) return 0;
  return pointer.most + access.offset + access.size;
}

function isReturned(known: Known, { drop, pass }: Hook): boolean {
  const value = known.registers[0];
  if (value?.kind !== 'number' || value.min !== value.max) return false;
  return [drop, pass].some((verdict) => constantOf(64, verdict) === value.min);
}

/** Limits of the profile that one instruction exceeds. */
function limitProblems(insn: Insn, known: Known, { limits }: XdpProfile, hook: Hook): Rule[] {
  const problems: Rule[] = [];
  if (stackDepth(insn, known) > limits.stack.value) problems.push('stack');
  if (packetDepth(insn, known) > limits.packetDepth.value) problems.push('packet-depth');
  if (insn.kind === 'exit' && !isReturned(known, hook)) problems.push('returns');
  return problems;
}

function placeOf(rule: string): Place {
  return { kind: 'ruleset', path: rule };
}

/** Whether a device asks for more than the kernel's own verifier checks. */
function isStrict({ limits, instructions }: XdpProfile): boolean {
  return (
    instructions.refused.value.length > 0 ||
    limits.stack.value < VERIFIED.stack ||
    limits.packetDepth.value < VERIFIED.packetDepth
  );
}

/**
 * Whether the bytes of a program keep to what a profile says: every violation names the rule and the
 * instruction. Programs that `compileXdp` makes have none; this proves it for each one.
 */
export function checkDialect(assembly: Assembly, profile: XdpProfile, hook: Hook): Diagnostic[] {
  const { dataSections, gotol, refused } = profile.instructions;
  const usesData = assembly.relocations.some(({ kind }) => kind === 'value');
  const strict = isStrict(profile);
  if (!strict && gotol.value.allowed && (dataSections.value || !usesData)) return [];
  const insns = disassemble(assembly.code, assembly);
  const layout = layOut(insns);
  const report = (rule: Rule, index: number): Diagnostic => {
    const insn = insns[index];
    const [text, from] =
      insn === undefined || insn.kind === 'label' ? ['', null] : [formatInsn(insn), insn.rule];
    const message = `insn ${layout.slots[index]} (${text}): ${profile.name} takes ${MEANING[rule]} (${rule})`;
    return errorAt('ebpf/dialect', message, from === null ? {} : { place: placeOf(from) });
  };
  const always = insns.flatMap((insn, index) => {
    const isFar = insn.kind === 'raw' ? insn.code === JA32 : !isNear(jumpDistance(layout, index));
    const found: Rule[] = [];
    if (isFar && !gotol.value.allowed) found.push('far-jumps');
    if (insn.kind === 'ld_map_value' && !dataSections.value) found.push('data-sections');
    return found.map((rule) => report(rule, index));
  });
  if (!strict) return always;
  const values = trackValues(insns);
  if (values === null) {
    const back = insns.findIndex((_, index) => {
      const target = layout.targets[index] ?? -1;
      return target !== -1 && target <= index;
    });
    return [...always, report('loops', back)];
  }
  const isRefused: ReadonlySet<Rule> = new Set(refused.value);
  const readAtomics = findReadAtomics(insns, values);
  const others = insns.flatMap((insn, index) => {
    const known = values[index] ?? null;
    if (known === null) return [];
    const forms: Rule[] = problemsOf(insn, known);
    if (readAtomics.has(index)) forms.push('read-of-atomic');
    const found = forms.filter((rule) => isRefused.has(rule));
    return [...found, ...limitProblems(insn, known, profile, hook)].map((rule) =>
      report(rule, index),
    );
  });
  return [...always, ...others];
}
