/** Something to choose: what it is worth, and which parts must be there for it. */
export interface Item {
  /** At least 0. */
  readonly weight: number;
  /** Indices of parts, its own among them; a part is paid once, however many items need it. */
  readonly needs: ArrayLike<number>;
}

/** What there is to choose from. */
export interface Choices {
  readonly items: readonly Item[];
  /** What each part takes of every resource, in whole numbers; as many numbers for every part. */
  readonly costs: readonly (readonly number[])[];
}

export interface Selection {
  /** Indices of items, ascending. */
  readonly chosen: readonly number[];
  readonly weight: number;
  /** No choice is worth more. */
  readonly isBest: boolean;
}

/** Up to so many items the best choice is searched for, not built up. */
const FEW_ITEMS = 24;
/** Steps of that search; only contrived choices need more. */
const MOST_STEPS = 200_000;
/** Capacities that choices are built up for: each is so many times the one before. */
const GRID_RATIO = 1.04;

/** What is taken: how many of the chosen items need each part, and what that costs. */
interface Basket {
  readonly users: Int32Array;
  readonly used: number[];
}

function createBasket({ costs }: Choices): Basket {
  return { users: new Int32Array(costs.length), used: (costs[0] ?? []).map(() => 0) };
}

function forEachNeed({ needs }: Item, visit: (part: number) => void): void {
  for (let at = 0; at < needs.length; at += 1) visit(needs[at] ?? 0);
}

/** Puts an item in if it fits. */
function tryItem(
  { users, used }: Basket,
  { needs }: Item,
  costs: Choices['costs'],
  capacity: readonly number[],
): boolean {
  const wanted = [...used];
  for (let at = 0; at < needs.length; at += 1) {
    const part = needs[at] ?? 0;
    if ((users[part] ?? 0) > 0) continue;
    const cost = costs[part] ?? [];
    for (let r = 0; r < wanted.length; r += 1) {
      const sum = (wanted[r] ?? 0) + (cost[r] ?? 0);
      if (sum > (capacity[r] ?? 0)) return false;
      wanted[r] = sum;
    }
  }
  for (let at = 0; at < needs.length; at += 1) {
    const part = needs[at] ?? 0;
    users[part] = (users[part] ?? 0) + 1;
  }
  for (let r = 0; r < wanted.length; r += 1) used[r] = wanted[r] ?? 0;
  return true;
}

/** Takes an item out again. */
function takeOut({ users, used }: Basket, item: Item, costs: Choices['costs']): void {
  forEachNeed(item, (part) => {
    const left = (users[part] ?? 0) - 1;
    users[part] = left;
    if (left > 0) return;
    const cost = costs[part] ?? [];
    for (let r = 0; r < used.length; r += 1) used[r] = (used[r] ?? 0) - (cost[r] ?? 0);
  });
}

function countUsers({ items, costs }: Choices): Int32Array {
  const users = new Int32Array(costs.length);
  for (const item of items) forEachNeed(item, (part) => (users[part] = (users[part] ?? 0) + 1));
  return users;
}

function weigh(items: readonly Item[], chosen: readonly number[]): number {
  return chosen.reduce((sum, index) => sum + (items[index]?.weight ?? 0), 0);
}

/**
 * Looks for the best choice by branch and bound. The bound adds the resources up into one, takes
 * fractions of items, and splits what a shared part costs among all items that need it: never less
 * than any choice is worth. Null when the search would be too long.
 */
