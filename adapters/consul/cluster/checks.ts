import { fields, text } from '../../../src/mesh/kube-object.ts';
import type { ObjectCheck } from '../../../src/mesh/object-check.ts';

export const checks: readonly ObjectCheck[] = [
  {
    code: 'MC4001',
    severity: 'warning',
    title: 'The Consul service is not called as the account that logs in',
    *run({ all }) {
      for (const object of all('MeshCertificate')) {
        const consul = fields(fields(object.spec).consul);
        const account = text(fields(fields(fields(consul.auth).login).serviceAccount).name);
        const service = text(consul.service) ?? 'ambassador';
        if (!account || account === service) continue;
        yield {
          object,
          message: `the stock binding rule of consul-k8s gives the token of ${account} the service ${account} alone; signing for ${service} is refused with PERMISSION_DENIED`,
          fix: `set spec.consul.service to ${account}, annotate the account with consul.hashicorp.com/service-name: ${service}, or add a binding rule`,
        };
      }
    },
  },
  {
    code: 'MC4002',
    severity: 'warning',
    title: 'A Consul token travels in the clear',
    *run({ all }) {
      for (const object of all('MeshCertificate')) {
        const consul = fields(fields(object.spec).consul);
        const address = text(fields(consul.http).address) ?? '';
        const clear =
          (address.startsWith('http://') && !/^http:\/\/(127\.|localhost|\[::1\])/.test(address)) ||
          fields(consul.grpc).plaintext === true;
        if (consul.auth === undefined || !clear) continue;
        yield {
          object,
          message:
            'the connection has no TLS: whoever listens can act as the gateway in the mesh, and read its private key where the agent makes it',
          fix: 'use the HTTPS port (8501 by convention), or gRPC with TLS',
        };
      }
    },
  },
  {
    code: 'MC4003',
    severity: 'warning',
    title: 'Consul’s gRPC API with TLS is not on the plaintext port',
    *run({ all }) {
      for (const object of all('MeshCertificate')) {
        const grpc = fields(fields(fields(object.spec).consul).grpc);
        const addresses = Array.isArray(grpc.addresses) ? grpc.addresses.map(String) : [];
        const http = addresses.filter((address) => /:850[01]$/.test(address));
        if (http.length === 0) continue;
        yield {
          object,
          message: `${http.join(', ')} is the HTTP API; gRPC is on 8502 (consul-k8s, with or without TLS as the chart says) or 8503 (servers elsewhere, with TLS)`,
          fix: 'name the gRPC port, or use spec.consul.http',
        };
      }
    },
  },
];
