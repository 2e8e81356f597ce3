import { setMaxListeners } from 'node:events';
import { type Clock, systemClock } from '../../src/async/clock.ts';
import { Changes, Trigger } from '../../src/async/trigger.ts';
import { GATEWAY_API_RESOURCES } from '../../src/gateway/gateway-api/config.ts';
import { namedCertificate } from '../../src/gateway/gateway-api/diagnosis.ts';
import type { Kube } from '../../src/kube/api.ts';
import { type Reflector, reflect } from '../../src/kube/reflector.ts';
import { RESOURCES } from '../../src/kube/resources.ts';
import { silentLog } from '../../src/mesh/log.ts';
import {
  fields,
  type KubeObject,
  listOfFields,
  keyOf as objectKey,
  type Resource,
  refOf,
} from '../../src/objects/objects.ts';

import type { PoolEndpoint } from '../emissary/pool.ts';
import { GatewayProxy } from './proxy.ts';
import { CONTROLLER_NAME, keyOf, type Translation, translate } from './translation.ts';

export interface EnvoyGatewayOptions {
  readonly kube: Kube;
  readonly clock?: Clock;
  readonly random?: () => number;
  readonly resolve: (host: string, port: number) => PoolEndpoint | undefined;
  /** Default 15 s, as measured. */
  readonly warmingMs?: number;
  /** Default 0. */
  readonly freshEvery?: number;
}

/** Envoy Gateway in this process: its control plane, and a proxy for each Gateway. */
export interface RunningEnvoyGateway {
  /** The proxy of the Gateway `namespace/name`. */
  proxyOf(gateway: string): GatewayProxy | undefined;
  /** Resolves once the state fits; checked after each change. */
  until(fits: (gateway: RunningEnvoyGateway) => boolean, signal?: AbortSignal): Promise<void>;
  stop(): Promise<void>;
}

const WATCHED: readonly Resource[] = [
  ...Object.values(GATEWAY_API_RESOURCES),
  ...[RESOURCES.services, RESOURCES.secrets, RESOURCES.configMaps],
];

export async function startEnvoyGateway(options: EnvoyGatewayOptions): Promise<RunningEnvoyGateway> {
  const gateway = new SandboxEnvoyGateway(options);
  await gateway.start();
  return gateway;
}

class SandboxEnvoyGateway implements RunningEnvoyGateway {
  readonly #options: EnvoyGatewayOptions;
  readonly #clock: Clock;
  readonly #stopping = new AbortController();
  readonly #proxies = new Map<string, GatewayProxy>();
  readonly #changed = new Trigger();
  readonly #applied = new Changes();
  #reflectors: readonly Reflector[] = [];
  #running: Promise<void> = Promise.resolve();
  #inForce = '';

  constructor(options: EnvoyGatewayOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    setMaxListeners(0, this.#stopping.signal);
  }

  async start(): Promise<void> {
    const { kube, random = Math.random } = this.#options;
    const watching = { clock: this.#clock, random, log: silentLog, signal: this.#stopping.signal };
    this.#reflectors = WATCHED.map((resource) => {
      const reflector = reflect(kube, resource, {}, watching);
      (async () => {
        for await (const _ of reflector.changes()) this.#changed.fire();
      })().catch(() => {});
      return reflector;
    });
    await Promise.all(this.#reflectors.map(({ synced }) => synced));
    await this.#reconcile();
    this.#running = this.#follow().catch((error) => {
      if (!this.#stopping.signal.aborted) throw error;
    });
  }

  proxyOf(gateway: string): GatewayProxy | undefined {
    return this.#proxies.get(gateway);
  }

  until(fits: (gateway: RunningEnvoyGateway) => boolean, signal = this.#stopping.signal): Promise<void> {
    return this.#applied.until(() => fits(this), signal);
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the gateway stops'));
    await this.#running;
    for (const proxy of this.#proxies.values()) await proxy.stop();
  }

  async #follow(): Promise<void> {
    for (;;) {
      await this.#changed.wait(this.#stopping.signal);
      await this.#reconcile();
    }
  }

