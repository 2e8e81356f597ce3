import assert from 'node:assert/strict';
import type { MeshCertificateSpec } from '../../src/config/schema/mesh-certificate.ts';
import { emergencyAt, lifetimeOf } from '../../src/core/schedule.ts';
import { verify } from '../../src/core/verify.ts';
import { FIELD_MANAGER, type KubeObject, OWNER_LABEL } from '../../src/objects/objects.ts';
import { type Certificate, parseCertificates } from '../../src/pki/certificate.ts';
import { findPath } from '../../src/pki/chain.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { type ModelCluster, type Shown, sameContent, secretRef } from './kube.ts';
import { ID, type ModelMesh } from './mesh.ts';
import { META, OWNER, type Replica } from './replica.ts';

const MINUTE = 60_000;
/** The clocks of all replicas differ by at most this. */
export const CLOCKS_APART = 5 * MINUTE;

export interface LedgerOptions {
  readonly spec: MeshCertificateSpec;
  /** The configured identity; undefined if the mesh decides. */
  readonly id: string | undefined;
  readonly mesh: ModelMesh;
  readonly cluster: () => ModelCluster;
  readonly now: () => number;
  readonly monotonic: () => number;
  readonly replica: (name: string) => Replica | undefined;
  /** Whether this replica holds the Lease, according to the world. */
  readonly holdsLease: (name: string) => boolean;
  /** Whether the current call was sent before the Lease went to another replica. */
  readonly isLate: (name: string) => boolean;
  /** Whether the clocks of the API server and of the replicas agree. */
  readonly clocksAgree: () => boolean;
}

interface Pair {
  readonly key: PrivateKey;
  readonly chain: readonly Certificate[];
  readonly bundle: readonly Certificate[];
}

/** A pair and a bundle that the API showed at the same time, for a judge that shares no code with the agent. PEM. */
export interface Observed {
  readonly what: string;
  readonly chain: string;
  readonly key: string;
  readonly roots: string;
  /** Epoch ms on the clock of the replica that wrote. */
  readonly at: number;
  /** The leaf or an issuer may have ended without a replacement. */
  readonly mayBeOver: boolean;
  /** The bundle beside the pair, which still has a root that ended and left the bundle that was written. */
  readonly beside: string;
}

/** What must hold for everything that the API ever showed. Each method throws when it does not. */
export class Ledger {
  readonly counts = new Map<string, number>();
  readonly observed: Observed[] = [];
  readonly #options: LedgerOptions;
  #failure: unknown;
  /** True time at which each root of the CA Secret first appeared there; -∞ if it cannot be known. */
  #standsSince = new Map<string, number>();
  /** True time at which a leading replica last named it. */
  #namedAt = new Map<string, number>();
  /** Objects that somebody else wrote last. */
  #foreign = new Set<string>();
  #lastWrite: { side: 'secret' | 'gateway'; at: number; wall: number; by: string; known: boolean } | undefined;
  /** When paths that were found once are good. */
  readonly #paths = new Map<string, { readonly from: number; readonly until: number }>();