function searchBest(choices: Choices, capacity: readonly number[]): number[] | null {
  const { items, costs } = choices;
  const users = countUsers(choices);
  const priceOf = (item: Item): number => {
    let price = 0;
    forEachNeed(item, (part) => {
      const share = (costs[part] ?? []).reduce((sum, cost, r) => {
        const limit = capacity[r] ?? 0;
        return limit > 0 ? sum + cost / limit : sum;
      }, 0);
      price += share / (users[part] ?? 1);
    });
    return price;
  };
  const empty = createBasket(choices);
  const order = items
    .flatMap((item, index) => {
      const fits = tryItem(empty, item, costs, capacity);
      if (fits) takeOut(empty, item, costs);
      return fits ? [{ item, index, price: priceOf(item) }] : [];
    })
    .sort((a, b) => b.item.weight * a.price - a.item.weight * b.price || a.index - b.index);
  const basket = createBasket(choices);
  let best: readonly number[] = [];
  let bestWeight = -1;
  let steps = 0;
  const bound = (from: number, weight: number, room: number): number => {
    let sum = weight;
    let left = room;
    for (let at = from; at < order.length; at += 1) {
      const { item, price } = order[at] ?? { item: { weight: 0 }, price: 0 };
      if (price > left) return sum + (item.weight * left) / price;
      left -= price;
      sum += item.weight;
    }
    return sum;
  };
  const visit = (at: number, taken: readonly number[], weight: number, room: number): boolean => {
    steps += 1;
    if (steps > MOST_STEPS) return false;
    if (weight > bestWeight) {
      best = taken;
      bestWeight = weight;
    }
    const next = order[at];
    // A little more than the bound: it is computed in fractions.
    if (next === undefined || bound(at, weight, Math.max(0, room)) * (1 + 1e-9) <= bestWeight) {
      return true;
    }
    if (tryItem(basket, next.item, costs, capacity)) {
      const more = [...taken, next.index];
      if (!visit(at + 1, more, weight + next.item.weight, room - next.price)) return false;
      takeOut(basket, next.item, costs);
    }
    return visit(at + 1, taken, weight, room);
  };
  const resources = capacity.filter((limit) => limit > 0).length;
  return visit(0, [], 0, resources) ? [...best] : null;
}

/**
 * All items in the order in which building up takes them: always the one that is worth most for
 * what it adds. Parts that earlier items brought are free, others cost what they cost or, `split`,
 * that divided by the items that need them. All of a resource counts as one.
 */
function orderItems(choices: Choices, split: boolean): Int32Array {
  const { items, costs } = choices;
  const totals = (costs[0] ?? []).map((_, r) =>
    costs.reduce((sum, cost) => sum + (cost[r] ?? 0), 0),
  );
  const largest = Math.max(1, ...totals);
  const scales = totals.map((total) => (total > 0 ? largest / total : 0));
  const users = countUsers(choices);
  const prices = costs.map((cost, part) => {
    const price = cost.reduce((sum, c, r) => sum + c * (scales[r] ?? 0), 0);
    return split ? price / Math.max(1, users[part] ?? 1) : price;
  });
  const first = new Int32Array(costs.length + 1);
  for (let part = 0; part < costs.length; part += 1) {
    first[part + 1] = (first[part] ?? 0) + (users[part] ?? 0);
  }
  const fill = first.slice();
  const usersOf = new Int32Array(first[costs.length] ?? 0);
  const left = new Float64Array(items.length);
  for (const [index, item] of items.entries()) {
    forEachNeed(item, (part) => {
      const at = fill[part] ?? 0;
      usersOf[at] = index;
      fill[part] = at + 1;
      left[index] = (left[index] ?? 0) + (prices[part] ?? 0);
    });
  }
  const weights = Float64Array.from(items, ({ weight }) => weight);
  const isTaken = new Uint8Array(items.length);
  const isPaid = new Uint8Array(costs.length);
  return Int32Array.from(items, () => {
    const next = densest(weights, left, isTaken);
    isTaken[next] = 1;
    forEachNeed(items[next] ?? NO_ITEM, (part) => {
      if (isPaid[part] === 1) return;
      isPaid[part] = 1;
      for (let at = first[part] ?? 0; at < (first[part + 1] ?? 0); at += 1) {
        const user = usersOf[at] ?? 0;
        left[user] = (left[user] ?? 0) - (prices[part] ?? 0);
      }
    });
    return next;
  });
}

/** The item not yet taken that is worth most for what is left to pay; the first of equals. */
function densest(weights: Float64Array, left: Float64Array, isTaken: Uint8Array): number {
  let best = -1;
  let bestWeight = 0;
  let bestLeft = 1;
  for (let index = 0; index < weights.length; index += 1) {
    if (isTaken[index] === 1) continue;
    const weight = weights[index] ?? 0;
    // What is paid may have left a rest, from rounding.
    const cost = Math.max(left[index] ?? 0, 1e-6);
    if (best >= 0 && weight * bestLeft <= bestWeight * cost) continue;
    best = index;
    bestWeight = weight;
    bestLeft = cost;
  }
  return best;
}

