/** A place in an input file; `line` and `column` count from 1. */
export interface FilePlace {
  readonly kind: 'file';
  readonly file: string;
  readonly line: number | null;
  readonly column: number | null;
}

/** A place in a ruleset, spelled as nft spells it: `inet filter input handle 12`. */
export interface RulesetPlace {
  readonly kind: 'ruleset';
  readonly path: string;
}

export type Place = FilePlace | RulesetPlace;

/** Something the user can act on; never thrown, always part of a `Result`. */
export interface Diagnostic {
  /** Stable `stage/what-is-wrong`. */
  readonly code: string;
  readonly severity: 'error' | 'warning' | 'notice';
  readonly message: string;
  /** What to change, or null when nothing more can be said. */
  readonly help: string | null;
  readonly place: Place | null;
}

/** A value with what was noticed on the way, or the errors that stand in its way. */
export type Result<T> =
  | { readonly ok: true; readonly value: T; readonly diagnostics: readonly Diagnostic[] }
  | { readonly ok: false; readonly diagnostics: readonly Diagnostic[] };

export function succeed<T>(value: T, diagnostics: readonly Diagnostic[] = []): Result<T> {
  return { ok: true, value, diagnostics };
}

export function fail(...diagnostics: readonly Diagnostic[]): Result<never> {
  return { ok: false, diagnostics };
}

/** One error as a diagnostic. */
export function errorAt(
  code: string,
  message: string,
  options: { readonly help?: string; readonly place?: Place } = {},
): Diagnostic {
  return {
    code,
    severity: 'error',
    message,
    help: options.help ?? null,
    place: options.place ?? null,
  };
}

/** Why a part of a ruleset cannot be evaluated or offloaded; `code` is stable, `message` is for people. */
export interface Reason {
  readonly code: string;
  readonly message: string;
}

function formatPlace(place: Place): string {
  if (place.kind === 'ruleset') return place.path;
  const parts = [place.file, place.line, place.line === null ? null : place.column];
  return parts.filter((part) => part !== null).join(':');
}

/** What names and other machines' words must not do to a terminal; lines and columns may stay. */
const CONTROLS = /(?![\n\t])\p{Cc}/gu;

/** `error[code] place: message`, with the help on a second line. */
export function formatDiagnostic(diagnostic: Diagnostic): string {
  const at = diagnostic.place === null ? '' : `${formatPlace(diagnostic.place)}: `;
  const head = `${diagnostic.severity}[${diagnostic.code}] ${at}${diagnostic.message}`;
  const text = diagnostic.help === null ? head : `${head}\n  help: ${diagnostic.help}`;
  return text.replace(CONTROLS, (char) => {
    return `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}