  constructor(options: LedgerOptions) {
    this.#options = options;
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  /** A process loses the memory of its own last write when it ends. */
  crashed(name: string): void {
    if (this.#lastWrite?.by === name) this.#lastWrite.by = `${name}, a process before`;
  }

  /** Called by the world whenever a leading replica follows what the mesh says. */
  named(roots: readonly Certificate[]): void {
    for (const { fingerprint } of roots) this.#namedAt.set(fingerprint, this.#options.now());
  }

  /**
   * Called for every write that the API accepted. Violations are stored: if thrown, the caller would treat them as a
   * fault of the API.
   */
  shown(shown: Shown): void {
    try {
      this.#judge(shown);
    } catch (error) {
      this.#failure ??= error;
    }
  }

  /** Checks the current state; called after each step. */
  check(): void {
    if (this.#failure) throw this.#failure;
    this.#standing();
  }

  #judge(shown: Shown): void {
    const { by, verb, before, after } = shown;
    const replica = this.#options.replica(by);
    const object = after ?? before;
    if (!object) return;
    const name = `${object.kind}/${object.metadata.name}`;
    if (!replica) {
      // A deleted object does not show a new process when it was written.
      if (!after && this.#lastWrite) this.#lastWrite.known = false;
      if (!sameContent(before, after)) this.#foreign.add(name);
      if (object.metadata.name === this.#options.spec.caSecretName) this.#forgetTimes(after);
      else if (this.#foreign.has(`Secret/${this.#options.spec.caSecretName}`)) this.#forgetTimes(this.#caSecret());
      return;
    }
    this.count(`${verb} ${object.kind}`);
    assert.notEqual(verb, 'delete', `${name}: nothing that a gateway may refer to is ever deleted`);
    if (verb === 'merge') return;
    this.#ownOrLeave(name, before, shown);
    this.#change(name, before, after);
    this.#fenced(name, by);
    this.#spaced(name, object.kind, by);
    if (object.metadata.name === this.#options.spec.caSecretName && after) this.#bundleWritten(before, after);
    if (object.metadata.name === this.#options.spec.secretName && after) this.#pairWritten(replica, before, after);
    if (object.kind === 'TLSContext' && after) this.#contextWritten(name, after);
    this.#foreign.delete(name);
    this.#observe(replica, object);
    this.#standing();
  }

  /** A written pair with the bundle beside it and the one in the CA Secret; a written bundle with the pair. */
  #observe(replica: Replica, { kind, metadata: { name } }: KubeObject): void {
    const { spec, cluster } = this.#options;
    if (kind !== 'Secret') return;
    const [pair, ca] = [spec.secretName, spec.caSecretName].map((secret) =>
      this.#foreign.has(`Secret/${secret}`) ? undefined : cluster().get(secretRef(META.namespace, secret)),
    );
    const isPair = name === spec.secretName;
    if (!pair || !(isPair || isComplete(pair))) return;
    for (const [where, bundle] of [
      ['the bundle beside it', isPair ? text(pair, 'ca.crt') : undefined],
      ['the bundle in the CA Secret', ca && text(ca, 'tls.crt')],
    ] as const) {
      if (bundle === undefined) continue;
      this.observed.push({
        what: `${isPair ? 'a pair was written' : 'a bundle was written'}: the pair under ${where}`,
        chain: text(pair, 'tls.crt'),
        key: text(pair, 'tls.key'),
        roots: bundle,
        at: replica.clock.now(),
        mayBeOver: !isPair,
        beside: text(pair, 'ca.crt'),
      });
    }
  }

  #standing(): void {
    const { spec, cluster, now, mesh } = this.#options;
    const ca = cluster().get(secretRef(META.namespace, spec.caSecretName));
    const secret = cluster().get(secretRef(META.namespace, spec.secretName));
    if (this.#foreign.has(`Secret/${spec.caSecretName}`) || !ca || !isComplete(ca)) return;
    const bundle = bundleOf(ca);
    assert.ok(bundle.length > 0, 'the bundle is empty');
    if (secret && isComplete(secret) && !this.#foreign.has(`Secret/${spec.secretName}`)) {
      const pair = pairOf(secret);
      const [leaf] = pair.chain;
      assert.ok(leaf, 'the pair has no leaf');
      assert.equal(pair.key.publicKeyFingerprint, leaf.publicKeyFingerprint, 'the key does not belong to the leaf');
      const beside = findPath(leaf, pair.chain.slice(1), pair.bundle, now(), CLOCKS_APART);
      // Nothing is at fault when something ended without a replacement.
      const over = !beside.ok && beside.reason === 'expired_link';
      const holds = (roots: readonly Certificate[]) => over || this.#verifies(pair.chain, roots, now());
      assert.ok(holds(bundle), 'the published leaf does not verify under the published bundle');
      assert.ok(holds(pair.bundle), 'what stands does not verify under the bundle beside it');
    }
    for (const upstream of mesh.upstreams) {
      const { fingerprint } = upstream.root;
      if (!mesh.isLive(upstream) || !this.#standsSince.has(fingerprint)) continue;
      // A root that came back is unknown until it is named.
      if ((this.#namedAt.get(fingerprint) ?? 0) < (mesh.backAt.get(fingerprint) ?? 0)) continue;
      assert.ok(
        this.#verifies(upstream.chain, bundle, now()),
        `${upstream.name} is live and can no longer be verified`,
      );
    }
  }

  #ownOrLeave(name: string, before: KubeObject | undefined, { verb, sentVersion }: Shown): void {
    if (!before) assert.notEqual(verb, 'apply', `${name} was created by a write that expected it to exist`);
    if (!before) return;
    assert.equal(before.metadata.labels?.[OWNER_LABEL], OWNER, `${name} was overwritten without our label`);
    const managers = before.metadata.managedFields ?? [];
    assert.ok(
      managers.some(({ manager }) => manager === FIELD_MANAGER),
      `${name} was overwritten without our manager`,
    );
    if (verb === 'apply')
      assert.ok(sentVersion !== undefined, `${name} was written without the version that was last read`);
  }

  #change(name: string, before: KubeObject | undefined, after: KubeObject | undefined): void {
    assert.ok(!sameContent(before, after), `${name} was written without a change`);
  }

  #fenced(name: string, by: string): void {
    if (this.#options.isLate(by)) this.count('late write');
    else assert.ok(this.#options.holdsLease(by), `${name} was written by ${by} without the Lease`);
  }

  #spaced(name: string, kind: string, by: string): void {
    const at = this.#options.monotonic();
    const now = this.#options.now();
    const side = kind === 'TLSContext' ? 'gateway' : 'secret';
    const last = this.#lastWrite;
    // Nobody could see the write that a frozen replica still had in flight, and only the server's clock shows another
    // replica's write time.
    if (this.#options.isLate(by)) return;
    if (last && last.side !== side && (last.by === by || (last.known && this.#options.clocksAgree()))) {
      // While all are suspended, time passes for the gateway too.
      const apart = Math.max(at - last.at, now - last.wall);
      assert.ok(apart >= 2000, `${name} was written ${apart} ms after an object of the other kind`);
    }
    this.#lastWrite = { side, at, wall: now, by, known: true };
  }

  #bundleWritten(before: KubeObject | undefined, after: KubeObject): void {
    const { now, spec, mesh } = this.#options;
    const foreign = this.#foreign.has(`Secret/${spec.caSecretName}`);
    const isOurs = before !== undefined && !foreign && isComplete(before);
    if (before && !isComplete(before)) this.#standsSince.clear();
    const was = isOurs ? bundleOf(before) : [];
    const bundle = bundleOf(after);
    const is = new Set(bundle.map(({ fingerprint }) => fingerprint));
    const keys = bundle.map(({ subject, publicKeyFingerprint }) => `${subject} ${publicKeyFingerprint}`);
    assert.equal(new Set(keys).size, keys.length, 'two roots of one subject and key are in the bundle');
    const retain = Math.max(spec.trust.retainMs, mesh.lifeMs);
    for (const root of was) {
      if (is.has(root.fingerprint)) continue;
      const since = this.#standsSince.get(root.fingerprint);
      this.#standsSince.delete(root.fingerprint);
      const heir = bundle.find(
        (one) => one.subject === root.subject && one.publicKeyFingerprint === root.publicKeyFingerprint,
      );
      if (heir && heir.notBefore <= now() + CLOCKS_APART && heir.notAfter >= root.notAfter) {
        this.count('root dropped: renewed with its key');
        if (since !== undefined) this.#standsSince.set(heir.fingerprint, since);
        continue;
      }
      if (root.notAfter <= now() + CLOCKS_APART) {
        this.count('root dropped: expired');
        continue;
      }
      this.count('root dropped: retention passed');
      const unnamed = now() - (this.#namedAt.get(root.fingerprint) ?? Number.NEGATIVE_INFINITY);
      assert.ok(unnamed >= retain - CLOCKS_APART, `a root was dropped ${unnamed} ms after the mesh last named it`);
    }
    const known = new Set(was.map(({ fingerprint }) => fingerprint));
    for (const fingerprint of is) {
      if (known.has(fingerprint) || this.#standsSince.has(fingerprint)) continue;
      this.#standsSince.set(fingerprint, was.length > 0 ? now() : Number.NEGATIVE_INFINITY);
      if (before) this.count('root added');
    }
  }

  #pairWritten(replica: Replica, before: KubeObject | undefined, after: KubeObject): void {
    const { mesh, now, spec } = this.#options;
    const at = replica.clock.now();
    const next = pairOf(after);
    const [leaf] = next.chain;
    const verdict = verify(next, next.bundle, { form: 'spiffe', trustDomain: 'td', id: this.#options.id }, at);
    assert.ok(verdict.ok && leaf, verdict.ok ? '' : `a pair was written that does not verify: ${verdict.code}`);
    if (!before || this.#foreign.has(`Secret/${spec.secretName}`)) return;
    const last = pairOf(before);
    const [old] = last.chain;
    if (!old || old.fingerprint === leaf.fingerprint) return;
    this.count('leaf replaced');
    const path = findPath(old, last.chain.slice(1), last.bundle, at);
    const tired = !path.ok || at >= emergencyAt(lifetimeOf(path.path));
    if (tired) {
      this.count('leaf replaced in its last tenth or later');
      return;
    }
    assert.deepEqual(leaf.names.uris, old.names.uris, 'another identity replaced a valid one');
    assert.ok(leaf.notBefore >= old.notBefore, 'an older leaf replaced a newer valid one');
    const lost = mesh.upstreams.filter((one) => mesh.accepts(one, last.chain) && !mesh.accepts(one, next.chain));
    if (lost.length === 0) return;
    const said = replica.probeOf({ id: ID, ...next, roots: [] });
    const under = next.bundle.filter((root) => findPath(leaf, next.chain.slice(1), [root], at, CLOCKS_APART).ok);
    const stood = Math.max(...under.map(({ fingerprint }) => now() - (this.#standsSince.get(fingerprint) ?? now())));
    this.count(`an upstream lost: ${said === 'accepted' ? 'the probed one accepted' : 'the hold passed'}`);
    assert.notEqual(said, 'refused', 'a leaf was published that the probed upstream refuses');
    if (said === 'accepted') return;
    assert.ok(
      stood >= spec.trust.holdMs - CLOCKS_APART,
      `${lost.map(({ name }) => name).join()} refuses the new leaf, whose root has stood ${stood} ms`,
    );
  }

  #contextWritten(name: string, { spec: fields }: KubeObject): void {
    const { spec, cluster } = this.#options;
    const { hosts, cert_required, ca_secret, secret } = fields as Record<string, unknown>;
    assert.deepEqual([hosts, cert_required], [[], undefined], `${name} would terminate TLS`);
    assert.deepEqual([ca_secret, secret], [spec.caSecretName, spec.secretName], `${name} names other Secrets`);
    for (const secret of [spec.caSecretName, spec.secretName]) {
      if (this.#foreign.has(`Secret/${secret}`)) continue;
      assert.ok(
        cluster().get(secretRef(META.namespace, secret)),
        `${name} names the Secret ${secret}, which is missing`,
      );
    }
  }

  #caSecret(): KubeObject | undefined {
    return this.#options.cluster().get(secretRef(META.namespace, this.#options.spec.caSecretName));
  }

  /**
   * Somebody else wrote the CA Secret: the age of its roots is no longer known. The copy beside the pair shows which
   * they were, unless the foreign write can be read. A process that died before it wrote the uid into the pair leaves
   * one that its successor cannot tell from a planted one.
   */
  #forgetTimes(after: KubeObject | undefined): void {
    const { cluster, spec } = this.#options;
    const secret = cluster().get(secretRef(META.namespace, spec.secretName));
    const isOurs = secret && isComplete(secret) && !this.#foreign.has(`Secret/${spec.secretName}`);
    const copy = isOurs ? pairOf(secret).bundle : [];
    const read = after ? bundleOf(after) : [];
    const named = new Set((read.length > 0 ? read : copy).map(({ fingerprint }) => fingerprint));
    for (const fingerprint of this.#standsSince.keys()) {
      if (named.has(fingerprint)) this.#standsSince.set(fingerprint, Number.NEGATIVE_INFINITY);
      else this.#standsSince.delete(fingerprint);
    }
    for (const fingerprint of named) this.#standsSince.set(fingerprint, Number.NEGATIVE_INFINITY);
  }

  #verifies(chain: readonly Certificate[], bundle: readonly Certificate[], at: number): boolean {
    const [leaf] = chain;
    if (!leaf) return false;
    const key = [...chain, ...bundle].map(({ fingerprint }) => fingerprint.slice(0, 12)).join();
    const known = this.#paths.get(key);
    if (known && at >= known.from && at < known.until) return true;
    const found = findPath(leaf, chain.slice(1), bundle, at, CLOCKS_APART);
    if (!found.ok) return false;
    const from = Math.max(...found.path.map(({ notBefore }) => notBefore)) - CLOCKS_APART;
    this.#paths.set(key, { from, until: Math.min(...found.path.map(({ notAfter }) => notAfter)) });
    return true;
  }
}

const text = (object: KubeObject, field: string): string =>
  Buffer.from(String((object.data as Record<string, unknown> | undefined)?.[field] ?? ''), 'base64').toString();

const parsed = new Map<string, readonly Certificate[]>();

function certificates(pem: string): readonly Certificate[] {
  const known = parsed.get(pem);
  if (known) return known;
  if (parsed.size > 500) parsed.clear();
  const found = parseCertificates(pem);
  parsed.set(pem, found);
  return found;
}

const keys = new Map<string, PrivateKey>();

function keyOf(pem: string): PrivateKey {
  const known = keys.get(pem) ?? PrivateKey.fromPem(pem);
  if (keys.size > 500) keys.clear();
  keys.set(pem, known);
  return known;
}

/** Unreadable counts as empty: somebody else may have written it. */
export function bundleOf(secret: KubeObject): readonly Certificate[] {
  try {
    return certificates(text(secret, 'tls.crt'));
  } catch {
    return [];
  }
}

export function pairOf(secret: KubeObject): Pair {
  return {
    key: keyOf(text(secret, 'tls.key')),
    chain: certificates(text(secret, 'tls.crt')),
    bundle: certificates(text(secret, 'ca.crt')),
  };
}

/** Both writes of the first publication were made: with its uid in it, a Secret is certainly ours. */
const isComplete = ({ metadata }: KubeObject): boolean => metadata.annotations?.['meshcert.dev/uid'] === metadata.uid;
