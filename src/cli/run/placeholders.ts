import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { describe, type KubeObject, refOf } from '../../core/object.ts';
import { desiredObjects } from '../../gateway/desired.ts';
import { type Gateway, type GatewayUse, gatewaysOf, type ObservedObjects } from '../../gateway/gateway.ts';
import type { Scope } from '../../gateway/input.ts';
import { type Adapter, tlsDefaults } from '../../mesh/adapter.ts';
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
    const judged = gatewaysOf(spec, gateways).map((use) => judge(certificate, use, rules, given, remark));
    const desired = desiredObjects({
      meta: { name, namespace, uid },
      spec,
      tls: tlsDefaults(adapter, spec.mesh.config),
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
  rules: TargetRules | undefined,
  given: readonly KubeObject[],
  remark: (text: string) => void,
): { readonly use: GatewayUse; readonly routes: readonly KubeObject[] } {
  const { name, namespace = 'default', uid } = metadata;
  const input = { meta: { name, namespace, uid }, spec, config, rules };
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
  };
  const { targets, verdicts } = gateway.routes.judge(input, observed);
  const routes = verdicts.flatMap(({ route, selected, outcome }): KubeObject[] => {
    if ('code' in outcome) remark(`${outcome.code}: ${outcome.message}`);
    if ('code' in outcome || !selected) return [];
    const { apiVersion, kind } = route;
    const place = { name: route.metadata.name, namespace: route.metadata.namespace ?? namespace };
    return [{ ...outcome.target.change.fields, apiVersion, kind, metadata: place }];
  });
  return { use: { gateway, config, targets }, routes };
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
