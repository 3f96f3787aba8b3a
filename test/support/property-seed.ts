/**
 * Properties run on the same cases each time, so that a failure is always the change's own;
 * `PROPERTY_SEED=random npx vitest run test/property` (or a number) looks further.
 */
import fc from 'fast-check';

const asked = process.env['PROPERTY_SEED'] ?? '1';
if (asked !== 'random') fc.configureGlobal({ seed: Number(asked) });
