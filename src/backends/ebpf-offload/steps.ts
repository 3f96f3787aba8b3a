import {
  NARROW_ALU,
  NARROW_CONDITION,
  type Registers,
  swap32,
  WIDE_ALU,
  WIDE_CONDITION,
} from './arithmetic.ts';
import {
  type AccessSize,
  type AluInsn,
  type AtomicAddInsn,
  type CallInsn,
  type EndianInsn,
  HELPER,
  type JumpInsn,
  type LdImm64Insn,
  type LdMapInsn,
  type LdMapValueInsn,
  type LdxInsn,
  type RealInsn,
  type RegNumber,
  SKB,
  type Source,
  type StInsn,
  type StxInsn,
  XDP_MD,
} from './insn.ts';
import { MAP_BASE, type MapStore, REGION_BASE, REGION_START, type Region } from './memory.ts';

/** What the context says beside the packet. */
export interface RunContext {
  readonly ingressIfindex: number;
  readonly rxQueueIndex: number;
}

/** What the steps of one machine work on. */
export interface State extends Registers {
  /** By the high half of an address less `REGION_BASE`; see `REGION`. */
  readonly regions: readonly Region[];
  /** By the high half of a map's address less `MAP_BASE`. */
  readonly maps: readonly MapStore[];
  context: RunContext;
}

/** Regions every machine has; those of data and maps come after. */
export const REGION = { context: 0, packet: 1, stack: 2 } as const;

/** Executes one instruction and returns the position of the next; -1 ends the run. */
export type Step = () => number;

/** What a step has to know of its place. */
export interface Place {
  /** Position of the instruction after it. */
  readonly next: number;
  /** Position where a jump goes; -1 for the rest. */
  readonly target: number;
}

/** The halves of a constant operand, or the register to read. */
function operand(source: Source): {
  readonly reg: number;
  readonly low: number;
  readonly high: number;
} {
  if (source.kind === 'reg') return { reg: source.reg, low: 0, high: 0 };
  return { reg: -1, low: source.value, high: source.value >> 31 };
}

function stepAlu({ low, high }: State, insn: AluInsn, { next }: Place): Step {
  const registers = { low, high };
  const operate = (insn.width === 64 ? WIDE_ALU : NARROW_ALU)[insn.op];
  const { dst } = insn;
  const { reg, low: bLow, high: bHigh } = operand(insn.src);
  if (reg === -1) {
    return () => {
      operate(registers, dst, low[dst] ?? 0, high[dst] ?? 0, bLow, bHigh);
      return next;
    };
  }
  return () => {
    operate(registers, dst, low[dst] ?? 0, high[dst] ?? 0, low[reg] ?? 0, high[reg] ?? 0);
    return next;
  };
}

function stepJump({ low, high }: State, insn: JumpInsn, { next, target }: Place): Step {
  const holds = (insn.width === 64 ? WIDE_CONDITION : NARROW_CONDITION)[insn.op];
  const { dst } = insn;
  const { reg, low: bLow, high: bHigh } = operand(insn.src);
  if (reg === -1) {
    return () => (holds(low[dst] ?? 0, high[dst] ?? 0, bLow, bHigh) ? target : next);
  }
  return () =>
    holds(low[dst] ?? 0, high[dst] ?? 0, low[reg] ?? 0, high[reg] ?? 0) ? target : next;
}

function stepEndian({ low, high }: State, { order, bits, dst }: EndianInsn, { next }: Place): Step {
  return () => {
    const aLow = low[dst] ?? 0;
    const aHigh = high[dst] ?? 0;
    const lower = order === 'be' ? swap32(bits === 64 ? aHigh : aLow) : aLow;
    const upper = order === 'be' ? swap32(aLow) : aHigh;
    if (bits === 16) low[dst] = order === 'be' ? lower >>> 16 : lower & 0xffff;
    else low[dst] = lower;
    high[dst] = bits === 64 ? upper : 0;
    return next;
  };
}

function stepConstant(
  { low, high }: State,
  { dst }: LdImm64Insn | LdMapInsn | LdMapValueInsn,
  newLow: number,
  newHigh: number,
  { next }: Place,
): Step {
  return () => {
    low[dst] = newLow;
    high[dst] = newHigh;
    return next;
  };
}

