import { fields, text } from '../../gateway/kinds.ts';
import { parseService } from '../../gateway/service.ts';
import type { Check } from '../check.ts';
import type { SeenContext, SeenMapping, World } from '../world.ts';

/** Of which a permissive sidecar demands one where a port is declared as HTTP. */
const SIDECAR_ALPN = /^(istio|istio-http\/1\.[01]|istio-h2)$/;
const protocols = ({ spec }: SeenContext): string[] => (spec.alpnProtocols ?? '').split(',').map((one) => one.trim());

const istioContexts = ({ contexts }: World) => contexts.filter(({ mesh }) => mesh === 'istio');

function* istioMappings(world: World): Generator<SeenMapping> {
  const names = new Set(istioContexts(world).map(({ reading }) => reading.name));
  for (const mapping of world.mappings)
    if (typeof mapping.spec.tls === 'string' && names.has(mapping.spec.tls)) yield mapping;
}

export const istioChecks: readonly Check[] = [
  {
    code: 'MC2001',
    severity: 'warning',
    title: 'Permissive sidecars refuse TLS without an istio protocol',
    *run(world) {
      for (const context of istioContexts(world)) {
        if (protocols(context).some((one) => SIDECAR_ALPN.test(one))) continue;
        yield {
          object: context.object,
          message:
            'under PeerAuthentication PERMISSIVE, the default, a sidecar closes TLS connections that offer no istio protocol or passes them to the application; under STRICT it treats them as raw TCP on ports that it detects',
          fix: 'set alpn_protocols: istio-http/1.1,istio,http/1.1 (for gRPC: istio-h2,istio,h2)',
        };
      }
    },
  },
  {
    code: 'MC2002',
    severity: 'error',
    title: 'istio-peer-exchange announces framing that the gateway does not speak',
    *run(world) {
      for (const context of istioContexts(world)) {
        if (!protocols(context).includes('istio-peer-exchange')) continue;
        yield {
          object: context.object,
          message:
            'a sidecar that agrees to istio-peer-exchange waits for metadata before the request, which Emissary’s Envoy never sends',
          fix: 'remove it from alpn_protocols',
        };
      }
    },
  },
  {
    code: 'MC2003',
    severity: 'warning',
    title: 'Without a port, a Mapping with TLS goes to 443',
    *run(world) {
      for (const { object, spec } of istioMappings(world)) {
        if (parseService(spec.service).port !== undefined) continue;
        yield {
          object,
          message: `service ${spec.service} names no port, and with a TLSContext that means 443; workloads of Istio listen on their own ports, so the connection hangs`,
          fix: 'write the port of the Service, such as https://web.shop:80',
        };
      }
    },
  },
  {
    code: 'MC2004',
    severity: 'error',
    title: 'The upstream is in an ambient namespace',
    *run(world) {
      for (const { object, service } of istioMappings(world)) {
        const namespace = world.all('Namespace').find(({ metadata }) => metadata.name === service.namespace);
        if (namespace?.metadata.labels?.['istio.io/dataplane-mode'] !== 'ambient') continue;
        yield {
          object,
          message: `the namespace ${service.namespace} is ambient: ztunnel passes TLS on its application ports through as bytes, or denies it under STRICT; there is no way in for plain mTLS`,
          fix: 'enrol the gateway in ambient (istio.io/dataplane-mode: ambient) and send plaintext, or give the workload a sidecar',
        };
      }
    },
  },
  {
    code: 'MC2005',
    severity: 'warning',
    title: 'The certificate comes through the sidecar’s files, without roots',
    *run({ contexts, env }) {
      for (const { object, secret, spec } of contexts) {
        if (secret?.name !== 'istio-certs' || !env.istioSecretDir || spec.caSecret) continue;
        yield {
          object,
          message:
            'Emissary makes istio-certs up from key.pem and cert-chain.pem and ignores root-cert.pem: the upstream is not verified, and files that change more than 5 s apart are missed',
          fix: 'let meshcert publish the certificate, and name its Secrets as secret and ca_secret',
        };
      }
    },
  },
  {
    code: 'MC2006',
    severity: 'error',
    title: 'The certificate of istiod is not for this address',
    *run({ all }) {
      for (const object of all('MeshCertificate')) {
        const ca = fields(fields(fields(object.spec).istio).ca);
        const host = (text(ca.address) ?? '').replace(/:\d+$/, '');
        const unnamed = host.endsWith('.cluster.local') || /^[\d.]+$|^\[/.test(host);
        if (!unnamed || ca.serverName !== undefined) continue;
        yield {
          object,
          message: `istiod proves names such as istiod.istio-system.svc, never ${host}: the connection fails`,
          fix: 'dial istiod.istio-system.svc:15012, or set spec.istio.ca.serverName to that name',
        };
      }
    },
  },
  {
    code: 'MC2007',
    severity: 'error',
    title: 'Port 15010 of istiod speaks plaintext',
    *run({ all }) {
      for (const object of all('MeshCertificate')) {
        const address = text(fields(fields(fields(object.spec).istio).ca).address) ?? '';
        if (!address.endsWith(':15010')) continue;
        yield {
          object,
          message: `${address} has no TLS, so the connection fails, and a token must not be sent there`,
          fix: 'use port 15012',
        };
      }
    },
  },
];
