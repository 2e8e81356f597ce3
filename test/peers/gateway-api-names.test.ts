import assert from 'node:assert/strict';
import { it } from 'node:test';
import { peerNameText } from '../../src/mesh/cluster.ts';
import { parseCertificates } from '../../src/pki/certificate.ts';
import { envoyProxy, gateway, gatewayClass, httpRoute, pod, SPEC, service, slice } from '../support/gateway-api.ts';
import { judgeCase } from '../support/gateway-api-judgement.ts';
import { startConsul } from './servers/consul.ts';

it('the names of a policy are those that the real Consul writes into the certificates of the services behind it', async () => {
  await using consul = await startConsul();
  const nameOf = async (of: string): Promise<string> => {
    const { CertPEM } = await consul.api('GET', `/v1/agent/connect/ca/leaf/${of}`);
    return parseCertificates(String(CertPEM))[0]?.names.uris[0] ?? '';
  };
  const [own, ...expected] = [await nameOf('gateway'), await nameOf('frontend'), await nameOf('web')];
  const clientCertificateRef = { name: 'istio-identity', namespace: 'emissary' };
  const annotated = pod('web-2');
  const annotations = { 'consul.hashicorp.com/connect-service': 'frontend' };
  const { targets } = judgeCase({
    mesh: 'consul',
    gatewayApi: SPEC,
    objects: [
      ...[gatewayClass(), gateway(), envoyProxy({ backendTLS: { clientCertificateRef, minVersion: '1.2' } })],
      ...[service(), pod('web-1'), { ...annotated, metadata: { ...annotated.metadata, annotations } }],
      ...[slice(['web-1', 'web-2']), httpRoute()],
    ],
  });
  const names = targets.flatMap((target) => (target.kind === 'policy' ? target.names : []));
  assert.deepEqual(
    names.map((name) => peerNameText(name, own)),
    expected,
  );
});
