import assert from 'node:assert/strict';
import { it } from 'node:test';
import { connect } from '../../src/kube/client.ts';
import { startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { watchPair } from './parts/pair-watch.ts';
import { prepareCluster } from './parts/prepare.ts';
import { authority } from './servers/authority.ts';
import { startKubeApiserver } from './servers/kube-apiserver.ts';
import { startLinkerdJudge } from './servers/linkerd-judge.ts';

const ENDING_MS = 240_000;

it("publishes one leaf while the issuer of Linkerd's identity service ends, names it, and follows its successor", async () => {
  await using apiserver = await startKubeApiserver();
  await prepareCluster(apiserver, { emissary: ['emissary'], linkerd: [] });
  const root = await authority('root.linkerd.cluster.local');
  await using judge = await startLinkerdJudge({ apiserver, root, lifetime: '1h', skew: '5s' });
  await judge.replaceIssuer(await root.intermediate('ending.linkerd.cluster.local', ENDING_MS));
  const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
  await using _kube = { [Symbol.asyncDispose]: async () => kube.close() };
  const place = { namespace: 'emissary', identity: 'linkerd-identity', ca: 'linkerd-ca', form: 'dns' } as const;
  await using pair = watchPair(kube, place);
  await using agent = await startAgentProcess({
    kubeconfig: apiserver.kubeconfigFile,
    documents: `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: linkerd, namespace: emissary}
spec:
  linkerd: {serviceAccount: {name: emissary}, address: "${judge.tlsAddress}"}
  renewal: {at: 0.1, jitter: 0.01}
`,
    args: ['--namespace', 'emissary', '--no-leader-elect'],
  });
  const ending = async () => {
    const [entry] = await agent.statuses();
    return entry?.status.conditions.find(({ type }) => type === 'IssuerEnding');
  };
  /** Each request for a certificate has a token of its own. */
  const requests = async () =>
    (await apiserver.audit()).filter(
      ({ requestURI, responseStatus }) =>
        requestURI.includes('/serviceaccounts/emissary/token') && responseStatus?.code === 201,
    ).length;

  await eventually('the condition', async () => (await ending())?.status === 'True', agent.log);
  assert.match((await ending())?.message ?? '', /CN=ending\.linkerd\.cluster\.local ends at /);
  const before = await requests();
  await eventually('two more requests', async () => (await requests()) >= before + 2, agent.log, 120_000);
  assert.equal(pair.leaves.length, 1, 'a leaf that gains nothing was published');

  await judge.replaceIssuer();
  await pair.until(() => pair.leaves.length >= 2, 120_000, 'a leaf of the next issuer');
  await eventually('no issuer that ends', async () => (await ending())?.status === 'False', agent.log);
  assert.deepEqual(pair.violations, []);
});
