import { errorAt, fail, type Result, succeed } from '../../support/diagnostics.ts';
import type { Insn, JaInsn, JumpInsn, JumpOp } from './insn.ts';
import {
  endsFlow,
  type FarJumps,
  isNear,
  jumpDistance,
  type Layout,
  layOut,
  numberSlots,
} from './layout.ts';
import { NEAR_MAX } from './opcodes.ts';

/** A jump that does not reach its target, at its estimated slot. */
interface FarJump {
  readonly index: number;
  readonly slot: number;
  readonly insn: JumpInsn | JaInsn;
}

/** A plain jump that others go through; `target` is the next island or the label itself. */
interface Island {
  readonly name: string;
  readonly from: FarJump;
  target: string;
}

/** What one round decided, by list index of the program as given. */
interface Plan {
  /** Islands to put before list element `key`, in order. */
  readonly islands: Map<number, Island[]>;
  /** Label to jump to instead, for the jump at list index `key`. */
  readonly detours: Map<number, string>;
  /** Conditional jumps to turn around a `gotol`. */
  readonly inverted: Set<number>;
}

/** The program with estimated slots, and where islands may stand. */
interface Ground {
  readonly insns: readonly Insn[];
  readonly slots: Int32Array;
  /** For each list index the last one not after it that control does not fall into, or -1. */
  readonly gapBefore: Int32Array;
  /** The same not before it, or -1. */
  readonly gapAfter: Int32Array;
  /** Distance counted on; below the real limit, so that what islands add does not break links. */
  readonly reach: number;
  readonly plan: Plan;
  /** Islands that may still be added. */
  room: number;
}

const INVERSE: Readonly<Record<JumpOp, JumpOp | null>> = {
  eq: 'ne',
  ne: 'eq',
  gt: 'le',
  le: 'gt',
  ge: 'lt',
  lt: 'ge',
  sgt: 'sle',
  sle: 'sgt',
  sge: 'slt',
  slt: 'sge',
  set: null,
};

/** Origin of what was added for no single jump. */
const NEW = -1;
/** Rounds before giving up; each counts on a shorter reach than the one before. */
const ROUNDS = 12;
/** Slots of the longest program: BPF_COMPLEXITY_LIMIT_INSNS, include/linux/bpf.h. */
const SLOTS_MAX = 1_000_000;
/** Where control comes along, islands gather every so many slots, to share the jump over them. */
const SITE_SLOTS = 1024;
/** Slots below the real limit that the first round keeps; doubled each round up to 2^7 times. */
const FIRST_MARGIN = 128;

/** Whether the encoder can write all jumps. */
function allReach(insns: readonly Insn[], layout: Layout, farJumps: FarJumps): boolean {
  return insns.every(
    (insn, index) =>
      isNear(jumpDistance(layout, index)) || (insn.kind === 'ja' && farJumps === 'gotol'),
  );
}

/** Last list index whose slot is not after `slot`. */
function indexAt(slots: Int32Array, slot: number): number {
  let low = 0;
  let high = slots.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if ((slots[middle] ?? 0) <= slot) low = middle;
    else high = middle - 1;
  }
  return low;
}

function slotAt(ground: Ground, index: number): number {
  return ground.slots[index] ?? 0;
}

function findGaps(insns: readonly Insn[]): Pick<Ground, 'gapBefore' | 'gapAfter'> {
  const gapBefore = new Int32Array(insns.length + 1).fill(-1);
  const gapAfter = new Int32Array(insns.length + 1).fill(-1);
  insns.forEach((insn, index) => {
    if (!endsFlow(insn)) return;
    gapBefore[index + 1] = index + 1;
    gapAfter[index + 1] = index + 1;
  });
  for (let index = 1; index <= insns.length; index += 1) {
    if (gapBefore[index] === -1) gapBefore[index] = gapBefore[index - 1] ?? -1;
  }
  for (let index = insns.length - 1; index >= 0; index -= 1) {
    if (gapAfter[index] === -1) gapAfter[index] = gapAfter[index + 1] ?? -1;
  }
  return { gapBefore, gapAfter };
}

/** A site at most `reach` after `slot`: the last gap when it gets us some way, else the last index. */
function siteAfter(ground: Ground, slot: number): number {
  const furthest = indexAt(ground.slots, slot + ground.reach);
  const gap = ground.gapBefore[furthest] ?? -1;
  if (gap !== -1 && slotAt(ground, gap) > slot + ground.reach / 4) return gap;
  const gathered = Math.floor((slot + ground.reach) / SITE_SLOTS) * SITE_SLOTS;
  return indexAt(ground.slots, Math.min(gathered, slotAt(ground, furthest)));
}

/** A site at most `reach` before `slot`: the first gap when it gets us some way, else the first index. */
function siteBefore(ground: Ground, slot: number): number {
  const furthest = indexAt(ground.slots, slot - ground.reach) + 1;
  const gap = ground.gapAfter[furthest] ?? -1;
  if (gap !== -1 && slotAt(ground, gap) < slot - ground.reach / 4) return gap;
  const gathered = Math.ceil((slot - ground.reach) / SITE_SLOTS) * SITE_SLOTS;
  return Math.max(indexAt(ground.slots, gathered), furthest);
}

