import { mapStream } from '../../src/async/map-stream.ts';
import { type Share, sharing } from '../../src/async/sharing.ts';
import type { Checking, Host, Issuer } from '../../src/mesh/adapter.ts';
import type { Examiner } from '../../src/mesh/examiner.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import type { Targeting, TargetRules } from '../../src/mesh/targeting.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { findPath, reachesRootInTime } from '../../src/pki/chain.ts';
import { createCsr } from '../../src/pki/csr.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { certify, type IdentityService } from './certify.ts';
import { checkLeaf, untilValid } from './check.ts';
import type { LinkerdConfig } from './config.ts';
import { type ControlPlane, controlPlane } from './control-plane.ts';
import { examine } from './examine.ts';
import {
  AUDIENCE,
  accountOf,
  identityOf,
  identityServiceName,
  requireLabels,
  type ServiceAccountName,
} from './name.ts';
import { trustRoots } from './roots.ts';
import { WatchedConfigMap } from './watched.ts';
import { targetRules } from './workload.ts';

export class LinkerdIssuer implements Issuer, Checking, Targeting {
  readonly #config: LinkerdConfig;
  readonly #host: Host;
  readonly #share: Share;
  readonly #plane: WatchedConfigMap<ControlPlane>;
  readonly #roots: WatchedConfigMap<readonly Certificate[]>;

  constructor(config: LinkerdConfig, host: Host) {
    this.#config = config;
    this.#host = host;
    this.#share = host.share ?? sharing();
    this.#plane = new WatchedConfigMap(host, config, controlPlane);
    this.#roots = new WatchedConfigMap(host, config, trustRoots);
  }

  async issue(signal: AbortSignal): Promise<Identity> {
    const { clock } = this.#host;
    const [plane, roots] = await Promise.all([this.#plane.current(signal), this.#roots.current(signal)]);
    const { token, account } = await this.#token(plane, signal);
    const id = identityOf(account, plane);
    const key = PrivateKey.generate();
    const csr = createCsr(key, { dns: [id] });
    const asking = { now: () => clock.now(), share: this.#share };
    const chain = await certify(this.#service(plane, roots), { identity: id, token, csr }, asking, signal);
    const leaf = checkLeaf(chain, id, key, clock.now());
    await untilValid(leaf, clock, (error) => this.#host.report(error), signal);
    return { id, key, chain, roots };
  }

  roots(signal: AbortSignal): AsyncIterable<readonly Certificate[]> {
    return this.#roots.changes(signal);
  }

  stale(current: Identity): string | undefined {
    const [leaf, ...above] = current.chain;
    const found = leaf && findPath(leaf, above, current.roots, this.#host.clock.now());
    return found && !reachesRootInTime(found) ? "the leaf is no longer under any of Linkerd's trust roots" : undefined;
  }

  targets(signal: AbortSignal): AsyncIterable<TargetRules> {
    return mapStream(this.#plane.changes(signal), { read: (plane) => targetRules(this.#config, plane) });
  }

  check(examiner: Examiner): Promise<void> {
    const questions = {
      now: this.#host.clock.now(),
      plane: (signal: AbortSignal) => this.#plane.current(signal),
      roots: (signal: AbortSignal) => this.#roots.current(signal),
      token: (plane: ControlPlane, signal: AbortSignal) => this.#token(plane, signal),
      service: (plane: ControlPlane, roots: readonly Certificate[]) => this.#service(plane, roots),
      issue: (signal: AbortSignal) => this.issue(signal),
    };
    return examine(examiner, questions, this.#share);
  }

  /** A fresh token and its account. */
  async #token(
    { address }: ControlPlane,
    signal: AbortSignal,
  ): Promise<{ readonly token: string; readonly account: ServiceAccountName }> {
    const { serviceAccount, tokenFile } = this.#config;
    const request = { audience: AUDIENCE, destinations: [{ address, secure: true }] };
    if (serviceAccount) {
      const { name, namespace = this.#host.namespace } = serviceAccount;
      const account = requireLabels({ name, namespace });
      return { token: await this.#host.token({ ...request, serviceAccount: account }, signal), account };
    }
    const token = await this.#host.token({ ...request, file: tokenFile }, signal);
    return { token, account: requireLabels(accountOf(token, `token file ${tokenFile}`)) };
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #service(plane: ControlPlane, roots: readonly Certificate[]): IdentityService {
    return {
      address: plane.address,
      serverName: identityServiceName(plane),
      roots,
    };
  }
}
