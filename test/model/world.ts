import assert from 'node:assert/strict';
import type { Clock } from '../../src/async/clock.ts';
import type { MeshCertificateSpec } from '../../src/config/schema/mesh-certificate.ts';
import { publicationRefs } from '../../src/gateway/desired.ts';
import { gatewaysOf } from '../../src/gateway/gateway.ts';
import { gateways } from '../../src/gateways.ts';
import { leafOf } from '../../src/mesh/identity.ts';
import { FIELD_MANAGER, type KubeObject, type ObjectRef, OWNER_LABEL } from '../../src/objects/objects.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { type ForeignEdit, meddle } from './foreign.ts';
import { type CallFault, ModelCluster, secretRef } from './kube.ts';
import { bundleOf, Ledger, pairOf } from './ledger.ts';
import { ID, ModelMesh } from './mesh.ts';
import type { KeyPool } from './pool.ts';
import { type Look, META, OWNER, Replica } from './replica.ts';

const MINUTE = 60_000;
const REPLICAS = ['a', 'b'] as const;
export type ReplicaName = (typeof REPLICAS)[number];

/** The faults of the leading replica's calls, in the order of its calls. */
export type Fault = CallFault | 'crash before' | 'crash after' | 'takeover' | 'foreign';

export interface WorldOptions {
  readonly keys: KeyPool;
  readonly retainMs: number;
  readonly holdMs: number;
  readonly probe: boolean;
  readonly upstreams: number;
  /** The configuration names the expected identity. */
  readonly named: boolean;
  /** Objects with our names that somebody created before us. */
  readonly squatted: boolean;
}

/** One cluster, one mesh, two replicas of the agent, and everything that may go wrong between them. */
export class World {
  readonly clock = new FakeClock();
  readonly spec: MeshCertificateSpec;
  readonly mesh: ModelMesh;
  readonly cluster: ModelCluster;
  readonly ledger: Ledger;
  readonly #options: WorldOptions;
  readonly #replicas: ReadonlyMap<string, Replica>;
  readonly #skews = new Map<string, number>();
  readonly #late = new Set<string>();
  #holder: ReplicaName | undefined;
  #faults: Fault[] = [];
  #next = new Map<string, number>();
  #heard: readonly Certificate[] = [];
  meshDown = false;
  apiDown = false;

