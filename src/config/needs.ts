import type { MeshCertificate } from './mesh-certificate.ts';

/** Something of the cluster that a mesh's adapter reads or asks for. */
export interface Need {
  readonly kind: 'configMap' | 'token';
  readonly namespace: string;
  readonly name: string;
}

interface Named {
  readonly name: string;
  readonly namespace?: string | undefined;
}

/** What the parsed configurations of the built-in adapters tell about that; every field may be absent. */
interface Config {
  readonly ca?: {
    readonly serviceAccount?: string;
    readonly root?: { readonly file?: string; readonly inline?: string; readonly configMap?: Named };
  };
  readonly controlPlaneNamespace?: string;
  readonly serviceAccount?: Named;
  readonly trustRoots?: { readonly configMap: string };
  readonly http?: { readonly tls?: { readonly ca?: { readonly configMap?: Named } } };
  readonly grpc?: Config['http'];
  readonly auth?: { readonly login?: { readonly serviceAccount?: string } };
}

/** The ConfigMaps that are read and the ServiceAccounts whose tokens are minted for one MeshCertificate. */
export function needsOf({ metadata, spec }: MeshCertificate): readonly Need[] {
  const own = metadata.namespace ?? 'default';
  const config = spec.mesh.config as Config;
  const configMap = (named: Named | undefined): Need[] =>
    named ? [{ kind: 'configMap', name: named.name, namespace: named.namespace ?? own }] : [];
  const token = (name: string | undefined, namespace = own): Need[] =>
    name === undefined ? [] : [{ kind: 'token', name, namespace }];

  switch (spec.mesh.name) {
    case 'istio': {
      const { ca } = config;
      if (!ca) return [];
      const elsewhere = ca.root?.file !== undefined || ca.root?.inline !== undefined;
      return [
        ...token(ca.serviceAccount),
        ...configMap(elsewhere ? undefined : (ca.root?.configMap ?? { name: 'istio-ca-root-cert' })),
      ];
    }
    case 'linkerd': {
      const namespace = config.controlPlaneNamespace ?? 'linkerd';
      return [
        ...token(config.serviceAccount?.name, config.serviceAccount?.namespace),
        ...configMap({ name: 'linkerd-config', namespace }),
        ...configMap({ name: config.trustRoots?.configMap ?? 'linkerd-identity-trust-roots', namespace }),
      ];
    }
    default:
      return [
        ...token(config.auth?.login?.serviceAccount),
        ...configMap(config.http?.tls?.ca?.configMap),
        ...configMap(config.grpc?.tls?.ca?.configMap),
      ];
  }
}
