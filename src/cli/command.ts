/** The outside world of a command, so that tests can stand in for it. */
export interface Io {
  readonly stdout: Output;
  readonly stderr: Output;
  /** Absent: nobody can be asked. */
  readonly stdin?: (NodeJS.ReadableStream & { readonly isTTY?: boolean | undefined }) | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
}

export interface Output {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

/** One verb of the command line. */
export interface Command {
  readonly name: string;
  /** One line, for `meshcert --help`. */
  readonly summary: string;
  /** What `meshcert NAME --help` prints; no line over 80 columns. */
  readonly usage: string;
  /** Resolves to the exit code: 0 done, 1 failed, 2 wrong usage. Throws UsageError for wrong flags. */
  run(argv: readonly string[], io: Io): Promise<number>;
}

/** The flags that a command's usage names. */
export const flagsOf = ({ usage }: Command): readonly string[] => [
  ...new Set(usage.match(/(?<![\w-])--?[a-zA-Z][a-z-]*/g) ?? []),
];

/** The flags were wrong; the message says which, and the usage is shown after it. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}
