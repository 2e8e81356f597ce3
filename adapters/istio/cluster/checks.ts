import { fields, text } from '../../../src/mesh/kube-object.ts';
import type { ObjectCheck } from '../../../src/mesh/object-check.ts';
import { isIstiod, ROOT_CONFIG_MAP, usesTrustBundle } from './discover.ts';

/** A permissive sidecar requires one of these if a port is declared as HTTP. */
const SIDECAR_ALPN = /^(istio|istio-http\/1\.[01]|istio-h2)$/;

export const checks: readonly ObjectCheck[] = [
  {
    code: 'MC2001',
    severity: 'warning',
    title: 'Permissive sidecars refuse TLS without an Istio ALPN protocol',
    *run({ tls }) {
      for (const { object, alpnProtocols } of tls) {
        if (alpnProtocols.some((one) => SIDECAR_ALPN.test(one))) continue;
        yield {
          object,
          message:
            'under PeerAuthentication PERMISSIVE, the default, a sidecar closes TLS connections that offer no Istio ALPN protocol, or passes them to the application; under STRICT it treats them as raw TCP on ports that it detects',
          fix: 'set alpn_protocols: istio-http/1.1,istio,http/1.1 (for gRPC: istio-h2,istio,h2)',
        };
      }
    },
  },
  {
    code: 'MC2002',
    severity: 'error',
    title: 'istio-peer-exchange announces a framing that the gateway does not support',
    *run({ tls }) {
      for (const { object, alpnProtocols } of tls) {
        if (!alpnProtocols.includes('istio-peer-exchange')) continue;
        yield {
          object,
          message:
            'a sidecar that agrees to istio-peer-exchange waits for metadata before the request, which the gateway never sends',
          fix: 'remove it from alpn_protocols',
        };
      }
    },
  },
  {
    code: 'MC2003',
    severity: 'warning',
    title: 'A route with TLS and without a port uses 443',
    *run({ routes }) {
      for (const { object, service, namesPort } of routes) {
        if (namesPort) continue;
        yield {
          object,
          message: `service ${service} names no port, and with TLS that means 443; workloads of Istio listen on their own ports, so the connection hangs`,
          fix: 'write the port of the Service, such as https://web.shop:80',
        };
      }
    },
  },
  {
    code: 'MC2004',
    severity: 'error',
    title: 'The upstream is in an ambient namespace',
    *run({ routes, all }) {
      for (const { object, upstream } of routes) {
        const namespace = all('Namespace').find(({ metadata }) => metadata.name === upstream.namespace);
        if (namespace?.metadata.labels?.['istio.io/dataplane-mode'] !== 'ambient') continue;
        yield {
          object,
          message: `the namespace ${upstream.namespace} is ambient: ztunnel passes TLS on its application ports through as bytes, or denies it under STRICT; plain mTLS does not reach it`,
          fix: 'enroll the gateway in ambient mode (istio.io/dataplane-mode: ambient) and send plaintext, or give the workload a sidecar',
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
          message: `the certificate of istiod is for names such as istiod.istio-system.svc, and never for ${host}: the connection fails`,
          fix: 'use istiod.istio-system.svc:15012, or set spec.istio.ca.serverName to that name',
        };
      }
    },
  },
  {
    code: 'MC2007',
    severity: 'error',
    title: 'Port 15010 of istiod is plaintext',
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
  {
    code: 'MC2008',
    severity: 'warning',
    title: 'istiod does not write the ConfigMap that the roots are read from',
    *run({ all }) {
      const istiods = all('Deployment').filter(isIstiod);
      if (istiods.length === 0 || !istiods.every(usesTrustBundle)) return;
      for (const object of all('MeshCertificate')) {
        const { ca } = fields(fields(object.spec).istio);
        const { file, inline, clusterTrustBundle, configMap } = fields(fields(ca).root);
        if (ca === undefined || [file, inline, clusterTrustBundle].some((one) => one !== undefined)) continue;
        const name = text(fields(configMap).name) ?? ROOT_CONFIG_MAP;
        if (name !== ROOT_CONFIG_MAP) continue;
        yield {
          object,
          message: `istiod publishes its roots as a ClusterTrustBundle (ENABLE_CLUSTER_TRUST_BUNDLE_API) and no longer writes ConfigMap ${name}: it is missing, or stays as it was before and does not follow the next change of the roots`,
          fix: 'set spec.istio.ca.root to {clusterTrustBundle: {}}',
        };
      }
    },
  },
];