  async #reconcile(): Promise<void> {
    const objects = this.#reflectors.flatMap((reflector) => [...reflector.items().values()]);
    const seen = fingerprint(objects);
    if (seen === this.#inForce) return;
    this.#inForce = seen;
    const translation = translate(objects, this.#clock.now());
    const { proxies } = translation;
    for (const [key, configuration] of proxies) (await this.#proxy(key)).apply(configuration);
    for (const [key, proxy] of this.#proxies) {
      if (proxies.has(key)) continue;
      this.#proxies.delete(key);
      await proxy.stop();
    }
    await this.#report(translation);
    this.#applied.announce();
  }

  async #proxy(key: string): Promise<GatewayProxy> {
    const known = this.#proxies.get(key);
    if (known) return known;
    const { resolve, warmingMs = 15_000, freshEvery = 0 } = this.#options;
    const { signal } = this.#stopping;
    const proxy = new GatewayProxy({ clock: this.#clock, signal, resolve, warmingMs, freshEvery });
    await proxy.start();
    this.#proxies.set(key, proxy);
    return proxy;
  }

  async #report({ policies, gateways, others }: Translation): Promise<void> {
    for (const policy of new Set(policies.map((one) => one.policy))) {
      const own = policies
        .filter((one) => one.policy === policy)
        .map(({ gateway, conditions }) => ({
          ancestorRef: { group: 'gateway.networking.k8s.io', kind: 'Gateway', ...placeOf(gateway) },
          controllerName: CONTROLLER_NAME,
          conditions,
        }));
      const theirs = listOfFields(fields(policy.status).ancestors).filter(
        ({ controllerName }) => controllerName !== CONTROLLER_NAME,
      );
      await this.#write(policy, { ancestors: [...theirs, ...own] });
    }
    for (const { gateway, conditions } of gateways) {
      if (conditions.length > 0) await this.#write(gateway, { conditions });
    }
    for (const { object, status } of others) await this.#write(object, status);
  }

  async #write(object: KubeObject, status: object): Promise<void> {
    if (JSON.stringify(object.status) === JSON.stringify(status)) return;
    const { apiVersion, kind } = object;
    const applied = { apiVersion, kind, metadata: placeOf(object), status } as unknown as KubeObject;
    const options = { subresource: 'status', fieldManager: 'envoy-gateway', force: true } as const;
    // The object may be gone, or newer; then the next change reports again.
    await this.#options.kube.apply(applied, options).catch(() => {});
  }
}

const placeOf = ({ metadata }: KubeObject) => ({ name: metadata.name, namespace: metadata.namespace });

/**
 * What makes the control plane translate again: specs, labels and annotations, and the data of ConfigMaps that policies
 * name and of Secrets that an EnvoyProxy or a Backend names. A Secret that only a Gateway names is not among them.
 */
function fingerprint(objects: readonly KubeObject[]): string {
  const named = new Set<string>();
  for (const object of objects) {
    const certificate = object.kind === 'Gateway' ? undefined : namedCertificate(object);
    if (certificate) named.add(`Secret ${certificate.secret.namespace}/${certificate.secret.name}`);
    if (object.kind !== 'BackendTLSPolicy') continue;
    for (const { name } of listOfFields(fields(fields(object.spec).validation).caCertificateRefs))
      named.add(`ConfigMap ${object.metadata.namespace}/${String(name)}`);
  }
  const parts = objects.flatMap((object) => {
    const { kind, metadata, spec, data } = object;
    const isData = kind === 'Secret' || kind === 'ConfigMap';
    if (isData && !named.has(`${kind} ${keyOf(object)}`)) return [];
    const labels = kind === 'Gateway' ? [metadata.labels, metadata.annotations] : [];
    return [JSON.stringify([objectKey(refOf(object)), metadata.uid, isData ? data : spec, labels])];
  });
  return parts.sort().join('\n');
}
