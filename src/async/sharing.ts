/** Something that several hold. It is closed when the last of them lets go. */
export interface SharedHandle<T> extends Disposable {
  readonly value: T;
}

/** Makes what does not yet exist under this key. */
export type Share = <T extends Disposable>(key: string, make: () => T) => SharedHandle<T>;

/** Connections and the like that exist once, however many ask for the same at a time. */
export function sharing(): Share {
  const all = new Map<string, Shared>();
  return <T extends Disposable>(key: string, make: () => T): SharedHandle<T> => {
    const entry = all.get(key) ?? { value: make(), holders: 0, over: () => all.delete(key) };
    all.set(key, entry);
    entry.holders += 1;
    return new Holder(entry, entry.value as T);
  };
}

interface Shared {
  readonly value: Disposable;
  readonly over: () => void;
  holders: number;
}

/** Not a closure: a thousand may hold the same thing for as long as they live. */
class Holder<T> implements SharedHandle<T> {
  readonly value: T;
  #of: Shared | undefined;

  constructor(of: Shared, value: T) {
    this.#of = of;
    this.value = value;
  }

  [Symbol.dispose](): void {
    const of = this.#of;
    if (!of) return;
    this.#of = undefined;
    of.holders -= 1;
    if (of.holders > 0) return;
    of.over();
    of.value[Symbol.dispose]();
  }
}