  constructor(options: WorldOptions) {
    this.#options = options;
    options.keys.reset();
    this.spec = specOf(options);
    const now = () => this.clock.now();
    this.mesh = new ModelMesh({
      now,
      keys: options.keys,
      lifeMs: 60 * MINUTE,
      upstreams: options.upstreams,
      replicas: REPLICAS,
    });
    this.ledger = new Ledger({
      spec: this.spec,
      id: options.named ? ID : undefined,
      mesh: this.mesh,
      cluster: () => this.cluster,
      now,
      monotonic: () => this.clock.monotonic(),
      replica: (name) => this.#replicas.get(name),
      holdsLease: (name) => this.#holder === name,
      isLate: (name) => this.#late.has(name),
      clocksAgree: () => [...this.#skews.values()].every((ms) => ms === 0),
    });
    this.cluster = new ModelCluster(this.clock, META.namespace, (shown) => this.ledger.shown(shown));
    this.#replicas = new Map(REPLICAS.map((name) => [name, this.#replica(name)]));
    if (options.squatted) this.foreign('squat');
  }

  get leader(): Replica | undefined {
    return this.#holder && this.#replicas.get(this.#holder);
  }

  /** The Lease goes to this replica; the other one finds out at once, unless it is frozen within a call. */
  async elect(name: ReplicaName, frozen = false): Promise<void> {
    if (this.#holder === name) return;
    const before = this.leader;
    if (before && !frozen) before.resign();
    this.#holder = name;
    const replica = this.#replicas.get(name);
    if (this.apiDown) {
      this.#holder = undefined;
      return;
    }
    replica?.lead();
    this.#heard = [];
    this.ledger.count('election');
  }

  /** The leading replica reads the current state and acts on it. Writes that wait for the gateway are awaited. */
  async look(fresh: boolean): Promise<Look | undefined> {
    const replica = this.leader;
    if (!replica) return undefined;
    const current = fresh && !this.apiDown;
    if (current) replica.refresh();
    const pass = replica.look();
    let done = false;
    const settled = () => {
      done = true;
    };
    pass.then(settled, settled);
    for (let turns = 0; !done; turns++) {
      assert.ok(turns < 1000, 'a pass neither ends nor waits for time');
      await new Promise((resolve) => setImmediate(resolve));
      const { nextIn } = this.clock;
      if (!done && nextIn !== undefined) await this.clock.advance(nextIn);
    }
    const look = await pass;
    if (look) this.#countLook(look);
    const heard = look !== undefined && current && !look.decision.problem && !look.outcome?.problems.length;
    if (look?.decision.hold?.hold) this.probe();
    const roots = look?.decision.problem ? [] : (replica.candidate?.roots ?? []);
    // A push that names nothing changes nothing: this leader still uses what it heard before.
    if (roots.length > 0) this.#heard = roots;
    if (heard && replica === this.leader) this.ledger.named(this.#heard);
    return look;
  }

  /** The mesh's pushes reach the leading replica: the next ones, or what was pushed long ago and then all of them. */
  async deliver(how: 'next' | 'all' | 'stale' | 'bad'): Promise<void> {
    const replica = this.leader;
    if (!replica || this.meshDown) return;
    const pushes = this.mesh.pushes.get(replica.name) ?? [];
    const next = this.#next.get(replica.name) ?? 0;
    if (how === 'stale') {
      const old = pushes[Math.max(0, next - 3)];
      if (old) {
        replica.candidate = old;
        await this.look(true);
        this.ledger.count('stale push');
      }
      if (this.leader !== replica) return;
    }
    const last = pushes.length - 1;
    // The good push after a bad one is yet to come.
    const at = { next: Math.min(next, last), bad: last - 1, all: last, stale: last }[how];
    const identity = pushes[at];
    if (!identity) return;
    this.#next.set(replica.name, at + 1);
    replica.candidate = identity;
  }

  crash(): void {
    const replica = this.leader;
    if (!replica) return;
    replica.crash();
    this.#holder = undefined;
    this.#heard = [];
    this.ledger.crashed(replica.name);
    this.ledger.count('crash');
  }

  fault(fault: Fault): void {
    if (this.#faults.length < 6) this.#faults.push(fault);
  }

  skew(ms: number): void {
    for (const name of REPLICAS) this.#skews.set(name, name === 'a' ? ms : -ms);
  }

  async advance(ms: number): Promise<void> {
    await this.clock.advance(ms);
  }

  /** All clocks jump, as after a suspend: no timer saw the time pass. */
  suspend(ms: number): void {
    this.clock.step(ms);
  }

  /** The canary upstream says whether it accepts the held leaf. */
  probe(): void {
    const replica = this.leader;
    const [canary] = this.mesh.upstreams;
    const held = replica?.held;
    if (!replica || !canary || !held || !this.#options.probe) return;
    const accepted = this.mesh.accepts(canary, held.chain);
    replica.probed(held, accepted ? 'accepted' : 'refused');
    this.ledger.count(`probe ${accepted ? 'accepted' : 'refused'}`);
  }

  foreign(edit: ForeignEdit): void {
    this.ledger.count('foreign edit');
    this.#heard = [];
    meddle(this.cluster, this.#refs(), edit, () => this.#options.keys.take());
  }

  /**
   * Ends all faults and follows only what triggers a real agent: pushes, changes, and the time that it asked to be
   * called again. Then the published state must match the mesh, and stay so without a write.
   */
  async converge(): Promise<void> {
    this.#faults = [];
    this.meshDown = false;
    this.apiDown = false;
    this.skew(0);
    for (const ref of this.#refs()) {
      const object = this.cluster.get(ref);
      if (object && !isOurs(object)) this.cluster.write('admin', 'delete', ref, {}, { fieldManager: 'kubectl' });
    }
    if (!this.leader) await this.elect('a');
    this.mesh.heal();
    for (const upstream of this.mesh.upstreams) this.mesh.teach(upstream);
    await this.#settle(Math.max(this.spec.trust.retainMs, this.mesh.lifeMs) + this.mesh.lifeMs + 30 * MINUTE);
    this.#converged();
    const before = this.#versions();
    for (let looks = 0; looks < 3; looks++) {
      await this.look(true);
      await this.advance(MINUTE);
    }
    assert.deepEqual(this.#versions(), before, 'something is written although nothing changes');
  }

  async #settle(ms: number): Promise<void> {
    const until = this.clock.now() + ms;
    let passes = 0;
    for (let now = this.clock.now(); now < until; now = this.clock.now()) {
      const replica = this.leader;
      assert.ok(replica);
      const current = this.mesh.latest(replica.name);
      if (!current || now >= leafOf(current).notBefore + 0.6 * this.mesh.lifeMs) {
        for (const upstream of this.mesh.upstreams) this.mesh.renewUpstream(upstream);
        this.mesh.rotateLeaves();
      }
      await this.deliver('all');
      const look = await this.look(true);
      const changed = (look?.outcome?.written.length ?? 0) > 0;
      assert.ok(passes++ < 400, 'it never comes to rest');
      if (changed) continue;
      const asked = look?.decision.nextLook ?? Number.POSITIVE_INFINITY;
      assert.ok(asked > this.clock.now(), 'it asks to look again in the past');
      await this.advance(Math.min(asked - this.clock.now(), 22 * MINUTE, until - now));
    }
    await this.deliver('all');
    await this.look(true);
    await this.look(true);
  }

  #converged(): void {
    const objects = this.#refs().map((ref) => this.cluster.get(ref));
    assert.ok(
      objects.every((object) => object !== undefined && isOurs(object)),
      'something is missing',
    );
    const secret = this.cluster.get(secretRef(META.namespace, this.spec.secretName));
    const ca = this.cluster.get(secretRef(META.namespace, this.spec.caSecretName));
    const latest = this.leader && this.mesh.latest(this.leader.name);
    assert.ok(secret && ca && latest);
    const [leaf] = pairOf(secret).chain;
    assert.equal(leaf?.fingerprint, leafOf(latest).fingerprint, 'the newest leaf is not published');
    // A root that was renewed with its key is represented by either certificate.
    const roots = (all: readonly { publicKeyFingerprint: string }[]) =>
      all.map(({ publicKeyFingerprint }) => publicKeyFingerprint).sort();
    assert.deepEqual(roots(bundleOf(ca)), roots(this.mesh.named), 'the bundle is not what the mesh names');
    for (const upstream of this.mesh.upstreams) {
      assert.ok(this.mesh.accepts(upstream, pairOf(secret).chain), `${upstream.name} refuses what stands`);
    }
  }

  #versions(): (string | undefined)[] {
    return this.#refs().map((ref) => this.cluster.get(ref)?.metadata.resourceVersion);
  }

  #refs(): readonly ObjectRef[] {
    return publicationRefs({ metadata: META, spec: this.spec }, gatewaysOf(this.spec, gateways));
  }

  #replica(name: ReplicaName): Replica {
    const { clock } = this;
    const own: Clock = {
      now: () => clock.now() + (this.#skews.get(name) ?? 0),
      monotonic: () => clock.monotonic(),
      after: (ms, act) => clock.after(ms, act),
      sleep: (ms, signal) => clock.sleep(ms, signal),
    };
    const kube = this.cluster.connect(name, (_, ref) => this.#before(name, ref));
    return new Replica({
      name,
      spec: this.spec,
      id: this.#options.named ? ID : undefined,
      kube,
      clock: own,
      live: (ref) => this.cluster.get(ref),
    });
  }

  async #before(name: ReplicaName, ref: ObjectRef): Promise<CallFault | undefined> {
    this.#late.delete(name);
    if (this.apiDown) return 'refused';
    if (name !== this.#holder) return undefined;
    const fault = this.#faults.shift();
    if (fault) this.ledger.count(`call fault: ${fault}`);
    switch (fault) {
      case undefined:
        return undefined;
      case 'crash before':
        this.crash();
        return 'refused';
      case 'crash after': {
        const replica = this.leader;
        this.#late.add(name);
        this.#holder = undefined;
        replica?.crash();
        this.ledger.crashed(name);
        return 'lost';
      }
      case 'foreign':
        this.foreign(ref.kind === 'Secret' ? 'own annotation' : 'edit context');
        return undefined;
      case 'takeover': {
        const before = this.leader;
        const held = this.#faults;
        this.#faults = [];
        this.#late.add(name);
        await this.elect(name === 'a' ? 'b' : 'a', true);
        await this.deliver('all');
        await this.look(true);
        this.#late.add(name);
        this.#faults = held;
        // It wakes up, finishes the call that it was in, and then learns that the Lease is gone.
        if (before && this.leader !== before) before.resign();
        return undefined;
      }
      default:
        return fault;
    }
  }

  #countLook({ decision, steps, outcome }: Look): void {
    if (decision.hold?.hold) this.ledger.count(`held: ${decision.hold.reason}`);
    else if (decision.hold) this.ledger.count(`released: ${decision.hold.reason}`);
    if (decision.problem) this.ledger.count(`refused: ${decision.problem.code}`);
    for (const step of steps) if (step.action === 'refuse') this.ledger.count(`plan: ${step.code}`);
    for (const { code } of outcome?.problems ?? []) this.ledger.count(`write: ${code}`);
  }
}

function isOurs({ metadata }: KubeObject): boolean {
  const managed = (metadata.managedFields ?? []).some(({ manager }) => manager === FIELD_MANAGER);
  return metadata.labels?.[OWNER_LABEL] === OWNER && managed;
}

function specOf({ retainMs, holdMs, probe }: WorldOptions): MeshCertificateSpec {
  return {
    mesh: { name: 'istio', config: {} },
    secretName: 'istio-identity',
    caSecretName: 'istio-ca',
    gateways: { emissary: { tlsContext: { enabled: true, name: 'istio', ambassadorIds: [] } } },
    labels: {},
    renewal: { at: 0.6, jitter: 0.06 },
    trust: { retainMs, holdMs, withdrawn: [] },
    ...(probe ? { probe: { address: 'web:443' } } : {}),
    paused: false,
    deletionPolicy: 'Retain',
  };
}
