import type { KubeObject } from '../core/object.ts';

/** A status has half a dozen; where all are forgotten, the next are shared again. */
const MOST = 256;

/**
 * Equal conditions and roots of many statuses as one object each, and their texts as one string each: what a parser
 * makes of a thousand statuses that say the same is a thousand times the same.
 */
export class SharedParts {
  readonly #parts = new Map<string, object>();
  readonly #texts = new Map<string, string>();

  of<T extends KubeObject>(object: T): T {
    const status = object.status as { readonly conditions?: unknown; readonly roots?: unknown } | undefined;
    if (!Array.isArray(status?.conditions) || !Array.isArray(status.roots)) return object;
    const part = (one: unknown) => (typeof one === 'object' && one !== null ? this.#part(one) : one);
    return { ...object, status: { ...status, conditions: status.conditions.map(part), roots: status.roots.map(part) } };
  }

  #part(part: object): object {
    const key = JSON.stringify(part);
    const known = this.#parts.get(key);
    if (known) return known;
    const texts = Object.entries(part).map(([field, value]) => [field, this.#value(value)]);
    return keep(this.#parts, key, Object.assign({ ...part }, Object.fromEntries(texts)));
  }

  #value(value: unknown): unknown {
    return typeof value === 'string' ? (this.#texts.get(value) ?? keep(this.#texts, value, value)) : value;
  }
}

function keep<T>(known: Map<string, T>, key: string, value: T): T {
  if (known.size >= MOST) known.clear();
  known.set(key, value);
  return value;
}
