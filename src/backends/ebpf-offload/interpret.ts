import type { Assembly } from './assemble.ts';
import { disassemble } from './disassemble.ts';
import { formatInsn } from './format.ts';
import { HELPER, type Insn, type RealInsn, type RegNumber, type Source } from './insn.ts';
import { indexLabels, labelIndex, slotsOf } from './layout.ts';
import { createRegion, type Memory, REGION_BASE, REGION_START, type Region } from './memory.ts';
import { prepareStep, REGION, type RunContext, type State, type Step } from './steps.ts';

/** What one run gave. */
export interface Run {
  /** Lower half of r0, unsigned (see `XDP`). */
  readonly action: number;
  /** Instructions executed; a two-slot load counts once. */
  readonly executed: number;
}

/** A loaded program. */
export interface Machine {
  /**
   * Executes it for one packet (up to 65,535 bytes), of which it works on a copy. Maps and data
   * keep what it writes. Throws `bug: insn SLOT (TEXT): ...` where the verifier would have refused:
   * reads of what was never written, reaching out of bounds, endless loops.
   */
  readonly run: (packet: Uint8Array, context?: RunContext) => Run;
  /** The packet as the last run left it. */
  readonly packet: () => Uint8Array;
}

/** Registers an instruction reads, sets and loses, as bits. */
interface RegisterUse {
  readonly needs: number;
  readonly sets: number;
  readonly loses: number;
}

/** Bytes of stack: MAX_BPF_STACK, include/linux/filter.h. */
const STACK_BYTES = 512;
/** Longest packet: what a 16-bit length can say. */
const PACKET_BYTES = 0xffff;
/** Bytes of struct xdp_md. */
const CONTEXT_BYTES = 24;
/** Instructions in one run: as many as the verifier follows, BPF_COMPLEXITY_LIMIT_INSNS. */
const RUN_LIMIT = 1_000_000;
/** r1-r5 as bits, which a call loses. */
const ARGUMENTS = 0b11_1110;
/** r1 (the context) and r10 as bits: what a program starts with. */
const GIVEN = (1 << 1) | (1 << 10);

const noContext: RunContext = { ingressIfindex: 0, rxQueueIndex: 0 };

function bit(reg: RegNumber): number {
  return 1 << reg;
}

function sourceBit(source: Source): number {
  return source.kind === 'reg' ? bit(source.reg) : 0;
}

function registerUse(insn: RealInsn): RegisterUse {
  switch (insn.kind) {
    case 'alu': {
      const needs = sourceBit(insn.src) | (insn.op === 'mov' ? 0 : bit(insn.dst));
      return { needs, sets: bit(insn.dst), loses: 0 };
    }
    case 'endian':
      return { needs: bit(insn.dst), sets: 0, loses: 0 };
    case 'ld_imm64':
    case 'ld_map':
    case 'ld_map_value':
      return { needs: 0, sets: bit(insn.dst), loses: 0 };
    case 'ldx':
      return { needs: bit(insn.src), sets: bit(insn.dst), loses: 0 };
    case 'stx':
    case 'atomic_add':
      return { needs: bit(insn.dst) | bit(insn.src), sets: 0, loses: 0 };
    case 'st':
      return { needs: bit(insn.dst), sets: 0, loses: 0 };
    case 'jump':
      return { needs: bit(insn.dst) | sourceBit(insn.src), sets: 0, loses: 0 };
    case 'call': {
      const needs = insn.helper === HELPER.mapLookupElem ? bit(1) | bit(2) : 0;
      return { needs, sets: bit(0), loses: ARGUMENTS };
    }
    case 'exit':
      return { needs: bit(0), sets: 0, loses: 0 };
    case 'ja':
    case 'raw':
      return { needs: 0, sets: 0, loses: 0 };
  }
}

/** A program ready to run; all arrays are by position among real instructions. */
interface Prepared {
  readonly steps: readonly Step[];
  readonly needs: Uint16Array;
  readonly sets: Uint16Array;
  readonly keeps: Uint16Array;
  readonly describe: (position: number) => string;
}

