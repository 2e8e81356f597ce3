import { generateKeyPairSync, sign } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Consul } from './consul.ts';
import type { KubeApiserver } from './kube-apiserver.ts';

export interface JwtMethod {
  readonly name: string;
  /** A bearer token for `login`: the logged-in token gets the identity of service `service`. */
  bearer(service: string, ttlSeconds?: number): string;
}

/** An auth method that needs no Kubernetes. `maxTokenTtl`, a Go duration of a minute or more, forces new logins. */
export async function createJwtMethod(consul: Consul, name = 'jwt', maxTokenTtl?: string): Promise<JwtMethod> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  await consul.api('PUT', '/v1/acl/auth-method', {
    Name: name,
    Type: 'jwt',
    ...(maxTokenTtl ? { MaxTokenTTL: maxTokenTtl } : {}),
    Config: {
      JWTValidationPubKeys: [publicKey.export({ type: 'spki', format: 'pem' })],
      JWTSupportedAlgs: ['ES256'],
      BoundIssuer: 'meshcert-test',
      BoundAudiences: ['consul'],
      ClaimMappings: { service: 'service' },
    },
  });
  await consul.api('PUT', '/v1/acl/binding-rule', {
    AuthMethod: name,
    BindType: 'service',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: Consul fills it in
    BindName: '${value.service}',
  });
  return {
    name,
    bearer: (service, ttlSeconds = 600) => {
      const now = Math.floor(Date.now() / 1000);
      const claims = { iss: 'meshcert-test', aud: 'consul', sub: service, service, iat: now, exp: now + ttlSeconds };
      const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
      const body = `${part({ alg: 'ES256', typ: 'JWT' })}.${part(claims)}`;
      const signature = sign('sha256', Buffer.from(body), { key: privateKey, dsaEncoding: 'ieee-p1363' });
      return `${body}.${signature.toString('base64url')}`;
    },
  };
}

/** Logs in and returns the token's secret and accessor. */
export async function login(consul: Consul, method: JwtMethod, service: string): Promise<ConsulToken> {
  const ask = { AuthMethod: method.name, BearerToken: method.bearer(service) };
  const answer = await consul.api('POST', '/v1/acl/login', ask);
  return { secret: answer.SecretID, accessor: answer.AccessorID };
}

export interface ConsulToken {
  readonly secret: string;
  readonly accessor: string;
}

/** A token with the identity of one service, enough to sign and fetch its leaf. */
export async function createServiceToken(consul: Consul, service: string): Promise<ConsulToken> {
  const ask = { ServiceIdentities: [{ ServiceName: service }] };
  const answer = await consul.api('PUT', '/v1/acl/token', ask);
  return { secret: answer.SecretID, accessor: answer.AccessorID };
}

/** A new root, with a bridge signed by the old one unless `crossSign` is false: toggles the size of the CA's key. */
export async function rotateRoot(consul: Consul, crossSign = true): Promise<void> {
  const path = '/v1/connect/ca/configuration';
  const { Provider, Config } = await consul.api('GET', path);
  const PrivateKeyBits = Number(Config.PrivateKeyBits) === 384 ? 256 : 384;
  await consul.api('PUT', path, {
    Provider,
    Config: { ...Config, PrivateKeyType: 'ec', PrivateKeyBits },
    ForceWithoutCrossSigning: !crossSign,
  });
}

/** Merges into the CA's configuration; `SkipValidate: true` lifts the lower bounds of its lifetimes. */
export async function configureCa(consul: Consul, changes: Readonly<Record<string, unknown>>): Promise<void> {
  const path = '/v1/connect/ca/configuration';
  const { Provider, Config } = await consul.api('GET', path);
  await consul.api('PUT', path, { Provider, Config: { ...Config, ...changes } });
}

/** Lets `source` call `destination`, or forbids it. */
export async function setIntention(consul: Consul, source: string, destination: string, action: 'allow' | 'deny') {
  const Sources = [{ Name: source, Action: action }];
  await consul.api('PUT', '/v1/config', { Kind: 'service-intentions', Name: destination, Sources });
}

/**
 * What server-acl-init of consul-k8s sets up for ServiceAccount consul/consul-auth-method: names of accounts are names of
 * services. `audience` is that of the API server, which reviews the tokens.
 */
export async function createKubernetesMethod(
  consul: Consul,
  apiserver: KubeApiserver,
  { name: method, audience }: { readonly name: string; readonly audience: string },
): Promise<void> {
  const subjects = [{ kind: 'ServiceAccount', name: 'consul-auth-method', namespace: 'consul' }];
  const rbac = '/apis/rbac.authorization.k8s.io/v1';
  const apiVersion = 'rbac.authorization.k8s.io/v1';
  await apiserver.ensure(`${rbac}/clusterroles`, {
    apiVersion,
    kind: 'ClusterRole',
    metadata: { name: 'consul-auth-method' },
    rules: [{ apiGroups: [''], resources: ['serviceaccounts'], verbs: ['get'] }],
  });
  for (const name of ['consul-auth-method', 'system:auth-delegator']) {
    await apiserver.ensure(`${rbac}/clusterrolebindings`, {
      apiVersion,
      kind: 'ClusterRoleBinding',
      metadata: { name: `consul-${name.replace('system:', '')}` },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name },
      subjects,
    });
  }
  await consul.api('PUT', '/v1/acl/auth-method', {
    Name: method,
    Type: 'kubernetes',
    Config: {
      Host: apiserver.url,
      CACert: await readFile(apiserver.caFile, 'utf8'),
      ServiceAccountJWT: await apiserver.serviceAccountToken({
        namespace: 'consul',
        name: 'consul-auth-method',
        audience,
      }),
    },
  });
  await consul.api('PUT', '/v1/acl/binding-rule', {
    AuthMethod: method,
    BindType: 'service',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: Consul fills it in
    BindName: '${serviceaccount.name}',
    Selector: 'serviceaccount.name!=default',
  });
}
