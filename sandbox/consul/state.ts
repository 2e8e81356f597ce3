import { randomUUID } from 'node:crypto';
import type { Clock } from '../../src/async/clock.ts';
import { parseSpiffeId } from '../../src/pki/names.ts';
import { readCsr } from '../tls/csr.ts';
import { Acl } from './acl.ts';
import { ConnectCa } from './connect-ca.ts';
import { ConsulRefusal, refusals } from './refusal.ts';

export interface StateOptions {
  readonly clock: Clock;
  readonly random: () => number;
  readonly datacenter: string;
  readonly acl: boolean;
  readonly leafLifetimeMs: number;
  readonly rootLifetimeMs: number;
}

/** State that both APIs share: CA, ACLs, the raft index, and the faults that are switched on. */
export class ConsulState {
  readonly clock: Clock;
  readonly random: () => number;
  readonly datacenter: string;
  readonly acl: Acl;
  /** Fired whenever roots, tokens or faults change. */
  readonly changed = new Pulse();
  /** Incremented each time the cluster starts over. */
  generation = 0;
  rootsIndex = 12;
  /** Number of signing requests that will still be rate-limited. */
  limited = 0;
  leaderless = false;
  connectDisabled = false;
  readonly #options: StateOptions;
  #ca: ConnectCa;
  #index = 30;

  constructor(options: StateOptions) {
    this.#options = options;
    this.clock = options.clock;
    this.random = options.random;
    this.datacenter = options.datacenter;
    this.acl = new Acl(options.acl, options.clock);
    this.#ca = this.#newCa(options.leafLifetimeMs);
  }

  get ca(): ConnectCa {
    return this.#ca;
  }

  nextIndex(): number {
    return ++this.#index;
  }

  changeRoots(change: (ca: ConnectCa) => void): void {
    change(this.#ca);
    this.rootsIndex = this.nextIndex();
    this.changed.fire();
  }

  /** As after a restore: the following indexes are smaller. */
  stepIndexBack(): void {
    this.#index = 3;
    this.rootsIndex = this.nextIndex();
    this.changed.fire();
  }

  /** An in-memory cluster that was restarted: new trust domain and CA, all logins are lost. */
  rebuild(): void {
    this.#ca = this.#newCa(this.#ca.leafLifetimeMs);
    this.acl.deleteLogins();
    this.generation += 1;
    this.stepIndexBack();
  }

  requireConnect(): void {
    if (this.connectDisabled) throw refusals.connectDisabled();
  }

  /** PEM request in, PEM chain out, after every check that a server makes. */
  sign(csrPem: string, token: string | undefined) {
    this.requireConnect();
    const csr = readRequest(csrPem);
    const { uris, dns, ips, emails } = csr.names;
    const [uri = ''] = uris;
    if (uris.length !== 1) throw refusals.badCsr(`expected exactly one URI SAN, got ${uris.length}`);
    if (emails.length > 0) throw refusals.badCsr('CSR SAN contains an email address, which is not allowed');
    const id = parseSpiffeId(uri);
    const path = /^\/ns\/([^/]+)\/dc\/([^/]+)\/svc\/([^/]+)$/.exec(id?.path ?? '');
    if (!id || !path) throw refusals.notOurs();
    const [, namespace = '', datacenter = '', service = ''] = path;
    if (namespace !== 'default') throw refusals.badCsr(`SPIFFE ID in CSR has namespace ${namespace}, want default`);
    this.acl.requireWrite(token, service);
    if (datacenter !== this.datacenter) throw refusals.otherDatacenter(datacenter, this.datacenter);
    if (id.trustDomain !== this.#ca.trustDomain) {
      throw refusals.otherTrustDomain(id.trustDomain, this.#ca.trustDomain);
    }
    if (this.leaderless) throw refusals.noLeader();
    if (this.limited > 0) {
      this.limited -= 1;
      throw refusals.rateLimited();
    }
    return this.#ca.sign(csr.publicKey, { uris, dns, ips });
  }

  serviceUri(service: string): string {
    return `spiffe://${this.#ca.trustDomain}/ns/default/dc/${this.datacenter}/svc/${service}`;
  }

  #newCa(leafLifetimeMs: number): ConnectCa {
    const { clock, rootLifetimeMs } = this.#options;
    return new ConnectCa({ clock, leafLifetimeMs, rootLifetimeMs, trustDomain: `${randomUUID()}.consul` });
  }
}

function readRequest(pem: string) {
  try {
    return readCsr(pem);
  } catch (error) {
    if (error instanceof ConsulRefusal) throw error;
    throw refusals.badCsr(`failed to parse CSR: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** Wakes everyone who waits at the moment it is fired. */
export class Pulse {
  #waiting = new Set<() => void>();

  fire(): void {
    const woken = this.#waiting;
    this.#waiting = new Set();
    for (const wake of woken) wake();
  }

  /** Resolves at the next fire, after `ms`, or when aborted, whichever comes first. */
  wait(ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const end = () => {
        cancel();
        this.#waiting.delete(end);
        signal.removeEventListener('abort', end);
        resolve();
      };
      this.#waiting.add(end);
      const cancel = clock.after(ms, end);
      signal.addEventListener('abort', end, { once: true });
    });
  }
}