function prepare(insns: readonly Insn[], state: State): Prepared {
  const labels = indexLabels(insns);
  const positions = new Int32Array(insns.length + 1);
  const slots: number[] = [];
  const real: RealInsn[] = [];
  let slot = 0;
  insns.forEach((insn, index) => {
    positions[index] = real.length;
    if (insn.kind === 'label') return;
    real.push(insn);
    slots.push(slot);
    slot += slotsOf(insn);
  });
  const uses = real.map(registerUse);
  const steps = real.map((insn, position) => {
    const isJump = insn.kind === 'jump' || insn.kind === 'ja';
    const target = isJump ? (positions[labelIndex(labels, insn.target)] ?? -1) : -1;
    return prepareStep(state, insn, { next: position + 1, target });
  });
  return {
    steps,
    needs: Uint16Array.from(uses, ({ needs }) => needs),
    sets: Uint16Array.from(uses, ({ sets }) => sets),
    keeps: Uint16Array.from(uses, ({ loses }) => ~loses),
    describe: (position) => {
      const insn = real[position];
      return insn === undefined ? 'the end' : `insn ${slots[position]} (${formatInsn(insn)})`;
    },
  };
}

/** Runs until `exit` and returns the number of instructions executed. */
function execute({ steps, needs, sets, keeps, describe }: Prepared): number {
  let position = 0;
  let known = GIVEN;
  for (let executed = 0; executed < RUN_LIMIT; executed += 1) {
    const step = steps[position];
    const needed = needs[position] ?? 0;
    if (step === undefined) throw new Error('bug: control runs past the last insn');
    if ((known & needed) !== needed) {
      const lacking = Math.clz32(needed & ~known);
      throw new Error(`bug: ${describe(position)}: r${31 - lacking} was never set`);
    }
    known = (known & (keeps[position] ?? 0)) | (sets[position] ?? 0);
    try {
      const next = step();
      if (next === -1) return executed + 1;
      position = next;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      throw new Error(`bug: ${describe(position)}: ${message}`, { cause: error });
    }
  }
  throw new Error(`bug: ${describe(position)}: more than ${RUN_LIMIT} insns in one run`);
}

/** Loads an encoded program; programs with the same `memory` share its maps and data. */
export function loadProgram(
  { code, relocations }: Pick<Assembly, 'code' | 'relocations'>,
  memory: Memory,
): Machine {
  return loadInsns(disassemble(code, { relocations, lines: [] }), memory);
}

/** Loads a program that was not assembled, so that jumps may go as far as they like. */
export function loadInsns(insns: readonly Insn[], memory: Memory): Machine {
  const packetBytes = new Uint8Array(PACKET_BYTES);
  const packet = createRegion('packet', packetBytes, true);
  const written = new Uint8Array(STACK_BYTES);
  const stack: Region = { ...createRegion('stack', new Uint8Array(STACK_BYTES), true), written };
  const maps = [...memory.maps.values()];
  const state: State = {
    low: new Int32Array(11),
    high: new Int32Array(11),
    regions: [
      createRegion('context', new Uint8Array(CONTEXT_BYTES), false),
      packet,
      stack,
      ...memory.data.values(),
      ...maps.map(({ region }) => region),
    ],
    maps,
    context: noContext,
  };
  const prepared = prepare(insns, state);
  return {
    run: (frame, context = noContext) => {
      if (frame.length > PACKET_BYTES) throw new Error('bug: a packet has at most 65,535 bytes');
      packetBytes.set(frame);
      packet.size = frame.length;
      written.fill(0);
      state.context = context;
      state.low[1] = REGION_START;
      state.high[1] = REGION_BASE + REGION.context;
      state.low[10] = REGION_START + STACK_BYTES;
      state.high[10] = REGION_BASE + REGION.stack;
      const executed = execute(prepared);
      return { action: (state.low[0] ?? 0) >>> 0, executed };
    },
    packet: () => packetBytes.slice(0, packet.size),
  };
}
