import assert from 'node:assert/strict';
import { createPublicKey } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ROOT } from '../../scripts/tree.ts';
import { type AgentProcess, isPublished, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { meshCertificatesOf } from './parts/mesh-certificates.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type Consul, startConsul } from './servers/consul.ts';
import { createKubernetesMethod, createServiceToken } from './servers/consul-levers.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { discard, scratchDir } from './servers/process.ts';

const METHOD = 'consul-k8s-auth-method';
const API_AUDIENCE = 'https://kubernetes.default.svc.cluster.local';
const SERVICE = 'ambassador';

/** Each error is brought about on a real Consul and a real API server; then what it advises is done, and it is gone. */
describe('the advice of errors of Consul', () => {
  let server: KubeApiserver;
  let consul: Consul;
  let agent: AgentProcess;
  let dir: string;

  before(async () => {
    dir = scratchDir('advice-consul');
    server = await startKubeApiserver();
    await prepareCluster(server, { ambassador: [SERVICE], consul: ['consul-auth-method'] });
    await server.kubectl(['apply', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
    await server.kubectl(['wait', '--for=condition=Established', 'crd/meshcertificates.meshcert.dev', '--timeout=30s']);
    consul = await startConsul({ config: { connect: { enabled: false } } });
    agent = await startAgentProcess({
      kubeconfig: server.kubeconfigFile,
      args: ['-n', 'ambassador', '--files-below', dir],
    });
  });
  after(async () => {
    await agent?.stop();
    await consul?.stop();
    await server?.stop();
    if (dir) discard(dir);
  });

  const tls = () => ({ ca: { inline: consul.ca.root }, serverName: consul.serverName });
  const overHttp = (auth: object, more: object = {}) => ({
    consul: { service: SERVICE, http: { address: consul.httpsUrl, tls: tls() }, auth, ...more },
  });
  const overGrpc = (auth: object, more: object = {}) => ({
    consul: {
      service: SERVICE,
      datacenter: 'dc1',
      grpc: { addresses: [consul.grpcTlsAddress], tls: tls() },
      auth,
      ...more,
    },
  });
  const { document, create, patch, errorOf, well } = meshCertificatesOf(
    'ambassador',
    () => server,
    () => agent.log(),
  );
  const refused = async (name: string, code: string, says: RegExp) => assert.match(await errorOf(name, code), says);
  const file = async (name: string, text: string) => {
    await writeFile(join(dir, name), text, { mode: 0o600 });
    return join(dir, name);
  };
  const accountToken = (audience: string) =>
    server.serviceAccountToken({ namespace: 'ambassador', name: SERVICE, audience });

  it('ERR_MESH_UNSUPPORTED: enable Connect on the servers', async () => {
    const tokenFile = await file('bootstrap', consul.token);
    await create('no-connect', overHttp({ tokenFile }));
    await refused('no-connect', 'ERR_MESH_UNSUPPORTED', /enable it on the servers: connect \{ enabled = true \}/);
    await consul.reconfigure({ connect: { enabled: true } });
    await well('no-connect');
  });

  it('ERR_MESH_TOKEN: replace the token in the file', async () => {
    const tokenFile = await file('stale', '00000000-0000-4000-8000-000000000000');
    // A leaf that the agent has in its cache would be handed out with any token.
    await create('stale', overHttp({ tokenFile }, { service: 'stale' }));
    await refused('stale', 'ERR_MESH_TOKEN', /unknown, expired or deleted: replace it/);
    await file('stale', (await createServiceToken(consul, 'stale')).secret);
    await well('stale');
  });

  it('ERR_MESH_DENIED: grant service:write on this service', async () => {
    const { secret, accessor } = await createServiceToken(consul, 'other');
    const tokenFile = await file('other', secret);
    await create('denied', overGrpc({ tokenFile }));
    await refused('denied', 'ERR_MESH_DENIED', /grant the token service:write/);
    const ServiceIdentities = [{ ServiceName: SERVICE }];
    await consul.api('PUT', `/v1/acl/token/${accessor}`, { AccessorID: accessor, SecretID: secret, ServiceIdentities });
    await well('denied');
  });

  it('ERR_MESH_CONFIG: compare the datacenter with the cluster', async () => {
    const tokenFile = await file('bootstrap', consul.token);
    await create('datacenter', overGrpc({ tokenFile }, { datacenter: 'dc9' }));
    await refused('datacenter', 'ERR_MESH_CONFIG', /compare datacenter/);
    await patch('datacenter', { consul: { datacenter: 'dc1' } });
    await well('datacenter');
  });

  describe("of a login with the pod's own token from a file", () => {
    const logins = async () => {
      const tokens = (await consul.api('GET', '/v1/acl/tokens')) as { AuthMethod?: string }[];
      return tokens.filter(({ AuthMethod }) => AuthMethod === METHOD || AuthMethod === 'kubernetes-jwt').length;
    };
    const login = (method: string, tokenFile?: string) => ({ login: { method, ...(tokenFile && { tokenFile }) } });

    before(async () => {
      await createKubernetesMethod(consul, server, { name: METHOD, audience: API_AUDIENCE });
      await createJwtMethod();
    });

    it('ERR_MESH_CONFIG: a resource without a serviceAccount names no file of the pod', async () => {
      await create('pod', overHttp(login(METHOD)));
      await refused('pod', 'ERR_MESH_CONFIG', /serviceaccount\/token is not below .*name a serviceAccount instead/);
      assert.equal(await logins(), 0);
      await patch('pod', { consul: { auth: { login: { method: 'kubernetes-jwt', serviceAccount: SERVICE } } } });
      await well('pod');
    });

    it('ERR_NOT_ALLOWED: a token that opens the Kubernetes API is not sent; one for Consul alone is', async () => {
      const before = await logins();
      const tokenFile = await file('own', await accountToken(API_AUDIENCE));
      await create('own', overHttp(login(METHOD, tokenFile)));
      await refused(
        'own',
        'ERR_NOT_ALLOWED',
        /own opens the Kubernetes API.*choose another audience.*--allow-audience=https:/,
      );
      assert.equal(await logins(), before);
      await file('own', await accountToken('consul'));
      await patch('own', { consul: { auth: { login: { method: 'kubernetes-jwt' } } } });
      await well('own');
      assert.ok((await logins()) > before);
    });

    it('is used where the operator allows its audience, or names the file in a configuration file', async () => {
      const tokenFile = await file('allowed', await accountToken(API_AUDIENCE));
      const kubeconfig = server.kubeconfigFile;
      const documents = (name: string) => JSON.stringify(document(name, overGrpc(login(METHOD, tokenFile))));
      const lease = (name: string) => ['-n', 'ambassador', '--lease-name', name];
      {
        await using configured = await startAgentProcess({
          kubeconfig,
          documents: documents('configured'),
          args: lease('a'),
        });
        await eventually('the certificate', () => isPublished(configured), configured.log);
      }
      await agent.stop();
      const args = [
        '-n',
        'ambassador',
        '--files-below',
        dir,
        '--allow-audience',
        API_AUDIENCE,
        '--allow-audience',
        'consul',
      ];
      agent = await startAgentProcess({ kubeconfig, args });
      await create('allowed', overGrpc(login(METHOD, tokenFile)));
      await well('allowed');
    });
  });

  /** The public keys of the API server itself: Consul verifies its tokens without asking it. */
  async function createJwtMethod(): Promise<void> {
    const { keys } = JSON.parse(await server.kubectl(['get', '--raw', '/openid/v1/jwks'])) as {
      keys: Record<string, string>[];
    };
    const pem = keys.map((key) => createPublicKey({ key, format: 'jwk' }).export({ type: 'spki', format: 'pem' }));
    await consul.api('PUT', '/v1/acl/auth-method', {
      Name: 'kubernetes-jwt',
      Type: 'jwt',
      Config: {
        JWTValidationPubKeys: pem,
        JWTSupportedAlgs: keys.map(({ alg }) => alg),
        BoundIssuer: API_AUDIENCE,
        BoundAudiences: ['consul'],
        ClaimMappings: { '/kubernetes.io/serviceaccount/name': 'account' },
      },
    });
    // biome-ignore lint/suspicious/noTemplateCurlyInString: Consul fills it in
    const rule = { AuthMethod: 'kubernetes-jwt', BindType: 'service', BindName: '${value.account}' };
    await consul.api('PUT', '/v1/acl/binding-rule', rule);
  }
});
