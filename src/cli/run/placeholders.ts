import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { describe, type KubeObject, refOf } from '../../core/object.ts';
import { desiredObjects } from '../../gateway/desired.ts';
import {
  type Gateway,
  type GatewayUse,
  gatewaysOf,
  type ObservedObjects,
  type RouteVerdict,
} from '../../gateway/gateway.ts';
import type { RouteInput, Scope } from '../../gateway/input.ts';
import { type Adapter, tlsDefaults } from '../../mesh/adapter.ts';
import { fields } from '../../mesh/kube-object.ts';
import { isTargeting, type TargetRules } from '../../mesh/targeting.ts';
import { parseCertificates } from '../../pki/certificate.ts';
import { throwawayPair } from '../../pki/csr.ts';
import { PrivateKey } from '../../pki/key.ts';
import { offlineHost } from './offline.ts';

export interface Placeholders {
  readonly objects: readonly KubeObject[];
  /** Why routes would not be changed, and what could not be determined, one line each. */
  readonly remarks: readonly string[];
}

/**
 * The objects of each MeshCertificate in their order of writing, made by the same function as the real ones from a
 * throw-away identity, of which nothing remains: each value of a Secret is a description of the real one. Routes are
 * judged from `given`, the observed objects.
 */
export async function placeholders(
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
  gateways: readonly Gateway[],
  given: readonly KubeObject[],
  signal: AbortSignal,
): Promise<Placeholders> {
  const { key, cert } = throwawayPair();
  const chain = parseCertificates(cert);
  const identity = { id: 'spiffe://placeholder/x', key: PrivateKey.fromPem(key), chain, roots: chain };
  const objects: KubeObject[] = [];
  const remarks: string[] = [];
  for (const certificate of certificates) {
    signal.throwIfAborted();
    const { metadata, spec } = certificate;
    const adapter = adapters.find(({ mesh }) => mesh === spec.mesh.name);
    if (!adapter) continue;
    const { name, namespace = 'default', uid } = metadata;
    const remark = (text: string) => remarks.push(`${describe(refOf(certificate))}: ${text}`);
    const rules = await rulesOf(adapter, spec.mesh.config, namespace, given, remark, signal);
    const mesh = { ...adapter, tls: tlsDefaults(adapter, spec.mesh.config) };
    const judged = gatewaysOf(spec, gateways).map((use) => judge(certificate, use, { rules, mesh }, given, remark));
    const desired = desiredObjects({
      meta: { name, namespace, uid },
      spec,
      tls: mesh.tls,
      identity,
      bundle: chain,
      since: new Map(),
      uses: judged.map(({ use }) => use),
    });
    const routes = judged.flatMap((one) => one.routes);
    objects.push(...desired.map(({ object }) => withoutData(object, spec.mesh.name)), ...routes);
  }
  return { objects, remarks };
}

/** What one gateway needs, and its routes as they would be changed. */
function judge(
  { metadata, spec }: MeshCertificate,
  { gateway, config }: GatewayUse,
  known: Pick<RouteInput<unknown>, 'rules' | 'mesh'>,
  given: readonly KubeObject[],
  remark: (text: string) => void,
): { readonly use: GatewayUse; readonly routes: readonly KubeObject[] } {
  const { name, namespace = 'default', uid } = metadata;
  const input = { meta: { name, namespace, uid }, spec, config, ...known };
  const isIn = (object: KubeObject) => (scope: Scope) =>
    groupOf(scope.resource) === groupOf(object) &&
    scope.resource.kind === object.kind &&
    (scope.namespace === undefined || scope.namespace === object.metadata.namespace);
  const { routes: scopes } = gateway.routes.scopes(input);
  const observed: ObservedObjects = {
    routes: given.filter((object) => scopes.some(isIn(object))).filter(gateway.routes.concern(input, [])),
    own: [],
    behind: (kind) => given.filter((object) => object.kind === kind),
    unseen: new Map(),
    hidden: () => undefined,
    unserved: new Set(),
  };
  const { verdicts } = gateway.routes.judge(input, observed);
  const routes = verdicts.flatMap(({ route, selected, outcome }): KubeObject[] => {
    if ('code' in outcome) remark(`${outcome.code}: ${outcome.message}`);
    if ('code' in outcome || !selected) return [];
    const { apiVersion, kind } = route;
    const place = { name: route.metadata.name, namespace: route.metadata.namespace ?? namespace };
    const { change } = outcome.target;
    return change ? [{ ...change.fields, apiVersion, kind, metadata: place }] : [];
  });
  // Some objects are written only after the routes were changed.
  const then = { ...observed, routes: observed.routes.map((route) => changedBy(route, verdicts)) };
  return { use: { gateway, config, targets: gateway.routes.judge(input, then).targets }, routes };
}

function changedBy(route: KubeObject, verdicts: readonly RouteVerdict[]): KubeObject {
  const verdict = verdicts.find((one) => one.route === route && one.selected);
  const change = verdict && 'target' in verdict.outcome ? verdict.outcome.target.change : undefined;
  return change ? ({ ...route, ...merged(route, change.fields) } as KubeObject) : route;
}

/** Maps are merged and everything else is replaced, as an apply does. */
function merged(before: unknown, after: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const isMap = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value);
  const changed = Object.entries(after).map(([key, value]) => {
    return [key, isMap(value) ? merged(fields(before)[key], fields(value)) : value];
  });
  return { ...fields(before), ...Object.fromEntries(changed) };
}

const groupOf = ({ apiVersion }: { readonly apiVersion: string }): string => apiVersion.split('/')[0] ?? '';

/** The target rules of the mesh's adapter, as far as they are known without a mesh. */
async function rulesOf(
  adapter: Adapter,
  config: unknown,
  namespace: string,
  given: readonly KubeObject[],
  remark: (text: string) => void,
  signal: AbortSignal,
): Promise<TargetRules | undefined> {
  const opened = adapter.open(
    config,
    offlineHost(adapter, namespace, given, (error) => remark(error.message)),
  );
  if (!isTargeting(opened)) return undefined;
  for await (const rules of opened.targets(signal)) return rules;
  return { discover: false, listed: [], identify: () => ({ code: 'ERR_TARGET_UNSEEN', message: 'not known here' }) };
}

const MEANING: Readonly<Record<string, (mesh: string, trust: boolean) => string>> = {
  'tls.crt': (mesh, trust) => (trust ? `<the roots of ${mesh}>` : `<leaf and intermediates from ${mesh}>`),
  'tls.key': () => '<the private key, created by the agent>',
  'ca.crt': (mesh) => `<the roots of ${mesh}>`,
};

function withoutData(object: KubeObject, mesh: string): KubeObject {
  const { data, ...rest } = object;
  if (typeof data !== 'object' || data === null) return object;
  const trust = !('tls.key' in data);
  const shown = Object.fromEntries(Object.keys(data).map((key) => [key, MEANING[key]?.(mesh, trust) ?? '<data>']));
  return object.kind === 'Secret' ? { ...rest, stringData: shown } : { ...rest, data: shown };
}
