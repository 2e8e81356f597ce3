import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errorFromSocket, errorFromStatus } from './classify.ts';

const called = {
  verb: 'create',
  object: 'Secret emissary/istio-ca',
  rule: { group: '', resource: 'secrets', namespace: 'emissary', name: undefined },
};
const status = (message: string, more: object = {}) => ({
  kind: 'Status',
  apiVersion: 'v1',
  status: 'Failure',
  reason: 'Forbidden',
  message,
  ...more,
});

test('a namespace that is being deleted is not reported as a missing right', () => {
  const message =
    'secrets "istio-ca" is forbidden: unable to create new content in namespace emissary because it is being terminated';
  const details = { causes: [{ reason: 'NamespaceTerminating', message: 'namespace emissary is being terminated' }] };
  const error = errorFromStatus(called, 403, status(message, { details }), undefined);
  assert.equal(error.code, 'ERR_KUBE_TERMINATING');
  assert.match(error.message, /the namespace emissary is being deleted/);
  assert.doesNotMatch(error.message, /Role/);
});

test('a missing right names the rule to grant, and a refusal by a quota does not', () => {
  const rbac = status(
    'secrets is forbidden: User "system:serviceaccount:a:b" cannot create resource "secrets" in API group "" in the namespace "emissary"',
  );
  assert.match(
    errorFromStatus(called, 403, rbac, undefined).message,
    /Grant it in a Role: \{apiGroups: \[""\], resources: \[secrets\], verbs: \[create\]\} in namespace emissary/,
  );
  const quota = status(
    'secrets "istio-ca" is forbidden: exceeded quota: none, requested: count/secrets=1, used: count/secrets=0, limited: count/secrets=0',
  );
  const { message } = errorFromStatus(called, 403, quota, undefined);
  assert.match(message, /exceeded quota: none.*An admission rule or a quota/);
  assert.doesNotMatch(message, /Grant/);
});

test('a body that is not a Status of the API server is not quoted, nor is the content of a Secret', () => {
  assert.doesNotMatch(errorFromStatus(called, 502, { message: 'from a proxy' }, undefined).message, /proxy/);
  const value = 'A1b2'.repeat(40);
  const quoted = status(`Secret "istio-ca" is invalid: data[tls.key]: Invalid value: ${value}: must be shorter`);
  assert.ok(!errorFromStatus(called, 422, quoted, undefined).message.includes('A1b2A1b2'));
});

test('an answer that is not JSON is reported without quoting it', () => {
  let cause: unknown;
  try {
    JSON.parse('<html>secret page</html>');
  } catch (error) {
    cause = error;
  }
  const { message } = errorFromSocket(called, cause);
  assert.match(message, /the answer is not JSON/);
  assert.doesNotMatch(message, /html/);
});

test('a definition that is too old is named, and for our own the command that brings it to this version', () => {
  const message = 'failed to create typed patch object: .status.novel: field not declared in schema';
  const patched = (group: string, resource: string) =>
    errorFromStatus({ verb: 'patch', object: 'X a/b', rule: { group, resource } }, 500, status(message), undefined);
  const own = patched('meshcert.dev', 'meshcertificates/status');
  assert.equal(own.code, 'ERR_KUBE_INVALID');
  assert.match(own.message, /CustomResourceDefinition meshcertificates\.meshcert\.dev in the cluster is older/);
  assert.match(own.message, /: meshcert schema --crd \| kubectl apply --server-side --force-conflicts -f -$/);
  const other = patched('example.com', 'things');
  assert.match(other.message, /CustomResourceDefinition things\.example\.com in the cluster is older.*: upgrade it\.$/);
});

test('a kind that the API server does not serve is not taken for an object that is gone', () => {
  const listed = (group: string, resource: string, body: unknown) =>
    errorFromStatus({ verb: 'list', object: resource, rule: { group, resource } }, 404, body, undefined);
  const page = '404 page not found';
  const unserved = status('the server could not find the requested resource', { reason: 'NotFound', details: {} });
  for (const body of [page, unserved]) {
    const own = listed('meshcert.dev', 'meshcertificates', body);
    assert.equal(own.code, 'ERR_KUBE_NOT_FOUND');
    assert.match(
      own.message,
      /there is no CustomResourceDefinition meshcertificates\.meshcert\.dev: meshcert schema --crd/,
    );
    const other = listed('example.com', 'things', body);
    assert.match(other.message, /there is no CustomResourceDefinition things\.example\.com: install it\.$/);
  }
  const gone = status('meshcertificates.meshcert.dev "istio" not found', { reason: 'NotFound' });
  assert.doesNotMatch(listed('meshcert.dev', 'meshcertificates', gone).message, /no CustomResourceDefinition/);
  assert.doesNotMatch(listed('', 'secrets', page).message, /CustomResourceDefinition secrets/);
});
