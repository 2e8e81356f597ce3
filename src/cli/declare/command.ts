import type { Completes, Flags, Values } from './flags.ts';

/** The environment of a command, which tests replace. */
export interface Io {
  readonly stdout: Output;
  readonly stderr: Output;
  /** Absent: there is no one to ask. */
  readonly stdin?: (NodeJS.ReadableStream & { readonly isTTY?: boolean | undefined }) | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
}

export interface Output {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  readonly rows?: number | undefined;
}

/** A positional argument. */
export interface Parameter {
  readonly name: string;
  readonly description: string;
  readonly required?: boolean;
  /** The last one may take all remaining arguments. */
  readonly variadic?: boolean;
  readonly choices?: readonly string[];
  readonly completes?: Completes;
  /** Its completion after another first argument. */
  readonly after?: Readonly<Record<string, Completes | undefined>>;
  /** Attribute names of flags that take its place. */
  readonly replacedBy?: readonly string[];
}

/** MeshCertificates by name. */
export const CERTIFICATE_NAMES: Parameter = {
  name: 'name',
  description: 'MeshCertificates (default: all in the namespace)',
  variadic: true,
  completes: 'certificates',
};

export interface Example {
  readonly does: string;
  /** One command line, or several separated by newlines. */
  readonly line: string;
}

/** The parsed command line. */
export interface Given<F extends Flags> {
  readonly flags: Values<F>;
  readonly args: readonly string[];
}

/** One command. Parsing, help, completion and the reference are all generated from it. */
export interface Command<F extends Flags = Flags> {
  readonly name: string;
  /** One line, for `meshcert --help`. */
  readonly summary: string;
  /** Paragraphs separated by an empty line. */
  readonly description: string;
  /** The text after `meshcert NAME`, if it says more than the flags and parameters themselves. */
  readonly usage?: readonly string[];
  readonly parameters?: readonly Parameter[];
  /** By their attribute names: `dryRun` for `--dry-run`. Their order is that of the help. */
  readonly flags: F;
  readonly examples: readonly Example[];
  /** Set if they differ from 0 done, 1 failed, 2 wrong usage. */
  readonly exitCodes?: string;
  /** Resolves to the exit code: 0 done, 1 failed, 2 wrong usage. Throws UsageError for wrong flags. */
  run(given: Given<F>, io: Io): Promise<number>;
}

/** Whatever its flags. */
// biome-ignore lint/suspicious/noExplicitAny: a list of commands has all kinds of flags
export type AnyCommand = Command<any>;

/** Infers the types of the flags. */
export const declare = <const F extends Flags>(command: Command<F>): Command<F> => command;