/**
 * Takes items in order, passing over those that do not fit, and looks at those again in the end:
 * what they need may have come with others. Compares with the best single one.
 */
function buildUp(choices: Choices, order: Int32Array, capacity: readonly number[]): Built {
  const { items, costs } = choices;
  const basket = createBasket(choices);
  const chosen: number[] = [];
  let alone: readonly number[] = [];
  const passed: number[] = [];
  const take = (index: number): void => {
    const fits = tryItem(basket, items[index] ?? NO_ITEM, costs, capacity);
    (fits ? chosen : passed).push(index);
  };
  order.forEach(take);
  const empty = createBasket(choices);
  for (const index of passed.splice(0)) {
    const item = items[index] ?? NO_ITEM;
    if (item.weight > weigh(items, alone) && tryItem(empty, item, costs, capacity)) {
      takeOut(empty, item, costs);
      alone = [index];
    }
    take(index);
  }
  return heaviest([chosen, alone].map((built) => ({ chosen: built, weight: weigh(items, built) })));
}

const NO_ITEM: Item = { weight: 0, needs: [] };

type Built = Pick<Selection, 'chosen' | 'weight'>;

const NOTHING: Built = { chosen: [], weight: 0 };

function heaviest(all: readonly Built[]): Built {
  return all.reduce((best, built) => (built.weight > best.weight ? built : best), NOTHING);
}

/** What all parts take together of the first resource. */
function totalOf({ costs }: Choices): number {
  return costs.reduce((sum, cost) => sum + (cost[0] ?? 0), 0);
}

/**
 * Capacities of one resource, each a little more than the one before: from the least that any part
 * takes to all that all parts take. The same for the same choices, whatever a tier has.
 */
export function capacityGrid(choices: Choices): readonly number[] {
  const total = totalOf(choices);
  const least = choices.costs.reduce(
    (low, [cost = 0]) => (cost > 0 ? Math.min(low, cost) : low),
    total,
  );
  const grid: number[] = [];
  for (let at = total; at >= least && at > 0; at = Math.min(at - 1, Math.floor(at / GRID_RATIO))) {
    grid.push(at);
  }
  return grid.reverse();
}

/** Builds up for every capacity of the grid up to the one asked for, and takes the best of them. */
function createBuilder(choices: Choices): (capacity: readonly number[]) => Built {
  const orders = [false, true].map((split) => orderItems(choices, split));
  const build = (capacity: readonly number[]): Built =>
    heaviest(orders.map((order) => buildUp(choices, order, capacity)));
  if ((choices.costs[0]?.length ?? 0) !== 1) return build;
  const grid = capacityGrid(choices);
  const best: Built[] = [];
  return ([capacity = 0]) => {
    const count = grid.findLastIndex((at) => at <= capacity) + 1;
    for (let at = best.length; at < count; at += 1) {
      best.push(heaviest([build([grid[at] ?? 0]), ...best.slice(-1)]));
    }
    return best[count - 1] ?? NOTHING;
  };
}

/** Chooses for one capacity after the other from the same items. */
export type Selector = (capacity: readonly number[]) => Selection;

/**
 * Chooses items whose weights add up to as much as possible while all the parts they need together
 * stay within the capacity of every resource. Few items: the best choice there is. Many: built up
 * by weight for cost. The same input gives the same choice, and more of the one resource (several:
 * where the choice is the best) never a choice of less weight.
 */
export function createSelector(choices: Choices): Selector {
  const { items } = choices;
  let build: ReturnType<typeof createBuilder> | null = null;
  return (capacity) => {
    const searched = items.length <= FEW_ITEMS ? searchBest(choices, capacity) : null;
    build ??= searched === null ? createBuilder(choices) : null;
    const built = searched ?? build?.(capacity).chosen ?? [];
    const chosen = [...built].sort((a, b) => a - b);
    return { chosen, weight: weigh(items, chosen), isBest: searched !== null };
  };
}
