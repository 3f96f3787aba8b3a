/**
 * Rows as typed arrays, for the exact algorithms. A box is `stride` words:
 *
 *   value[words] | mask[words] | lo[ranges] | hi[ranges]
 *
 * Bit 31 of word 0 is the key's most significant bit. A box holds a key when `(key ^ value) & mask`
 * is zero in every word and every range column lies within lo..hi; value bits outside the mask are 0.
 */
export interface Shape {
  /** 32-bit words of the columns that are compared bit by bit. */
  readonly words: number;
  /** Columns compared as ranges, each at most 32 bits. */
  readonly ranges: number;
  /** Greatest value of each range column. */
  readonly tops: readonly number[];
}

/** Words of one box. */
export function strideOf({ words, ranges }: Shape): number {
  return 2 * words + 2 * ranges;
}

/** An ordered table: the first alive row that holds a key decides. */
export interface RowStore {
  readonly shape: Shape;
  readonly stride: number;
  count: number;
  /** `count * stride` words in use. */
  boxes: Uint32Array;
  actions: Uint8Array;
  /** Where each row comes from; meaningless to the algorithms. */
  origins: Int32Array;
  /** 0 for a removed row. */
  alive: Uint8Array;
}

export function createStore(shape: Shape, capacity = 64): RowStore {
  const stride = strideOf(shape);
  return {
    shape,
    stride,
    count: 0,
    boxes: new Uint32Array(capacity * stride),
    actions: new Uint8Array(capacity),
    origins: new Int32Array(capacity),
    alive: new Uint8Array(capacity),
  };
}

function grow(store: RowStore): void {
  const capacity = Math.max(64, store.actions.length * 2);
  const boxes = new Uint32Array(capacity * store.stride);
  boxes.set(store.boxes);
  const actions = new Uint8Array(capacity);
  actions.set(store.actions);
  const origins = new Int32Array(capacity);
  origins.set(store.origins);
  const alive = new Uint8Array(capacity);
  alive.set(store.alive);
  Object.assign(store, { boxes, actions, origins, alive });
}

/** Appends a row whose box stands in `from` at word `at`; gives its place. */
export function appendRow(
  store: RowStore,
  from: Uint32Array,
  at: number,
  action: number,
  origin: number,
): number {
  if (store.count === store.actions.length) grow(store);
  const { stride, count } = store;
  for (let word = 0; word < stride; word += 1) {
    store.boxes[count * stride + word] = from[at + word] ?? 0;
  }
  store.actions[count] = action;
  store.origins[count] = origin;
  store.alive[count] = 1;
  store.count += 1;
  return count;
}

/** Lets a box have any value in these bits of its ternary part. */
export function freeBits({ words }: Shape, box: Uint32Array, from: number, width: number): void {
  for (let bit = from; bit < from + width; bit += 1) {
    const mask = (1 << (31 - (bit & 31))) >>> 0;
    box[bit >>> 5] = (box[bit >>> 5] as number) & ~mask;
    box[words + (bit >>> 5)] = (box[words + (bit >>> 5)] as number) & ~mask;
  }
}

/** A box that holds every key. */
export function everything(shape: Shape): Uint32Array {
  const box = new Uint32Array(strideOf(shape));
  for (let range = 0; range < shape.ranges; range += 1) {
    box[2 * shape.words + shape.ranges + range] = shape.tops[range] ?? 0;
  }
  return box;
}

/** The alive rows, in order, as a store of their own. */
export function compact(store: RowStore): RowStore {
  const result = createStore(store.shape, store.count + 1);
  for (let row = 0; row < store.count; row += 1) {
    if (store.alive[row] === 0) continue;
    const { boxes, stride, actions, origins } = store;
    appendRow(result, boxes, row * stride, actions[row] ?? 0, origins[row] ?? 0);
  }
  return result;
}

/** Whether two boxes have a key in common. */
export function overlaps(
  { words, ranges }: Shape,
  a: Uint32Array,
  ai: number,
  b: Uint32Array,
  bi: number,
): boolean {
  for (let word = 0; word < words; word += 1) {
    const both = (a[ai + words + word] as number) & (b[bi + words + word] as number);
    if ((((a[ai + word] as number) ^ (b[bi + word] as number)) & both) !== 0) return false;
  }
  const lo = 2 * words;
  const hi = lo + ranges;
  for (let range = 0; range < ranges; range += 1) {
    if ((a[ai + lo + range] as number) > (b[bi + hi + range] as number)) return false;
    if ((b[bi + lo + range] as number) > (a[ai + hi + range] as number)) return false;
  }
  return true;
}

/** Whether box `a` holds all of box `b`. */
export function contains(
  { words, ranges }: Shape,
  a: Uint32Array,
  ai: number,
  b: Uint32Array,
  bi: number,
): boolean {
  for (let word = 0; word < words; word += 1) {
    const mask = a[ai + words + word] as number;
    if ((mask & ~(b[bi + words + word] as number)) !== 0) return false;
    if ((((a[ai + word] as number) ^ (b[bi + word] as number)) & mask) !== 0) return false;
  }
  const lo = 2 * words;
  const hi = lo + ranges;
  for (let range = 0; range < ranges; range += 1) {
    if ((a[ai + lo + range] as number) > (b[bi + lo + range] as number)) return false;
    if ((a[ai + hi + range] as number) < (b[bi + hi + range] as number)) return false;
  }
  return true;
}

/** Writes the common part of two overlapping boxes. */
export function intersect(
  { words, ranges }: Shape,
  a: Uint32Array,
  ai: number,
  b: Uint32Array,
  bi: number,
  to: Uint32Array,
  at: number,
): void {
  for (let word = 0; word < words; word += 1) {
    to[at + word] = (a[ai + word] as number) | (b[bi + word] as number);
    to[at + words + word] = (a[ai + words + word] as number) | (b[bi + words + word] as number);
  }
  const lo = 2 * words;
  const hi = lo + ranges;
  for (let range = 0; range < ranges; range += 1) {
    to[at + lo + range] = Math.max(a[ai + lo + range] as number, b[bi + lo + range] as number);
    to[at + hi + range] = Math.min(a[ai + hi + range] as number, b[bi + hi + range] as number);
  }
}

/** Some key of a box: free bits 0, ranges at their low end. */
export function someKey({ words, ranges }: Shape, box: Uint32Array, at: number): Uint32Array {
  const key = new Uint32Array(words + ranges);
  for (let word = 0; word < words; word += 1) key[word] = box[at + word] as number;
  for (let range = 0; range < ranges; range += 1)
    key[words + range] = box[at + 2 * words + range] as number;
  return key;
}
