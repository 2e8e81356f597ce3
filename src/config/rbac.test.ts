import assert from 'node:assert/strict';
import { test } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { gateways } from '../gateways.ts';
import type { KubeObject } from '../objects/objects.ts';
import { parseDocuments } from './documents.ts';
import { type RbacOptions, rbacFor } from './rbac.ts';

const options: RbacOptions = {
  adapters,
  gateways,
  name: 'meshcert',
  serviceAccount: { name: 'meshcert', namespace: 'emissary' },
  leaseName: 'meshcert',
  shards: 1,
  resources: true,
};

function documents(...specs: readonly string[]) {
  const text = specs.map(
    (spec, index) =>
      `apiVersion: meshcert.dev/v1alpha1\nkind: MeshCertificate\nmetadata: {name: m${index}, namespace: emissary}\nspec: ${spec}\n`,
  );
  const { documents: found, errors } = parseDocuments(text.join('---\n'), 'x.yaml', adapters, gateways);
  assert.deepEqual(errors, []);
  return found;
}

interface Rule {
  apiGroups: string[];
  resources: string[];
  resourceNames?: string[];
  verbs: string[];
}

function rulesOf(objects: readonly KubeObject[], namespace: string | undefined): Rule[] {
  const role = objects.find(({ kind, metadata }) => kind.endsWith('Role') && metadata.namespace === namespace);
  return (role?.rules ?? []) as Rule[];
}

/** Whether the rules allow a request, as the RBAC authorizer decides. */
function allows(rules: readonly Rule[], verb: string, resource: string, name?: string): boolean {
  return rules.some(
    (rule) =>
      rule.verbs.includes(verb) &&
      rule.resources.includes(resource) &&
      (rule.resourceNames === undefined || (name !== undefined && rule.resourceNames.includes(name))),
  );
}

test('only the published Secrets can be read, listed or changed', () => {
  const rules = rulesOf(rbacFor(documents('{istio: {ca: {serviceAccount: emissary}}}'), options), 'emissary');
  for (const verb of ['get', 'list', 'watch', 'patch']) {
    for (const name of ['m0-ca', 'm0-identity']) assert.ok(allows(rules, verb, 'secrets', name), `${verb} ${name}`);
    assert.ok(!allows(rules, verb, 'secrets', 'other'), verb);
    assert.ok(!allows(rules, verb, 'secrets'), `${verb} all`);
  }
  for (const verb of ['update', 'delete', 'deletecollection', '*']) assert.ok(!allows(rules, verb, 'secrets', 'm0-ca'));
  assert.ok(allows(rules, 'create', 'secrets'));
});

test('a token can be minted only for the named ServiceAccount', () => {
  const rules = rulesOf(rbacFor(documents('{istio: {ca: {serviceAccount: gateway}}}'), options), 'emissary');
  assert.ok(allows(rules, 'create', 'serviceaccounts/token', 'gateway'));
  assert.ok(!allows(rules, 'create', 'serviceaccounts/token', 'default'));
  const sds = rulesOf(rbacFor(documents('{istio: {sds: {}}}'), options), 'emissary');
  assert.ok(!sds.some(({ resources }) => resources.includes('serviceaccounts/token')));
});

test('objects that a mesh stores elsewhere are read there, by name', () => {
  const objects = rbacFor(
    documents('{linkerd: {serviceAccount: {name: gateway}, controlPlaneNamespace: l5d}}'),
    options,
  );
  const rules = rulesOf(objects, 'l5d');
  assert.ok(allows(rules, 'watch', 'configmaps', 'linkerd-config'));
  assert.ok(allows(rules, 'watch', 'configmaps', 'linkerd-identity-trust-roots'));
  assert.ok(!allows(rules, 'get', 'configmaps', 'other'));
  assert.equal(rules.length, 1);
});

