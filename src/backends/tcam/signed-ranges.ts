/** Keys of a width, as a binary prefix: the lowest `free` bits are anything. */
export interface PortPrefix {
  readonly value: number;
  readonly free: number;
  /** Inside the range, or beside it: a hole, whose keys get what they get anyway. */
  readonly isHole: boolean;
}

/** Which keys beside a range may be painted as holes. */
export interface Holes {
  readonly low: boolean;
  readonly high: boolean;
}

type Colour = 'clear' | 'in' | 'hole';

interface Plan {
  readonly cost: number;
  /** First match first: longer prefixes before those that hold them. */
  readonly rows: readonly PortPrefix[];
}

const IMPOSSIBLE: Plan = { cost: Number.POSITIVE_INFINITY, rows: [] };

/** The fewest ordered prefixes that paint exactly lo..hi, with holes beside it where these are allowed. */
export function paintRange(lo: number, hi: number, width: number, holes: Holes): readonly PortPrefix[] {
  function uniform(value: number, free: number, colour: Colour): Plan | null {
    const end = value + 2 ** free - 1;
    if (value >= lo && end <= hi) {
      if (colour === 'in') return { cost: 0, rows: [] };
      return { cost: 1, rows: [{ value, free, isHole: false }] };
    }
    const isLow = end < lo;
    if (!isLow && value <= hi) return null;
    if (colour === 'clear') return { cost: 0, rows: [] };
    if (!(isLow ? holes.low : holes.high)) return IMPOSSIBLE;
    if (colour === 'hole') return { cost: 0, rows: [] };
    return { cost: 1, rows: [{ value, free, isHole: true }] };
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
    const colours: readonly Colour[] =
      holes.low || holes.high ? ['clear', 'in', 'hole'] : ['clear', 'in'];
    for (const next of colours) {
      if (next === 'clear' && colour !== 'clear') continue;
      const extra = next === colour ? 0 : 1;
      const low = paint(value, free - 1, next);
      if (low.cost + extra >= best.cost) continue;
      const high = paint(value + half, free - 1, next);
      const cost = low.cost + high.cost + extra;
      if (cost >= best.cost) continue;
      const own = extra === 0 ? [] : [{ value, free, isHole: next === 'hole' }];
      best = { cost, rows: [...low.rows, ...high.rows, ...own] };
    }
    return best;
  }
  return paint(0, width, 'clear').rows;
}
