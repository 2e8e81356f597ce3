import { apiVersionOf, type Kind } from './objects/kinds.ts';
import type { JsonFields } from './objects/object.ts';
import type { KindRegistry } from './objects/registry.ts';

/** The version that the server reports; kubectl refuses one it cannot parse. */
export const SERVER_VERSION = { major: '1', minor: '34', gitVersion: 'v1.34.2', platform: 'linux/amd64' } as const;

const VERBS = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'];

/** Answers the discovery paths; undefined for any other. */
export function discover(path: string, registry: KindRegistry): JsonFields | undefined {
  const parts = path.split('/').filter((part) => part !== '');
  const kinds = registry.all();
  if (parts[0] === 'version' && parts.length === 1) return { ...SERVER_VERSION, gitCommit: '', gitTreeState: 'clean' };
  if (parts[0] === 'api' && parts.length === 1) {
    return { kind: 'APIVersions', versions: ['v1'], serverAddressByClientCIDRs: [] };
  }
  if (parts[0] === 'api' && parts[1] === 'v1' && parts.length === 2) return resourceList('v1', kinds);
  if (parts[0] !== 'apis' || parts.length > 3) return undefined;
  if (parts.length === 1) {
    const groups = [...new Set(kinds.map((kind) => kind.group))].filter((group) => group !== '');
    return { kind: 'APIGroupList', apiVersion: 'v1', groups: groups.map((group) => groupOf(group, kinds)) };
  }
  const [, group = '', version] = parts;
  if (!kinds.some((kind) => kind.group === group)) return undefined;
  if (version === undefined) return { kind: 'APIGroup', apiVersion: 'v1', ...groupOf(group, kinds) };
  if (!kinds.some((kind) => kind.group === group && kind.version === version)) return undefined;
  return resourceList(`${group}/${version}`, kinds);
}

function groupOf(group: string, kinds: readonly Kind[]): JsonFields {
  const versions = [...new Set(kinds.filter((kind) => kind.group === group).map((kind) => kind.version))].map(
    (version) => ({ groupVersion: `${group}/${version}`, version }),
  );
  return { name: group, versions, preferredVersion: versions[0] };
}

function resourceList(groupVersion: string, kinds: readonly Kind[]): JsonFields {
  const resources = kinds
    .filter((kind) => apiVersionOf(kind) === groupVersion)
    .sort((a, b) => (a.plural < b.plural ? -1 : 1))
    .flatMap((kind) => {
      const { plural: name, singular: singularName, namespaced, shortNames, categories } = kind;
      const main = { name, singularName, namespaced, kind: kind.kind, verbs: kind.virtual ? ['create'] : VERBS };
      const extra = {
        ...(shortNames.length > 0 ? { shortNames } : {}),
        ...(categories.length > 0 ? { categories } : {}),
      };
      const status = {
        name: `${name}/status`,
        singularName: '',
        namespaced,
        kind: kind.kind,
        verbs: ['get', 'patch', 'update'],
      };
      const token = {
        ...status,
        name: `${name}/token`,
        kind: 'TokenRequest',
        group: 'authentication.k8s.io',
        version: 'v1',
        verbs: ['create'],
      };
      return [
        { ...main, ...extra },
        ...(kind.status ? [status] : []),
        ...(kind.kind === 'ServiceAccount' ? [token] : []),
      ];
    });
  return { kind: 'APIResourceList', apiVersion: 'v1', groupVersion, resources };
}

/** OpenAPI v3, enough for kubectl: which writes take `fieldValidation`, and the schemas of custom resources. */
export function openApi(path: string, registry: KindRegistry): JsonFields | undefined {
  const versions = new Map(registry.all().map((kind) => [apiRoot(kind), apiVersionOf(kind)]));
  if (path === '/openapi/v3') {
    const paths = [...versions.keys()].map((root) => [root, { serverRelativeURL: `/openapi/v3/${root}` }]);
    return { paths: Object.fromEntries(paths) };
  }
  const root = path.replace('/openapi/v3/', '');
  const apiVersion = versions.get(root);
  if (!path.startsWith('/openapi/v3/') || apiVersion === undefined) return undefined;
  const kinds = registry.all().filter((kind) => apiVersionOf(kind) === apiVersion);
  return {
    openapi: '3.0.0',
    info: { title: 'Kubernetes', version: SERVER_VERSION.gitVersion },
    paths: Object.fromEntries(kinds.map((kind) => [pathOf(kind), operations(kind)])),
    components: { schemas: Object.fromEntries(kinds.map((kind) => [schemaName(kind), schemaOf(kind)])) },
  };
}

const apiRoot = (kind: Kind): string => (kind.group === '' ? 'api/v1' : `apis/${kind.group}/${kind.version}`);
const pathOf = (kind: Kind): string =>
  `/${apiRoot(kind)}/${kind.namespaced ? 'namespaces/{namespace}/' : ''}${kind.plural}/{name}`;
const schemaName = (kind: Kind): string =>
  `${(kind.group || 'io.k8s.api.core').split('.').reverse().join('.')}.${kind.version}.${kind.kind}`;
const gvk = ({ group, version, kind }: Kind): JsonFields => ({ group, version, kind });

function operations(kind: Kind): JsonFields {
  const parameters = ['dryRun', 'fieldManager', 'fieldValidation', 'force'].map((name) => ({
    name,
    in: 'query',
    schema: { type: name === 'force' ? 'boolean' : 'string', uniqueItems: true },
  }));
  const content = { 'application/json': { schema: { $ref: `#/components/schemas/${schemaName(kind)}` } } };
  return {
    patch: {
      'x-kubernetes-action': 'patch',
      'x-kubernetes-group-version-kind': gvk(kind),
      parameters,
      responses: { 200: { description: 'OK', content } },
    },
  };
}

function schemaOf(kind: Kind): JsonFields {
  return { type: 'object', ...kind.schema, 'x-kubernetes-group-version-kind': [gvk(kind)] };
}
