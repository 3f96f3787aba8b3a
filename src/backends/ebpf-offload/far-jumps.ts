import { errorAt, fail, type Result, succeed } from '../../support/diagnostics.ts';
import type { Insn, JaInsn, JumpInsn, JumpOp } from './insn.ts';
import { endsFlow, type FarJumps, isNear, jumpDistance, type Layout, layOut } from './layout.ts';
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
  readonly from: JumpInsn | JaInsn;
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
  const island: Island = { name, from: from.insn, target: from.insn.target };
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

/** `if inverse goto skip; gotol target; skip:`, or with a second jump where no inverse exists. */
function turnAround(insn: JumpInsn, index: number): readonly Insn[] {
  const { rule, note, target } = insn;
  const inverse = INVERSE[insn.op];
  const skip = `~skip${index}`;
  const far: Insn = { kind: 'ja', target, rule, note };
  if (inverse !== null) {
    return [{ ...insn, op: inverse, target: skip }, far, { kind: 'label', name: skip }];
  }
  const take = `~take${index}`;
  return [
    { ...insn, target: take },
    { kind: 'ja', target: skip, rule, note },
    { kind: 'label', name: take },
    far,
    { kind: 'label', name: skip },
  ];
}

/** The islands before list element `index`, with a jump over them where control comes along. */
function emitIslands(islands: readonly Island[], index: number, isGap: boolean): readonly Insn[] {
  const over = `~over${index}`;
  const jumps = islands.flatMap(({ name, target, from }): Insn[] => [
    { kind: 'label', name },
    { kind: 'ja', target, rule: from.rule, note: `island to ${from.target}` },
  ]);
  if (isGap) return jumps;
  const skip: Insn = { kind: 'ja', target: over, rule: null, note: 'over islands' };
  return [skip, ...jumps, { kind: 'label', name: over }];
}

/** The program under a plan, and the new list index of each element as given. */
function carryOut(ground: Ground): { readonly insns: readonly Insn[]; readonly moved: Int32Array } {
  const { plan } = ground;
  const insns: Insn[] = [];
  const moved = new Int32Array(ground.insns.length + 1);
  for (let index = 0; index <= ground.insns.length; index += 1) {
    const islands = plan.islands.get(index);
    if (islands !== undefined) {
      for (const insn of emitIslands(islands, index, ground.gapBefore[index] === index)) {
        insns.push(insn);
      }
    }
    moved[index] = insns.length;
    const insn = ground.insns[index];
    if (insn === undefined) continue;
    const detour = plan.detours.get(index);
    if (detour !== undefined && (insn.kind === 'jump' || insn.kind === 'ja')) {
      insns.push({ ...insn, target: detour });
    } else if (insn.kind === 'jump' && plan.inverted.has(index)) {
      insns.push(...turnAround(insn, index));
    } else {
      insns.push(insn);
    }
  }
  return { insns, moved };
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
  const gaps = findGaps(insns);
  let { slots } = layout;
  const room = SLOTS_MAX - (slots[insns.length] ?? 0);
  for (let round = 0; round < ROUNDS; round += 1) {
    const reach = NEAR_MAX - FIRST_MARGIN * 2 ** Math.min(round, 7);
    const plan: Plan = { islands: new Map(), detours: new Map(), inverted: new Set() };
    const ground: Ground = { insns, slots, ...gaps, reach, plan, room };
    if (!planJumps(ground, layout.targets, farJumps)) break;
    const bridged = carryOut(ground);
    const result = layOut(bridged.insns);
    if (allReach(bridged.insns, result, farJumps)) {
      return succeed({ insns: bridged.insns, layout: result });
    }
    slots = bridged.moved.map((index) => result.slots[index] ?? 0);
  }
  return fail(
    errorAt(
      'ebpf/jump-too-far',
      'more jumps cross 32,767 slots than chains of 16-bit jumps can carry',
      { help: 'compile for Linux 6.6 or later (32-bit jumps), or place fewer rules' },
    ),
  );
}