function describe(address: string, size: number, verb: string): string {
  return `${verb} ${size} bytes at ${address}`;
}

/** The region that an address points into. */
function regionOf(state: State, reg: RegNumber): Region {
  const region = state.regions[(state.high[reg] ?? 0) - REGION_BASE];
  if (region === undefined) throw new Error(`r${reg} is no address`);
  return region;
}

/** Byte inside the region, checked against its bounds. */
function byteOf(
  state: State,
  region: Region,
  reg: RegNumber,
  offset: number,
  size: number,
): number {
  const at = ((state.low[reg] ?? 0) >>> 0) + offset - REGION_START;
  if (at < 0 || at + size > region.size) {
    throw new Error(describe(`${region.name} + ${at} of ${region.size}`, size, 'reaches for'));
  }
  if (region.size > region.stride && (at % region.stride) + size > region.elementSize) {
    throw new Error(describe(`the end of a value of ${region.name}`, size, 'reaches for'));
  }
  return at;
}

function checkWritten(region: Region, at: number, size: number): void {
  if (region.written === null) return;
  for (let byte = at; byte < at + size; byte += 1) {
    if (region.written[byte] !== 1) {
      throw new Error(describe(`${region.name} + ${at}, never written`, size, 'reads'));
    }
  }
}

/** Context words: `data` and `data_end` become addresses, though they are 32 bits wide. */
function loadContext(state: State, insn: LdxInsn): void {
  const offset = ((state.low[insn.src] ?? 0) >>> 0) + insn.offset - REGION_START;
  const packet = state.regions[REGION.packet];
  const isAddress =
    offset === XDP_MD.data ||
    offset === XDP_MD.dataEnd ||
    offset === XDP_MD.dataMeta ||
    offset === SKB.data ||
    offset === SKB.dataEnd;
  const values: readonly [number, number][] = [
    [XDP_MD.data, REGION_START],
    [XDP_MD.dataEnd, REGION_START + (packet?.size ?? 0)],
    [XDP_MD.dataMeta, REGION_START],
    [SKB.data, REGION_START],
    [SKB.dataEnd, REGION_START + (packet?.size ?? 0)],
    [XDP_MD.ingressIfindex, state.context.ingressIfindex],
    [XDP_MD.rxQueueIndex, state.context.rxQueueIndex],
  ];
  const value = values.find(([at]) => at === offset);
  if (value === undefined || insn.size !== 4) {
    throw new Error(describe(`context + ${offset}`, insn.size, 'reads'));
  }
  state.low[insn.dst] = value[1];
  state.high[insn.dst] = isAddress ? REGION_BASE + REGION.packet : 0;
}

function stepLdx(state: State, insn: LdxInsn, { next }: Place): Step {
  const { low, high } = state;
  const { size, dst, src, offset } = insn;
  return () => {
    const region = regionOf(state, src);
    if (region === state.regions[REGION.context]) {
      loadContext(state, insn);
      return next;
    }
    const at = byteOf(state, region, src, offset, size);
    if (region.written !== null) checkWritten(region, at, size);
    high[dst] = 0;
    if (size === 1) low[dst] = region.view.getUint8(at);
    else if (size === 2) low[dst] = region.view.getUint16(at, true);
    else low[dst] = region.view.getInt32(at, true);
    if (size === 8) high[dst] = region.view.getInt32(at + 4, true);
    return next;
  };
}

/** Where to store, checked and marked as written. */
function placeToStore(
  state: State,
  reg: RegNumber,
  offset: number,
  size: number,
): { readonly region: Region; readonly at: number } {
  const region = regionOf(state, reg);
  if (!region.isWritable) throw new Error(`${region.name} is read-only`);
  const at = byteOf(state, region, reg, offset, size);
  region.written?.fill(1, at, at + size);
  return { region, at };
}

function store(view: DataView, at: number, size: AccessSize, low: number, high: number): void {
  if (size === 1) view.setUint8(at, low);
  else if (size === 2) view.setUint16(at, low, true);
  else view.setInt32(at, low, true);
  if (size === 8) view.setInt32(at + 4, high, true);
}

