import { type KubeObject, OWNER_LABEL } from '../../core/object.ts';

/** Which objects carry which owner label: of the objects of a thousand MeshCertificates, each needs only its own. */
export class OwnerIndex {
  /** Mostly one key for each owner: an array takes a third of the memory of a set. */
  readonly #keys = new Map<string, readonly string[]>();
  readonly #owners = new Map<string, string>();

  /** The keys (`keyOf`) of the objects of one owner. */
  keysOf(owner: string): readonly string[] {
    return this.#keys.get(owner) ?? [];
  }

  /** Takes over what changed. Returns the owners whose objects these are, or were. */
  update(changed: Iterable<string>, items: ReadonlyMap<string, KubeObject>): ReadonlySet<string> {
    const concerned = new Set<string>();
    for (const key of changed) {
      const before = this.#owners.get(key);
      const owner = items.get(key)?.metadata.labels?.[OWNER_LABEL];
      if (before !== undefined) concerned.add(before);
      if (owner !== undefined) concerned.add(owner);
      if (before === owner) continue;
      if (before !== undefined) this.#remove(key, before);
      if (owner !== undefined) this.#add(key, owner);
    }
    return concerned;
  }

  #add(key: string, owner: string): void {
    this.#owners.set(key, owner);
    this.#keys.set(owner, [...this.keysOf(owner), key]);
  }

  #remove(key: string, owner: string): void {
    this.#owners.delete(key);
    const others = this.keysOf(owner).filter((one) => one !== key);
    if (others.length > 0) this.#keys.set(owner, others);
    else this.#keys.delete(owner);
  }
}
