import { containerFields } from '../../../mesh/workload.ts';
import { isConnector } from '../reading/installation.ts';
import { BATCH_GAP_MS } from '../spec/resources.ts';
import type { DoctorCheck } from './check.ts';

export const gatewayChecks: readonly DoctorCheck[] = [
  {
    code: 'MC1401',
    severity: 'error',
    title: 'This Emissary does not notice that the Istio files of its sidecar rotate',
    *run({ gateway, env }) {
      if (!gateway || !env.istioSecretDir || !env.version || !olderThan(env.version, [4, 1, 0])) return;
      yield {
        object: gateway,
        message: `Emissary ${env.version} with AMBASSADOR_ISTIO_SECRET_DIR keeps an expired certificate until something else changes (fixed in 4.1.0)`,
        fix: 'let meshcert publish a Secret, and remove the variable and the sidecar; or upgrade to 4.1.0',
      };
    },
  },
  {
    code: 'MC1402',
    severity: 'warning',
    title: 'The gateway batches changes for longer than the agent separates its writes',
    *run({ gateway, env }) {
      if (!gateway || env.batchMs * 2 <= BATCH_GAP_MS) return;
      yield {
        object: gateway,
        message: `AMBASSADOR_RECONFIG_MAX_DELAY is ${env.batchMs / 1000} s: when a Secret and a Mapping change in one batch, the other Mappings keep the old certificate until the next batch without a Mapping`,
        fix: 'set AMBASSADOR_RECONFIG_MAX_DELAY to 1',
      };
    },
  },
  {
    code: 'MC1403',
    severity: 'error',
    title: 'AMBASSADOR_RECONFIG_MAX_DELAY must be above zero',
    *run({ gateway, env }) {
      if (!gateway || env.batchMs > 0) return;
      yield {
        object: gateway,
        message:
          'Emissary exits at its start ("interval must be positive"), so the gateway does not come back after its next restart',
        fix: 'set it to 1, or remove it',
      };
    },
  },
  {
    code: 'MC1404',
    severity: 'warning',
    title: 'The old Consul connector is still running',
    *run({ all }) {
      for (const object of [...all('Deployment'), ...all('DaemonSet')]) {
        if (!containerFields(object).some(isConnector)) continue;
        yield {
          object,
          message:
            'consul_connect_integration writes the same Secret without roots and without checks; two writers of one Secret overwrite each other',
          fix: 'run meshcert agent --consul-connector with its environment instead, and delete the connector (docs/migrate-consul-connector.md)',
        };
      }
    },
  },
  {
    code: 'MC1405',
    severity: 'note',
    title: 'Objects in annotations are not checked',
    *run({ all }) {
      for (const object of all('Service')) {
        const config = object.metadata.annotations?.['getambassador.io/config'];
        if (!config || !/kind:\s*(Mapping|TCPMapping|TLSContext)\b/.test(config)) continue;
        yield {
          object,
          message: 'its annotation getambassador.io/config holds Mappings or TLSContexts, which doctor does not check',
          fix: 'create them as objects of their own',
        };
      }
    },
  },
  {
    code: 'MC1406',
    severity: 'warning',
    title: 'The gateway has a sidecar of the mesh',
    *run({ gateway, contexts, snapshot }) {
      if (!gateway || !contexts.some(({ used }) => used)) return;
      for (const { title, pods } of snapshot.adapters) {
        const fix = pods?.intercepts?.(gateway);
        if (fix === undefined) continue;
        yield {
          object: gateway,
          message: `its ${title} sidecar intercepts outgoing connections, so the gateway's TLS is sent inside the sidecar's TLS, which upstreams do not expect`,
          fix,
        };
      }
    },
  },
  {
    code: 'MC2005',
    severity: 'warning',
    title: 'The certificate comes from the files of the sidecar, without roots',
    *run({ contexts, env }) {
      for (const { object, secret, spec } of contexts) {
        if (secret?.name !== 'istio-certs' || !env.istioSecretDir || spec.caSecret) continue;
        yield {
          object,
          message:
            'Emissary creates istio-certs from key.pem and cert-chain.pem and ignores root-cert.pem: the upstream is not verified, and files that change more than 5 s apart are missed',
          fix: 'let meshcert publish the certificate, and name its Secrets as secret and ca_secret',
        };
      }
    },
  },
];

function olderThan(version: string, than: readonly number[]): boolean {
  const parts = version.split('.').map(Number);
  for (const [at, wanted] of than.entries()) {
    const part = parts[at] ?? 0;
    if (part !== wanted) return part < wanted;
  }
  return false;
}
