/** A prefix of a range column: its lowest `free` bits are anything. */
export interface PortPrefix {
  readonly value: number;
  readonly free: number;
  /** Painted in the other action: a hole beside the range. */
  readonly isHole: boolean;
}

/**
 * What may be done with the values on one side of a range, inside the prefix around it. none: they
 * stay untouched. hole: painted in the other action, which they get anyway. own: painted like the
 * range, which they get anyway.
 */
export type Side = 'none' | 'hole' | 'own';

type Colour = 'clear' | 'in' | 'hole';

interface Plan {
  readonly cost: number;
  /** First match first: longer prefixes before those that hold them. */
  readonly rows: readonly PortPrefix[];
}

const IMPOSSIBLE: Plan = { cost: Number.POSITIVE_INFINITY, rows: [] };
const NOTHING: Plan = { cost: 0, rows: [] };

/** The longest prefix that holds lo..hi. */
export function enclosing(lo: number, hi: number): PortPrefix {
  let free = 0;
  while (Math.floor(lo / 2 ** free) !== Math.floor(hi / 2 ** free)) free += 1;
  return { value: Math.floor(lo / 2 ** free) * 2 ** free, free, isHole: false };
}

/** The fewest ordered prefixes that paint lo..hi, given what may be done beside it. */
export function paintRange(lo: number, hi: number, low: Side, high: Side): readonly PortPrefix[] {
  function uniform(value: number, free: number, colour: Colour): Plan | null {
    const end = value + 2 ** free - 1;
    if (value >= lo && end <= hi) {
      if (colour === 'in') return NOTHING;
      return { cost: 1, rows: [{ value, free, isHole: false }] };
    }
    const isLow = end < lo;
    if (!isLow && value <= hi) return null;
    if (colour === 'clear') return NOTHING;
    const side = isLow ? low : high;
    if (side === 'none') return IMPOSSIBLE;
    if (side === (colour === 'in' ? 'own' : 'hole')) return NOTHING;
    return { cost: 1, rows: [{ value, free, isHole: side === 'hole' }] };
  }

  const known = new Map<string, Plan>();

  function paint(value: number, free: number, colour: Colour): Plan {
    const done = uniform(value, free, colour);
    if (done !== null) return done;
    const key = `${value}/${free} ${colour}`;
    const plan = known.get(key) ?? paintMixed(value, free, colour);
    known.set(key, plan);
    return plan;
  }

  function paintMixed(value: number, free: number, colour: Colour): Plan {
    const half = 2 ** (free - 1);
    let best = IMPOSSIBLE;
    for (const next of ['clear', 'in', 'hole'] as const) {
      if (next === 'clear' && colour !== 'clear') continue;
      const extra = next === colour ? 0 : 1;
      const first = paint(value, free - 1, next);
      const second = paint(value + half, free - 1, next);
      const cost = first.cost + second.cost + extra;
      if (cost >= best.cost) continue;
      const own = extra === 0 ? [] : [{ value, free, isHole: next === 'hole' }];
      best = { cost, rows: [...first.rows, ...second.rows, ...own] };
    }
    return best;
  }

  const around = enclosing(lo, hi);
  return paint(around.value, around.free, 'clear').rows;
}