test('a ClusterTrustBundle is read by name, by a ClusterRole that grants nothing else', () => {
  const objects = rbacFor(documents('{istio: {ca: {serviceAccount: a, root: {clusterTrustBundle: {}}}}}'), options);
  const rules = rulesOf(objects, undefined);
  for (const verb of ['get', 'list', 'watch']) {
    assert.ok(allows(rules, verb, 'clustertrustbundles', 'istio.io:istiod-ca:root-cert'));
    assert.ok(!allows(rules, verb, 'clustertrustbundles', 'other'));
  }
  assert.equal(rules.length, 1);
  assert.ok(!rulesOf(objects, 'emissary').some(({ resources }) => resources.includes('configmaps')));
});

test('pods behind Mappings are read only where their ServiceAccounts are asked for', () => {
  const rules = (upstreams: string) =>
    rulesOf(rbacFor(documents(`{istio: {sds: {}}, upstreams: ${upstreams}}`), options), 'emissary');
  for (const upstreams of ['{}', '{serviceAccounts: true, enabled: false}']) {
    for (const resource of ['services', 'pods'])
      assert.ok(!allows(rules(upstreams), 'list', resource, 'any'), upstreams);
  }
  const asked = rules('{serviceAccounts: true}');
  assert.ok(allows(asked, 'get', 'services', 'any') && allows(asked, 'list', 'pods', 'any'));
});

test('deletion is granted only where it was requested', () => {
  const spec = '{istio: {sds: {}}, deletionPolicy: Delete, configMapName: roots}';
  const rules = rulesOf(rbacFor(documents(spec), options), 'emissary');
  assert.ok(allows(rules, 'delete', 'secrets', 'm0-ca'));
  assert.ok(allows(rules, 'delete', 'tlscontexts', 'm0'));
  assert.ok(allows(rules, 'delete', 'configmaps', 'roots'));
  assert.ok(!allows(rules, 'delete', 'mappings', 'any'));
});

test('a configuration that writes no TLSContext still reads them, and deletes those it wrote before', () => {
  const spec = '{istio: {sds: {}}, tlsContext: {enabled: false}}';
  const rules = rulesOf(rbacFor(documents(spec), options), 'emissary');
  for (const verb of ['get', 'list', 'watch', 'delete']) assert.ok(allows(rules, verb, 'tlscontexts', 'm0'), verb);
  for (const verb of ['create', 'patch']) assert.ok(!allows(rules, verb, 'tlscontexts', 'm0'), verb);
});

test('Mappings are changed only where they were selected, and selecting everywhere needs a ClusterRole', () => {
  const left = rulesOf(rbacFor(documents('{istio: {sds: {}}}'), options), 'emissary');
  assert.ok(allows(left, 'watch', 'mappings') && !allows(left, 'patch', 'mappings'));
  const spec = '{istio: {sds: {}}, mappings: {selector: {matchLabels: {a: b}}, namespaces: ["*"]}}';
  const objects = rbacFor(documents(spec), options);
  assert.ok(allows(rulesOf(objects, undefined), 'patch', 'tcpmappings'));
  assert.ok(!rulesOf(objects, undefined).some(({ resources }) => resources.includes('secrets')));
  assert.deepEqual(
    objects.map(({ kind }) => kind),
    ['Role', 'RoleBinding', 'ClusterRole', 'ClusterRoleBinding'],
  );
});

test('one rule serves many certificates of a namespace, each shard has its Lease, and a file needs no custom resource', () => {
  const two = documents('{istio: {sds: {}}}', '{istio: {sds: {}}}');
  const rules = rulesOf(rbacFor(two, { ...options, shards: 2, resources: false }), 'emissary');
  const secrets = rules.filter(({ resources }) => resources.includes('secrets'));
  assert.deepEqual(
    secrets.map(({ resourceNames }) => resourceNames),
    [undefined, ['m0-ca', 'm0-identity', 'm1-ca', 'm1-identity']],
  );
  assert.ok(allows(rules, 'update', 'leases', 'meshcert-1'));
  assert.ok(!allows(rules, 'update', 'leases', 'meshcert'));
  assert.ok(!rules.some(({ apiGroups }) => apiGroups.includes('meshcert.dev')));
});
