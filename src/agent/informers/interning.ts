/** One of many equal parts, and how a part that contains it refers to it. */
interface InternedPart {
  readonly value: unknown;
  readonly id: string;
}

/** Longer texts, such as certificates, are seldom equal. */
const LONGEST = 256;
const PRIMITIVES: ReadonlySet<string> = new Set(['number', 'boolean', 'undefined']);
/** More than one object has parts; what many have in common is met again in the next. */
const MANY = 256;

/**
 * Makes equal parts of plain values one, among the newest that it met: of a thousand objects of one kind most parts
 * are equal, and the server sends a new copy of each. The value is changed in place, to one that equals it. What is in fields
 * named `except` is not looked at, nor remembered.
 */
export function interning(except?: string): <T>(value: T) => T {
  let newer = new Map<string, InternedPart>();
  let older = new Map<string, InternedPart>();
  let count = 0;

  const known = (print: string, value: unknown): InternedPart => {
    const met = newer.get(print);
    if (met) return met;
    const part = older.get(print) ?? { value, id: `#${count++}` };
    if (newer.size >= MANY) {
      older = newer;
      newer = new Map();
    }
    newer.set(print, part);
    return part;
  };

  /** Undefined where something in it is long, left out or more than its fields. */
  const partOf = (value: unknown): InternedPart | undefined => {
    if (typeof value === 'string') return value.length > LONGEST ? undefined : known(`"${value}`, value);
    if (value === null || PRIMITIVES.has(typeof value)) return { value, id: String(value) };
    if (!isPlain(value)) return undefined;
    let print = Array.isArray(value) ? '[' : '{';
    let isWhole = true;
    for (const name of Object.keys(value)) {
      const part = name === except ? undefined : partOf(value[name]);
      const label = partOf(name);
      if (!part || !label) isWhole = false;
      else {
        if (part.value !== value[name]) value[name] = part.value;
        print += `${label.id}=${part.id},`;
      }
    }
    return isWhole ? known(print, value) : undefined;
  };

  return <T>(value: T) => (partOf(value) ?? { value }).value as T;
}

/** What has a class may differ in what is not seen from outside: a hidden text looks like any other. */
function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === Array.prototype || prototype === null;
}
