import { describe, type KubeObject, refOf } from '../../../core/object.ts';
import { toRfc3339 } from '../../../core/status.ts';
import { fields, listOfFields } from '../../../mesh/kube-object.ts';
import { parsedValue } from '../../pair.ts';
import { decodeData } from '../../secret-data.ts';
import { isEnvoyProxy, isGateway, isGranted } from '../routes/client.ts';
import { GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import type { GatewayApiCheck } from './check.ts';
import { isOurs } from './policies.ts';
import { promisedSecrets } from './promises.ts';
import { BACKEND, type GatewayApiWorld, type NamedCertificate, namedCertificate, nameOf } from './world.ts';

const BARE = 'Envoy Gateway then uses TLS without a client certificate';

/** Each existing Secret that is named as a client certificate, once. */
function* namedSecrets({ certificates, find }: GatewayApiWorld): Generator<NamedCertificate & { object: KubeObject }> {
  const seen = new Set<KubeObject>();
  for (const one of certificates) {
    const object = find('Secret', one.secret);
    if (!object || seen.has(object)) continue;
    seen.add(object);
    yield { ...one, object };
  }
}

export const clientChecks: readonly GatewayApiCheck[] = [
  {
    code: 'MC1601',
    severity: 'warning',
    title: 'The TLS settings of a Gateway replace those of its EnvoyProxy',
    *run({ gateways }) {
      for (const { object, proxy, client } of gateways) {
        const given = Object.keys(fields(fields(proxy?.spec).backendTLS));
        if (!proxy || client?.holder !== object || given.length === 0) continue;
        yield {
          object,
          message: `spec.tls.backend replaces all of spec.backendTLS of ${describe(refOf(proxy))} (${given.join(', ')})`,
          fix: 'remove one of the two; a Gateway has no fields for application protocols and TLS versions',
        };
      }
    },
  },
  {
    code: 'MC1602',
    severity: 'warning',
    title: 'Envoy Gateway does not read the Secret of a Gateway again',
    *run(world) {
      const promised = promisedSecrets(world);
      for (const { object, client } of world.gateways) {
        if (!client || client.holder !== object || promised.has(nameOf(client.secret))) continue;
        const isNamed = world.all(KINDS.envoyProxies.kind).some((proxy) => {
          const named = namedCertificate(proxy)?.secret;
          return named && nameOf(named) === nameOf(client.secret);
        });
        if (isNamed) continue;
        yield {
          object,
          message: `only this Gateway names Secret ${nameOf(client.secret)}: after a rotation, its proxies present the old certificate until something else changes or Envoy Gateway restarts`,
          fix: 'name the Secret in spec.backendTLS.clientCertificateRef of an EnvoyProxy in its namespace too; no Gateway has to use that EnvoyProxy',
        };
      }
    },
  },
  {
    code: 'MC1603',
    severity: 'error',
    title: 'The Secret of a client certificate does not exist',
    *run(world) {
      if (!world.known('Secret')) return;
      const promised = world.snapshot.whole.has('Secret') ? new Set<string>() : promisedSecrets(world);
      for (const { holder, field, secret } of world.certificates) {
        if (world.find('Secret', secret) || promised.has(nameOf(secret))) continue;
        yield {
          object: holder,
          message: `spec.${field} names Secret ${nameOf(secret)}, which does not exist: ${isGateway(holder) ? BARE : 'requests through it end with 500, and nothing is sent'}`,
          fix: 'create the Secret first; never delete one that is named',
        };
      }
    },
  },
  {
    code: 'MC1604',
    severity: 'error',
    title: 'The Secret of a client certificate lacks its certificate or its key',
    *run(world) {
      for (const { object, holder } of namedSecrets(world)) {
        const data = decodeData(object);
        const lacks = ['tls.crt', 'tls.key'].filter((key) => data[key] === undefined);
        if (lacks.length === 0) continue;
        yield {
          object,
          message: `it has no ${lacks.join(' and no ')}, and ${describe(refOf(holder))} names it: ${isGateway(holder) ? BARE : 'requests through it end with 503'}`,
          fix: 'write tls.crt and tls.key in one update',
        };
      }
    },
  },
  {
    code: 'MC1605',
    severity: 'error',
    title: 'The key of a client certificate does not belong to it',
    *run(world) {
      for (const { object, secret } of namedSecrets(world)) {
        const { chain, key } = world.pairOf(secret) ?? {};
        const [leaf] = parsedValue(chain) ?? [];
        const own = parsedValue(key);
        const problem = [chain, key].flatMap((part) => (part && 'problem' in part ? [part.problem] : []))[0];
        const fits = leaf && own && leaf.publicKeyFingerprint === own.publicKeyFingerprint;
        if (problem === undefined && (!chain || !key || fits)) continue;
        yield {
          object,
          message: `${problem ?? 'tls.key is the key of another certificate'}: Envoy refuses it and keeps the old pair, new routes and proxies that restart end with 503, and every status stays Accepted`,
          fix: 'write a certificate and its key in one update; then change the ConfigMaps of the policies once more, since Envoy can have missed a change meanwhile',
        };
      }
    },
  },
  {
    code: 'MC1606',
    severity: 'error',
    title: 'No ReferenceGrant lets a Gateway use a Secret of another namespace',
    *run(world) {
      for (const { object, client } of world.gateways) {
        if (!client || client.holder !== object || client.secret.namespace === object.metadata.namespace) continue;
        const { secret } = client;
        if (!world.snapshot.whole.has(KINDS.grants.kind) && !world.find('Secret', secret)) continue;
        if (isGranted(world.all(KINDS.grants.kind), object, { kind: 'Secret', ...secret })) continue;
        yield {
          object,
          message: `spec.${client.field} names Secret ${nameOf(secret)}, and no ReferenceGrant there lets Gateways of namespace ${object.metadata.namespace} use it (RefNotPermitted): ${BARE}`,
          fix: `create a ReferenceGrant in namespace ${secret.namespace}, from Gateway to Secret`,
        };
      }
    },
  },
  {
    code: 'MC1607',
    severity: 'error',
    title: 'A client certificate is not valid now',
    *run(world) {
      const { now } = world.snapshot;
      for (const { object, secret } of namedSecrets(world)) {
        const [leaf] = parsedValue(world.pairOf(secret)?.chain) ?? [];
        if (!leaf || (leaf.notBefore <= now && now < leaf.notAfter)) continue;
        const when =
          leaf.notAfter <= now ? `expired on ${toRfc3339(leaf.notAfter)}` : `begins on ${toRfc3339(leaf.notBefore)}`;
        yield {
          object,
          message: `its certificate ${when}: upstreams that verify it refuse the Gateway with 503`,
          fix: 'let the agent renew it: meshcert status shows why it has not',
        };
      }
    },
  },
  {
    code: 'MC1608',
    severity: 'note',
    title: 'Open connections keep an old certificate without limit',
    *run({ gateways, all }) {
      const limited = all('BackendTrafficPolicy').filter(
        ({ spec }) => fields(fields(fields(spec).timeout).http).maxConnectionDuration !== undefined,
      );
      for (const { object, client } of gateways) {
        const { namespace, name } = object.metadata;
        const isLimited = limited.some(
          ({ metadata, spec }) =>
            metadata.namespace === namespace &&
            [fields(fields(spec).targetRef), ...listOfFields(fields(spec).targetRefs)].some(
              (target) => target.kind === object.kind && target.name === name,
            ),
        );
        if (!client || isLimited) continue;
        yield {
          object,
          message:
            'a connection to an upstream presents the certificate with which it began, for as long as it is open; no BackendTrafficPolicy for this Gateway bounds that',
          fix: 'set timeout.http.maxConnectionDuration in a BackendTrafficPolicy for the Gateway, to less than the lifetime of a certificate',
        };
      }
    },
  },
  {
    code: 'MC1609',
    severity: 'error',
    title: 'A Gateway without a client certificate leads to a Service of the mesh',
    *run({ backends, find }) {
      const seen = new Set<string>();
      for (const { route, gateways, policy, kind, ...ref } of backends) {
        const isOfMesh = policy && (isOurs(policy) || policy.names.some((name) => name.startsWith('spiffe://')));
        const target = kind === BACKEND ? find(kind, ref) : undefined;
        if (!isOfMesh || (target && namedCertificate(target))) continue;
        for (const { object, client, proxy } of gateways) {
          const key = `${object.metadata.namespace}/${object.metadata.name} ${kind} ${nameOf(ref)}`;
          if (client || seen.has(key)) continue;
          seen.add(key);
          const place = proxy && isEnvoyProxy(proxy) ? describe(refOf(proxy)) : 'an EnvoyProxy of its own';
          yield {
            object,
            message: `${describe(refOf(route))} leads through it to ${kind} ${nameOf(ref)}, which ${describe(refOf(policy.object))} verifies, and it presents no certificate: a server that requires one refuses it with 503`,
            fix: `select the Gateway in the MeshCertificate, or name the Secret in spec.backendTLS.clientCertificateRef of ${place}`,
          };
        }
      }
    },
  },
  {
    code: 'MC1610',
    severity: 'warning',
    title: 'A Gateway does not offer the application protocols of the mesh',
    *run(world) {
      for (const { object, proxy, client } of world.gateways) {
        const [leaf] = (client && parsedValue(world.pairOf(client.secret)?.chain)) ?? [];
        const adapter = leaf && world.snapshot.adapters.find(({ names }) => names?.(leaf.names));
        const wanted = adapter?.tls.alpnProtocols?.split(',') ?? [];
        const settings = client?.holder === object ? {} : fields(fields(proxy?.spec).backendTLS);
        const offered = Array.isArray(settings.alpnProtocols) ? settings.alpnProtocols : [];
        if (!client || !adapter || wanted.length === 0 || wanted.some((one) => offered.includes(one))) continue;
        yield {
          object: client.holder,
          message: `sidecars of ${adapter.title} that also accept plaintext recognize TLS of the mesh by the protocols ${wanted.join(', ')}, and ${offered.length === 0 ? 'it offers none of its own' : `it offers ${offered.join(', ')}`}: they refuse the connection`,
          fix: isGateway(client.holder)
            ? 'name the certificate in spec.backendTLS of an EnvoyProxy instead, with alpnProtocols; or let the servers require mTLS'
            : `set spec.backendTLS.alpnProtocols: [${wanted.join(', ')}]`,
        };
      }
    },
  },
];