/** Puts an island before list element `site`. */
function addIsland(ground: Ground, site: number, from: FarJump): Island {
  const there = ground.plan.islands.get(site) ?? [];
  const name = `${from.insn.target}~${site}`;
  const island: Island = { name, from, target: from.insn.target };
  there.push(island);
  ground.room -= 1;
  ground.plan.islands.set(site, there);
  return island;
}

/**
 * Chains islands from all `jumps` on one side of their target, which are sorted by decreasing
 * distance from it. Jumps that an island is ahead of share it. Whether that got to the target.
 */
function chainIslands(ground: Ground, jumps: readonly FarJump[], targetSlot: number): boolean {
  const first = jumps[0];
  if (first === undefined) return true;
  const forward = first.slot < targetSlot;
  let next = 0;
  let slot = first.slot;
  let previous: Island | null = null;
  while (Math.abs(targetSlot - slot) > ground.reach) {
    const site = forward ? siteAfter(ground, slot) : siteBefore(ground, slot);
    const siteSlot = slotAt(ground, site);
    if ((forward ? siteSlot <= slot : siteSlot >= slot) || ground.room <= 0) return false;
    const island = addIsland(ground, site, jumps[next] ?? first);
    if (previous !== null) previous.target = island.name;
    for (let jump = jumps[next]; jump !== undefined; jump = jumps[next]) {
      if (forward ? jump.index >= site : jump.index < site) break;
      ground.plan.detours.set(jump.index, island.name);
      next += 1;
    }
    previous = island;
    slot = siteSlot;
  }
  return true;
}

/**
 * Brings all conditional `jumps` to one target (sorted by slot) to it by `gotol`: several share an
 * island where control does not fall into it, or where the jump over it costs less than turning
 * each around; the rest are turned around.
 */
function shareGotols(ground: Ground, jumps: readonly FarJump[]): void {
  let next = 0;
  for (let first = jumps[next]; first !== undefined; first = jumps[next]) {
    const site = siteAfter(ground, first.slot);
    const limit = slotAt(ground, site) + ground.reach;
    const start = next;
    while ((jumps[next]?.slot ?? Number.POSITIVE_INFINITY) <= limit) next += 1;
    const members = jumps.slice(start, next);
    const isGap = ground.gapBefore[site] === site;
    const turning = members.reduce((sum, { insn }) => sum + turningCost(insn), 0);
    if (turning <= (isGap ? 1 : 2)) {
      for (const { index } of members) ground.plan.inverted.add(index);
    } else {
      const { name } = addIsland(ground, site, first);
      for (const { index } of members) ground.plan.detours.set(index, name);
    }
  }
}

/** Slots it takes to turn a conditional jump around a `gotol`. */
function turningCost(insn: JumpInsn | JaInsn): number {
  return insn.kind === 'jump' && INVERSE[insn.op] === null ? 2 : 1;
}

/** All jumps further than `reach`, in order, by list index of the target. */
function collectFarJumps(
  ground: Ground,
  targets: Int32Array,
  farJumps: FarJumps,
): ReadonlyMap<number, readonly FarJump[]> {
  const byTarget = new Map<number, FarJump[]>();
  ground.insns.forEach((insn, index) => {
    if (insn.kind !== 'jump' && (insn.kind !== 'ja' || farJumps === 'gotol')) return;
    const target = targets[index] ?? 0;
    const slot = slotAt(ground, index);
    if (Math.abs(slotAt(ground, target) - slot) <= ground.reach) return;
    const jumps = byTarget.get(target);
    if (jumps === undefined) byTarget.set(target, [{ index, slot, insn }]);
    else jumps.push({ index, slot, insn });
  });
  return byTarget;
}

/** Whether a plan within the limits was found. */
function planJumps(ground: Ground, targets: Int32Array, farJumps: FarJumps): boolean {
  for (const [target, jumps] of collectFarJumps(ground, targets, farJumps)) {
    if (farJumps === 'gotol') {
      shareGotols(ground, jumps);
      continue;
    }
    const before = jumps.filter(({ index }) => index < target);
    const after = jumps.filter(({ index }) => index > target).reverse();
    const slot = slotAt(ground, target);
    if (!chainIslands(ground, before, slot) || !chainIslands(ground, after, slot)) return false;
  }
  return true;
}

/** An instruction of the new program and the list index of the one given that it comes from. */
type Placed = readonly [insn: Insn, origin: number];

/** `if inverse goto skip; gotol target; skip:`, or with a second jump where no inverse exists. */
function turnAround(insn: JumpInsn, index: number): readonly Placed[] {
  const { rule, note, target } = insn;
  const inverse = INVERSE[insn.op];
  const skip = `~skip${index}`;
  const far: Placed = [{ kind: 'ja', target, rule, note }, index];
  const end: Placed = [{ kind: 'label', name: skip }, NEW];
  if (inverse !== null) return [[{ ...insn, op: inverse, target: skip }, index], far, end];
  const take = `~take${index}`;
  return [
    [{ ...insn, target: take }, index],
    [{ kind: 'ja', target: skip, rule, note }, index],
    [{ kind: 'label', name: take }, NEW],
    far,
    end,
  ];
}

