import { z } from 'zod';

/** Sizes and counts of devices and of the kernel are 32 bits, as union bpf_attr has them. */
export const MOST_U32 = 0xffff_ffff;

/** Where a number comes from; one that nobody has checked says `unverified` in it. */
export const source = z
  .string()
  .regex(
    /\S{3}/,
    'a source says where it comes from: kernel file and symbol, document, measurement',
  )
  .describe(
    'Where it comes from: kernel file and symbol, document and section, or measurement. A number nobody has checked says `unverified`.',
  );

/** A number in `unit`, between 1 and `most`, with its source. */
export function quantity<U extends string>(unit: U, most = MOST_U32, why = '32 bits') {
  return z.strictObject({
    value: z.int().min(1, 'must be at least 1').max(most, `impossible: at most ${most} (${why})`),
    unit: z.literal(unit, `the unit here is \`${unit}\``),
    source,
  });
}

/** A property that is not a number, with its source. */
export function sourced<T extends z.ZodType>(value: T) {
  return z.strictObject({ value, source });
}
