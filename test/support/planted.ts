import { randomUUID } from 'node:crypto';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { PrivateKey } from '../../src/pki/key.ts';

const DAY = 86_400_000;

/**
 * What a user who may only create objects can make before the agent's first write: Secrets with our labels, our field
 * manager, an annotation in our format and a pair for the same identity that lives for years.
 */
export function plantedSecrets(namespace: string, id: string, now: number) {
  const ca = SandboxCa.root({ name: 'planted', notBefore: now - DAY, notAfter: now + 3650 * DAY });
  const key = PrivateKey.generate();
  const leaf = ca.issue(key, { uris: [id], notBefore: now - 1000, notAfter: now + 3000 * DAY });
  const root = ca.certificate;
  const uid = randomUUID();
  const secret = (name: string, type: string, texts: Record<string, string>): KubeObject => ({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: {
      name,
      namespace,
      uid,
      labels: {
        'meshcert.dev/owner': `${namespace}.istio`,
        'app.kubernetes.io/managed-by': 'meshcert',
        planted: 'yes',
      },
      annotations: {
        'meshcert.dev/uid': uid,
        'meshcert.dev/root-times': `-${root.fingerprint.slice(0, 16)}=${new Date(now).toISOString()}`,
      },
      ownerReferences: [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'planted', uid: randomUUID() }],
      managedFields: ['Apply', 'Update'].map((operation) => ({
        manager: 'meshcert',
        operation: operation as 'Apply' | 'Update',
        apiVersion: 'v1',
        time: new Date(now).toISOString().replace(/\.\d+Z$/, 'Z'),
        fieldsType: 'FieldsV1',
        fieldsV1: { 'f:data': { 'f:tls.crt': {}, 'f:ca.crt': {} } },
      })),
    },
    type,
    data: Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, Buffer.from(text).toString('base64')])),
  });
  return {
    root,
    leaf,
    secrets: [
      secret('istio-ca', 'Opaque', { 'tls.crt': root.pem, 'ca.crt': root.pem, 'crl.pem': 'planted' }),
      secret('istio-identity', 'kubernetes.io/tls', {
        ...{ 'tls.crt': leaf.pem, 'tls.key': key.toPem(), 'ca.crt': root.pem },
        'root-cert.pem': root.pem,
      }),
    ],
  };
}
