import { Option } from 'commander';
import { nearest } from '../config/validate.ts';
import { hostPort, parseDuration } from '../mesh/schema.ts';

/** What a shell completes as a value: files, or names from the cluster or the kubeconfig. */
export type Completes = 'files' | 'namespaces' | 'contexts' | 'certificates';

/** Whether the flags include this one. */
export const isGiven = (values: Readonly<Record<string, unknown>>, attribute: string, flag: Flag<unknown>): boolean =>
  values[attribute] !== undefined && values[attribute] !== flag.absent;

/** One flag of a command; T is the type of its value. */
export class Flag<T> extends Option {
  /** The value if the flag is absent. */
  readonly absent: T;
  completes: Completes | undefined;
  /** May be given more than once. */
  repeatable = false;
  /** Its value is a list separated by commas. */
  isList = false;
  /** The default as a user would write it, if `absent` has another form, such as milliseconds. */
  shownDefault: string | undefined;

  constructor(flags: string, description: string, absent: T) {
    super(flags, description);
    this.absent = absent;
  }

  /** Attribute names of flags that it cannot be used with. */
  readonly excludes: string[] = [];

  override conflicts(names: string | string[]): this {
    this.excludes.push(...[names].flat());
    return super.conflicts(names);
  }

  /** Sets what a shell completes as the value. */
  offers(completes: Completes): this {
    this.completes = completes;
    return this;
  }

  /** How messages name the flag. */
  get shown(): string {
    return this.long ?? this.short ?? this.flags;
  }
}

// biome-ignore lint/suspicious/noExplicitAny: the flags of some command, of whatever types
export type Flags = Readonly<Record<string, Flag<any>>>;

/** The values of a command's flags, by the names of their attributes. */
export type Values<F extends Flags> = { readonly [K in keyof F]: F[K] extends Flag<infer T> ? T : never };

/** A switch. With `--no-…` it is on until it is given. */
export function bool(flags: string, description: string): Flag<boolean> {
  const isNegated = /^--no-/.test(flags);
  return new Flag(flags, description, isNegated);
}

export function text(flags: string, description: string): Flag<string | undefined>;
export function text(flags: string, description: string, absent: string): Flag<string>;
export function text(flags: string, description: string, absent?: string): Flag<string | undefined> {
  return new Flag<string | undefined>(flags, description, absent);
}

/** Text that the flag's own rule accepts; `parse` throws an Error that says what it expected. */
export function parsed<T>(flags: string, description: string, parse: (value: string) => T): Flag<T | undefined> {
  const flag = new Flag<T | undefined>(flags, description, undefined);
  flag.argParser<T>((value) => checked(flag, value, parse));
  return flag;
}

/** A flag that may be repeated; its values in their order. */
export function texts(flags: string, description: string): Flag<readonly string[]> {
  return many(flags, description, (value) => value);
}

/** Like `texts`, with a parser for each value. */
export function many<T>(flags: string, description: string, parse: (value: string) => T): Flag<readonly T[]> {
  const flag = new Flag<readonly T[]>(flags, `${description}; may be repeated`, []);
  flag.repeatable = true;
  flag.argParser<readonly T[]>((value, before = []) => [...before, checked(flag, value, parse)]);
  return flag;
}

/** Values separated by commas. */
export function list(flags: string, description: string): Flag<readonly string[] | undefined> {
  const flag = parsed(flags, description, commaList);
  flag.isList = true;
  return flag;
}

/** Like `list`, restricted to these values. */
export function choices<const T extends string>(
  flags: string,
  description: string,
  known: readonly T[],
): Flag<readonly T[] | undefined> {
  const flag = parsed(flags, description, (value) => [...new Set(commaList(value))].map((part) => oneOf(part, known)));
  flag.argChoices = [...known];
  flag.isList = true;
  return flag;
}

const commaList = (value: string): readonly string[] => {
  const parts = value.split(',').map((part) => part.trim());
  if (parts.includes('')) throw new Error('expected values with commas between them');
  return parts;
};

export function choice<const T extends string>(
  flags: string,
  description: string,
  known: readonly T[],
): Flag<T | undefined>;
export function choice<const T extends string>(
  flags: string,
  description: string,
  known: readonly T[],
  absent: T,
): Flag<T>;
export function choice<const T extends string>(
  flags: string,
  description: string,
  known: readonly T[],
  absent?: T,
): Flag<T | undefined> {
  const flag = new Flag<T | undefined>(flags, description, absent);
  flag.argChoices = [...known];
  flag.argParser<T>((value) => checked(flag, value, () => oneOf(value, known)));
  return flag;
}

/** Milliseconds, from a duration such as `90s`. */
export function duration(flags: string, description: string): Flag<number | undefined>;
export function duration(flags: string, description: string, absent: string, least?: string): Flag<number>;
export function duration(flags: string, description: string, absent?: string, least = '0'): Flag<number | undefined> {
  const flag = new Flag<number | undefined>(
    flags,
    description,
    absent === undefined ? undefined : parseDuration(absent),
  );
  flag.argParser<number>((value) =>
    checked(flag, value, () => {
      const ms = parseDuration(value);
      if (ms < parseDuration(least)) throw new Error(`expected at least ${least}`);
      return ms;
    }),
  );
  flag.shownDefault = absent;
  return flag;
}

export function integer(flags: string, description: string, absent: number, least: number, most: number): Flag<number> {
  const flag = new Flag<number>(flags, description, absent);
  flag.argParser<number>((value) =>
    checked(flag, value, () => {
      const number = Number(value);
      if (/^\d+$/.test(value) && number >= least && number <= most) return number;
      throw new Error(`expected a number from ${least} to ${most}`);
    }),
  );
  return flag;
}

function oneOf<T extends string>(value: string, known: readonly T[]): T {
  const found = known.find((one) => one === value);
  if (found !== undefined) return found;
  const meant = nearest(value, known);
  throw new Error(`expected ${alternatives(known)}${meant === undefined ? '' : `; did you mean ${meant}?`}`);
}

function checked<F, T>(flag: Flag<F>, value: string, parse: (value: string) => T): T {
  try {
    return parse(value);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    // Messages of shared parsers begin with the value themselves.
    const said = message.startsWith(JSON.stringify(value)) ? message : `${JSON.stringify(value)}: ${message}`;
    throw new UsageError(`${flag.shown} ${said}`);
  }
}

const alternatives = (known: readonly string[]): string =>
  known.length < 2 ? known.join('') : `${known.slice(0, -1).join(', ')} or ${known.at(-1)}`;

const address = hostPort('web.shop:443');

/** A flag's value, by the rule for addresses in configuration. Throws an Error that says what was expected. */
export function hostAndPort(text: string): string {
  const { success, data, error } = address.safeParse(text);
  if (!success) throw new Error(error.issues[0]?.message);
  return data;
}

/** The flags were wrong; the message says which, and the usage is shown after it. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** For every command that reads MeshCertificates of any mesh. */
export const adapterFlag = () =>
  texts(
    '--adapter <file>',
    'Also load the adapter in this ES module, which runs with all rights of this process (docs/adapters.md)',
  ).offers('files');
