import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { linkerd } from '../../adapters/linkerd/adapter.ts';
import { verify } from '../../src/core/verify.ts';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import { type Issuer, isIssuer } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { leafOf } from '../../src/mesh/identity.ts';
import { ACCOUNTS, certifyRows } from '../contract/adapter-linkerd-rows.ts';
import { hostFor } from '../support/host.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { type LinkerdJudge, startLinkerdJudge } from './servers/linkerd-judge.ts';
import { scratchDir } from './servers/process.ts';

const signal = new AbortController().signal;

async function world(trustDomain: string): Promise<{ apiserver: KubeApiserver; judge: LinkerdJudge; kube: Kube }> {
  const apiserver = await startKubeApiserver();
  const kube = connect({
    kubeconfigText: await readFile(apiserver.kubeconfigFile, 'utf8'),
    userAgent: 'meshcert',
  });
  await apiserver.ensureNamespace('emissary');
  for (const metadata of ACCOUNTS) {
    await kube.create({ apiVersion: 'v1', kind: 'ServiceAccount', metadata }, { fieldManager: 'test' });
  }
  const judge = await startLinkerdJudge({ apiserver, trustDomain });
  return { apiserver, judge, kube };
}

certifyRows('a service on Linkerd’s own types, with tokens reviewed by a real API server', async () => {
  const { apiserver, judge, kube } = await world('cluster.local');
  return {
    name: 'judge',
    address: judge.address,
    tlsAddress: judge.tlsAddress,
    serverName: judge.serverName,
    roots: judge.roots,
    identity: (namespace, account) => judge.identity(namespace, account),
    token: async (account, audience) => (await kube.token(account, audience, 600)).token,
    userToken: apiserver.adminToken,
    replaceIssuer: () => judge.replaceIssuer(),
    stop: async () => {
      kube.close();
      await judge.stop();
      await apiserver.stop();
    },
  };
});

describe('the adapter, the wire judge and a real API server', () => {
  let apiserver: KubeApiserver;
  let judge: LinkerdJudge;
  let kube: Kube;
  const reports: Error[] = [];
  before(async () => {
    ({ apiserver, judge, kube } = await world('mesh.example'));
  });
  after(async () => {
    kube?.close();
    await judge?.stop();
    await apiserver?.stop();
  });

  function open(config: object): Issuer {
    const host = hostFor(kube, { report: (error) => reports.push(error) });
    const opened = linkerd.open(linkerd.config.parse({ address: judge.tlsAddress, ...config }), host);
    assert.ok(isIssuer(opened));
    return opened;
  }

  it('issue an identity that passes every check, from ConfigMaps and tokens of the real cluster', async () => {
    const identity = await open({ serviceAccount: { name: 'emissary' } }).issue(signal);
    assert.equal(identity.id, 'emissary.emissary.serviceaccount.identity.linkerd.mesh.example');
    const expected = { id: identity.id, trustDomain: 'mesh.example', form: 'dns' } as const;
    const verdict = verify(identity, identity.roots, expected, Date.now());
    assert.deepEqual(verdict.ok ? [] : verdict, []);
  });

  it('issue again after the issuer was replaced, with a new key below the same root', async () => {
    const issuer = open({ serviceAccount: { name: 'emissary' } });
    const first = await issuer.issue(signal);
    await judge.replaceIssuer();
    const second = await issuer.issue(signal);
    assert.notEqual(leafOf(first).fingerprint, leafOf(second).fingerprint);
    assert.notEqual(leafOf(first).publicKeyFingerprint, leafOf(second).publicKeyFingerprint);
    assert.notEqual(first.chain[1]?.fingerprint, second.chain[1]?.fingerprint);
    assert.equal(first.roots[0]?.fingerprint, second.roots[0]?.fingerprint);
  });

  it('see new roots in the ConfigMap as they are written', async () => {
    const issuer = open({ serviceAccount: { name: 'emissary' } });
    const stop = new AbortController();
    const roots = issuer.roots?.(stop.signal)[Symbol.asyncIterator]();
    assert.equal((await roots?.next())?.value?.length, 1);
    const other = (await open({ serviceAccount: { name: 'emissary' } }).issue(signal)).chain[1];
    assert.ok(other);
    const path = '/api/v1/namespaces/linkerd/configmaps';
    const write = (pem: string) =>
      apiserver.apply(path, {
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name: 'linkerd-identity-trust-roots' },
        data: { 'ca-bundle.crt': pem },
      });
    await write(`${judge.roots}${other.pem}`);
    assert.equal((await roots?.next())?.value?.length, 2);
    await write(judge.roots);
    assert.equal((await roots?.next())?.value?.length, 1);
    stop.abort(new Error('enough'));
    await roots?.return?.();
  });

  it('report which ServiceAccount is missing', async () => {
    const error = await open({ serviceAccount: { name: 'nobody' } })
      .issue(signal)
      .catch((reason: unknown) => reason);
    assert.ok(error instanceof MeshError);
    assert.equal(error.code, 'ERR_MESH_TOKEN');
    assert.match(error.message, /ServiceAccount emissary\/nobody does not exist/);
  });

  it('name the audience that a token file has and the one it lacks', async () => {
    const { token } = await kube.token({ name: 'emissary', namespace: 'emissary' }, 'another.example', 600);
    const tokenFile = join(scratchDir('token'), 'token');
    await writeFile(tokenFile, `${token}\n`);
    const error = await open({ tokenFile })
      .issue(signal)
      .catch((reason: unknown) => reason);
    assert.ok(error instanceof MeshError);
    assert.equal(error.code, 'ERR_MESH_TOKEN');
    assert.match(error.message, /audience another\.example, .*lacks audience identity\.l5d\.io; project the token/);
    const good = await kube.token({ name: 'emissary', namespace: 'emissary' }, 'identity.l5d.io', 600);
    await writeFile(tokenFile, good.token);
    assert.match((await open({ tokenFile }).issue(signal)).id, /^emissary\.emissary\./);
  });

  it('refuse a wrong trust domain before the token is sent', async () => {
    const error = await open({ serviceAccount: { name: 'emissary' }, trustDomain: 'cluster.local' })
      .issue(signal)
      .catch((reason: unknown) => reason);
    assert.ok(error instanceof MeshError);
    assert.equal(error.code, 'ERR_MESH_TLS', error.message);
  });

  it('report nothing on the side when all goes well', () => assert.deepEqual(reports, []));
});
