import { once } from './once.ts';

/** A handle on something shared, which is closed when its last handle is disposed of. */
export interface SharedHandle<T> extends Disposable {
  readonly value: T;
}

/** Makes what does not exist yet under this key. */
export type Share = <T extends Disposable>(key: string, make: () => T) => SharedHandle<T>;

/** Connections and the like that exist once, however many callers request them at a time. */
export function sharing(): Share {
  const all = new Map<string, { readonly value: Disposable; holders: number }>();
  return <T extends Disposable>(key: string, make: () => T): SharedHandle<T> => {
    const shared = all.get(key) ?? { value: make(), holders: 0 };
    all.set(key, shared);
    shared.holders += 1;
    const letGo = once(() => {
      shared.holders -= 1;
      if (shared.holders > 0) return;
      all.delete(key);
      shared.value[Symbol.dispose]();
    });
    return { value: shared.value as T, ...letGo };
  };
}
