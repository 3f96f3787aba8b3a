/** Writes hw-profiles/schema.json from the checks of src/profile/schema.ts. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { renderProfileSchema } from '../src/profile/json-schema.ts';

writeFileSync(join(import.meta.dirname, '../hw-profiles/schema.json'), renderProfileSchema());
