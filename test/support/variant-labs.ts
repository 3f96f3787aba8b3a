import { stopReassembly } from './compare.ts';
import { type KernelLab, openKernelLab } from './kernel-lab.ts';
import type { Variant } from './variants.ts';

/** Labs for variants, one for all that are alike. */
export interface VariantLabs {
  /** The lab of a variant's kind, opened when it is first asked for. */
  readonly of: (variant: Pick<Variant, 'router' | 'topology'>) => Promise<KernelLab>;
  close(): Promise<void>;
}

/** Opens none yet. */
export function openVariantLabs(): VariantLabs {
  const open = new Map<string, KernelLab>();
  return {
    of: async ({ router, topology }) => {
      const key = `${router} ${topology}`;
      const known = open.get(key);
      if (known !== undefined) return known;
      const lab = await openKernelLab({ router, topology });
      open.set(key, lab);
      await stopReassembly(lab);
      return lab;
    },
    close: async () => {
      for (const lab of open.values()) await lab.close();
    },
  };
}