/** The islands before list element `index`, with a jump over them where control comes along. */
function emitIslands(islands: readonly Island[], index: number, isGap: boolean): readonly Placed[] {
  const over = `~over${index}`;
  const jumps = islands.flatMap(({ name, target, from: { insn, index: origin } }): Placed[] => [
    [{ kind: 'label', name }, NEW],
    [{ kind: 'ja', target, rule: insn.rule, note: `island to ${insn.target}` }, origin],
  ]);
  if (isGap) return jumps;
  return [
    [{ kind: 'ja', target: over, rule: null, note: 'over islands' }, NEW],
    ...jumps,
    [{ kind: 'label', name: over }, NEW],
  ];
}

/** What one list element becomes. */
function replace(plan: Plan, insn: Insn, index: number): readonly Placed[] | null {
  if (insn.kind !== 'jump' && insn.kind !== 'ja') return null;
  const detour = plan.detours.get(index);
  if (detour !== undefined) return [[{ ...insn, target: detour }, index]];
  return insn.kind === 'jump' && plan.inverted.has(index) ? turnAround(insn, index) : null;
}

/** The program under a plan, laid out, and the new slot of each element as given. */
interface Outcome extends BridgedProgram {
  readonly moved: Int32Array;
}

/**
 * Puts a plan into effect. Only added labels are looked up by name; the others moved with their
 * jumps' origins, whose targets `given` knows.
 */
function carryOut(ground: Ground, given: Layout): Outcome {
  const { plan, gapBefore } = ground;
  const insns: Insn[] = [];
  const origins: number[] = [];
  const added = new Map<string, number>();
  const places = new Int32Array(ground.insns.length + 1);
  const put = ([insn, origin]: Placed): void => {
    if (insn.kind === 'label') added.set(insn.name, insns.length);
    insns.push(insn);
    origins.push(origin);
  };
  for (let index = 0; index <= ground.insns.length; index += 1) {
    const islands = plan.islands.get(index);
    if (islands !== undefined) {
      for (const placed of emitIslands(islands, index, gapBefore[index] === index)) put(placed);
    }
    places[index] = insns.length;
    const insn = ground.insns[index];
    if (insn === undefined) continue;
    const replacement = replace(plan, insn, index);
    if (replacement !== null) replacement.forEach(put);
    else {
      insns.push(insn);
      origins.push(index);
    }
  }
  const slots = numberSlots(insns);
  const targets = new Int32Array(insns.length).fill(-1);
  insns.forEach((insn, index) => {
    if (insn.kind !== 'jump' && insn.kind !== 'ja') return;
    const origin = origins[index] ?? NEW;
    const isSame = ground.insns[origin] === insn;
    const target = isSame ? undefined : added.get(insn.target);
    targets[index] = target ?? places[given.targets[origin] ?? 0] ?? 0;
  });
  const moved = places.map((index) => slots[index] ?? 0);
  return { insns, layout: { slots, targets }, moved };
}

/** A program whose jumps can all be encoded, and where it stands. */
export interface BridgedProgram {
  readonly insns: readonly Insn[];
  readonly layout: Layout;
}

/**
 * Makes every jump encodable: afterwards conditional jumps fit 16 bits, and so does `ja` unless
 * `farJumps` is `gotol`. Adds labels with a `~`. Each round plans from the slots that the round
 * before led to, counting on a shorter reach, until all links hold.
 */
export function bridgeFarJumps(insns: readonly Insn[], farJumps: FarJumps): Result<BridgedProgram> {
  const layout = layOut(insns);
  if (allReach(insns, layout, farJumps)) return succeed({ insns, layout });
  const taken = insns.find((insn) => insn.kind === 'label' && insn.name.includes('~'));
  if (taken?.kind === 'label') throw new Error(`bug: label ${taken.name}: ~ is kept for islands`);
  const gaps = findGaps(insns);
  let { slots } = layout;
  const room = SLOTS_MAX - (slots[insns.length] ?? 0);
  for (let round = 0; round < ROUNDS; round += 1) {
    const reach = NEAR_MAX - FIRST_MARGIN * 2 ** Math.min(round, 7);
    const plan: Plan = { islands: new Map(), detours: new Map(), inverted: new Set() };
    const ground: Ground = { insns, slots, ...gaps, reach, plan, room };
    if (!planJumps(ground, layout.targets, farJumps)) break;
    const outcome = carryOut(ground, layout);
    if (allReach(outcome.insns, outcome.layout, farJumps)) return succeed(outcome);
    slots = outcome.moved;
  }
  return fail(
    errorAt(
      'ebpf/jump-too-far',
      'more jumps cross 32,767 slots than chains of 16-bit jumps can carry',
      { help: 'compile for Linux 6.6 or later (32-bit jumps), or place fewer rules' },
    ),
  );
}
