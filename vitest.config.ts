import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'fast',
          include: ['test/{unit,golden,property}/**/*.test.ts'],
          setupFiles: ['test/support/property-seed.ts'],
          testTimeout: 120_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        // These load programs, attach them and send frames: each in namespaces of its own, after the others.
        test: {
          name: 'kernel',
          include: ['test/kernel/**/*.test.ts'],
          setupFiles: ['test/support/property-seed.ts'],
          pool: 'forks',
          maxWorkers: 2,
          testTimeout: 300_000,
          hookTimeout: 300_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        // These boot a kernel of their own; see test/lab/build.sh.
        test: {
          name: 'lab',
          include: ['test/lab/**/*.test.ts'],
          maxWorkers: 2,
          testTimeout: 900_000,
          sequence: { groupOrder: 2 },
        },
      },
    ],
    passWithNoTests: true,
    teardownTimeout: 60_000,
  },
});
