import { fields, text } from '../../../src/mesh/kube-object.ts';
import type { ObjectCheck } from '../../../src/mesh/object-check.ts';

export const checks: readonly ObjectCheck[] = [
  {
    code: 'MC4001',
    severity: 'warning',
    title: 'The name of the Consul service differs from the account that logs in',
    *run({ all }) {
      for (const object of all('MeshCertificate')) {
        const consul = fields(fields(object.spec).consul);
        const account = text(fields(fields(fields(consul.auth).login).serviceAccount).name);
        const service = text(consul.service) ?? 'ambassador';
        if (!account || account === service) continue;
        yield {
          object,
          message: `the default binding rule of consul-k8s lets the token of ${account} write only the service ${account}; Consul refuses to sign for ${service} with PERMISSION_DENIED`,
          fix: `set spec.consul.service to ${account}, annotate the account with consul.hashicorp.com/service-name: ${service}, or add a binding rule`,
        };
      }
    },
  },
  {
    code: 'MC4002',
    severity: 'warning',
    title: 'A Consul token is sent in plaintext',
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
            'the connection has no TLS: whoever can read the traffic can act as the gateway in the mesh, and over HTTP also reads its private key',
          fix: 'use the HTTPS port (8501 by convention), or gRPC with TLS',
        };
      }
    },
  },
  {
    code: 'MC4003',
    severity: 'warning',
    title: 'The gRPC address of Consul has the port of the HTTP API',
    *run({ all }) {
      for (const object of all('MeshCertificate')) {
        const grpc = fields(fields(fields(object.spec).consul).grpc);
        const addresses = Array.isArray(grpc.addresses) ? grpc.addresses.map(String) : [];
        const http = addresses.filter((address) => /:850[01]$/.test(address));
        if (http.length === 0) continue;
        yield {
          object,
          message: `${http.join(', ')} is the HTTP API; gRPC is on 8502 (consul-k8s, with or without TLS) or 8503 (other servers, with TLS)`,
          fix: 'use the gRPC port, or use spec.consul.http',
        };
      }
    },
  },
];
