/** Something that several hold. It is closed when the last of them lets go. */
export interface Held<T> extends Disposable {
  readonly value: T;
}

/** Makes what does not yet exist under this key. */
export type Share = <T extends Disposable>(key: string, make: () => T) => Held<T>;

/** Connections and the like that exist once, however many ask for the same at a time. */
export function sharing(): Share {
  const all = new Map<string, { value: Disposable; holders: number }>();
  return <T extends Disposable>(key: string, make: () => T): Held<T> => {
    const entry = all.get(key) ?? { value: make(), holders: 0 };
    all.set(key, entry);
    entry.holders += 1;
    let held = true;
    return {
      value: entry.value as T,
      [Symbol.dispose]() {
        if (!held) return;
        held = false;
        entry.holders -= 1;
        if (entry.holders > 0) return;
        all.delete(key);
        entry.value[Symbol.dispose]();
      },
    };
  };
}