function stepStore(state: State, insn: StxInsn | StInsn, { next }: Place): Step {
  const { low, high } = state;
  const { size, dst, offset } = insn;
  if (insn.kind === 'st') {
    const { value } = insn;
    return () => {
      const { region, at } = placeToStore(state, dst, offset, size);
      store(region.view, at, size, value, value >> 31);
      return next;
    };
  }
  const { src } = insn;
  return () => {
    const { region, at } = placeToStore(state, dst, offset, size);
    store(region.view, at, size, low[src] ?? 0, high[src] ?? 0);
    return next;
  };
}

function stepAtomicAdd(state: State, insn: AtomicAddInsn, { next }: Place): Step {
  const { low, high } = state;
  const { size, dst, src, offset } = insn;
  return () => {
    checkWritten(
      regionOf(state, dst),
      byteOf(state, regionOf(state, dst), dst, offset, size),
      size,
    );
    const { region, at } = placeToStore(state, dst, offset, size);
    const sum = region.view.getUint32(at, true) + ((low[src] ?? 0) >>> 0);
    region.view.setUint32(at, sum, true);
    if (size === 8) {
      const carry = sum > 0xffffffff ? 1 : 0;
      const upper = region.view.getInt32(at + 4, true) + (high[src] ?? 0) + carry;
      region.view.setInt32(at + 4, upper, true);
    }
    return next;
  };
}

/** r0 = address of the value in map r1 for the key at r2, or 0. */
function lookUp(state: State): void {
  const map = state.maps[(state.high[1] ?? 0) - MAP_BASE];
  if (map === undefined || state.low[1] !== 0) throw new Error('r1 is no map');
  const { keySize } = map.definition;
  const region = regionOf(state, 2);
  const from = byteOf(state, region, 2, 0, keySize);
  checkWritten(region, from, keySize);
  const key = new Uint8Array(region.view.buffer, region.view.byteOffset + from, keySize);
  const at = map.find(key);
  state.low[0] = at === -1 ? 0 : REGION_START + at;
  state.high[0] = at === -1 ? 0 : REGION_BASE + state.regions.indexOf(map.region);
}

function stepCall(state: State, { helper }: CallInsn, { next }: Place): Step {
  return () => {
    if (helper !== HELPER.mapLookupElem) throw new Error(`helper ${helper} is not interpreted`);
    lookUp(state);
    return next;
  };
}

function regionNamed(state: State, name: string): number {
  const index = state.regions.findIndex((region) => region.name === name);
  if (index === -1) throw new Error(`bug: data ${name} is not defined`);
  return index;
}

function mapNamed(state: State, name: string): number {
  const index = state.maps.findIndex(({ definition }) => definition.name === name);
  if (index === -1) throw new Error(`bug: map ${name} is not defined`);
  return index;
}

/** Prepares one instruction for `state`. What fails when it runs throws without its position. */
export function prepareStep(state: State, insn: RealInsn, place: Place): Step {
  switch (insn.kind) {
    case 'alu':
      return stepAlu(state, insn, place);
    case 'endian':
      return stepEndian(state, insn, place);
    case 'ld_imm64': {
      const low = Number(insn.value & 0xffffffffn);
      return stepConstant(state, insn, low, Number(insn.value >> 32n), place);
    }
    case 'ld_map':
      return stepConstant(state, insn, 0, MAP_BASE + mapNamed(state, insn.map), place);
    case 'ld_map_value': {
      const high = REGION_BASE + regionNamed(state, insn.map);
      return stepConstant(state, insn, REGION_START + insn.offset, high, place);
    }
    case 'ldx':
      return stepLdx(state, insn, place);
    case 'stx':
    case 'st':
      return stepStore(state, insn, place);
    case 'atomic_add':
      return stepAtomicAdd(state, insn, place);
    case 'jump':
      return stepJump(state, insn, place);
    case 'ja':
      return () => place.target;
    case 'call':
      return stepCall(state, insn, place);
    case 'exit':
      return () => -1;
    case 'raw':
      return () => {
        throw new Error('unknown opcode');
      };
  }
}
