import { z } from 'zod';
import { profileSchema } from './schema.ts';

/** The profile schema as JSON Schema text, as hw-profiles/schema.json has it. */
export function renderProfileSchema(): string {
  return `${JSON.stringify(z.toJSONSchema(profileSchema, { reused: 'ref' }), null, 2)}\n`;
}
