import { fields, type KubeObject, text } from '../../../mesh/kube-object.ts';
import type { ObservedObjects } from '../../gateway.ts';
import type { GatewayInput } from '../../input.ts';
import { type GatewayApiConfig, routePlaces } from '../spec/config.ts';
import { CORE_RESOURCES, EXTENSIONS, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import type { PolicyTarget } from '../spec/target.ts';

export type UsedTarget = Pick<PolicyTarget, 'of' | 'namespace' | 'name'>;

/** Whether a route sends requests there; without a port: to any of its ports. */
export type Usage = (target: UsedTarget, port: number | undefined) => boolean;

const GROUPS: Readonly<Record<string, string>> = {
  [CORE_RESOURCES.services.kind]: '',
  [KINDS.backends.kind]: EXTENSIONS,
};

/** What routes use, as far as they can be read; everything is used if not all of them can. */
export function usage(
  { meta, config }: Pick<GatewayInput<GatewayApiConfig>, 'meta' | 'config'>,
  observed: Pick<ObservedObjects, 'behind' | 'hidden'>,
): Usage {
  const kinds = [KINDS.httpRoutes.kind, KINDS.grpcRoutes.kind];
  const places = routePlaces(config, meta.namespace);
  const all = places.includes('*') ? [undefined] : places;
  if (kinds.some((kind) => all.some((place) => observed.hidden(kind, place) !== undefined))) return () => true;
  const used = usedBy(kinds.flatMap((kind) => observed.behind(kind)));
  return (target, port) => {
    const start = idOf(target);
    if (port === undefined) return [...used].some((one) => one.startsWith(start));
    return used.has(`${start}${port}`) || used.has(`${start}*`);
  };
}

const idOf = ({ of, namespace, name }: { readonly of: string; readonly namespace: string; readonly name: string }) =>
  `${of}/${namespace}/${name}/`;

/** `<kind>/<namespace>/<name>/<port>`, or `…/*` without a port. */
function usedBy(routes: readonly KubeObject[]): ReadonlySet<string> {
  return new Set(
    routes.flatMap(({ metadata, spec }) =>
      backendsIn(spec).flatMap(({ name, namespace, kind = CORE_RESOURCES.services.kind, group = '', port }) => {
        const of = text(kind) ?? '';
        const target = text(name);
        if (target === undefined || GROUPS[of] !== group) return [];
        const place = text(namespace) ?? metadata.namespace ?? '';
        return [`${idOf({ of, namespace: place, name: target })}${typeof port === 'number' ? port : '*'}`];
      }),
    ),
  );
}

/** The references to backends of rules and of filters, such as mirrors. */
export function backendsIn(value: unknown): readonly Readonly<Record<string, unknown>>[] {
  if (Array.isArray(value)) return value.flatMap(backendsIn);
  return Object.entries(fields(value)).flatMap(([key, below]) => {
    if (key === 'backendRefs' && Array.isArray(below)) return [...below.map(fields), ...below.flatMap(backendsIn)];
    return key === 'backendRef' ? [fields(below)] : backendsIn(below);
  });
}

/** The same value with each of these references changed. */
export function withBackends(value: unknown, change: (ref: Readonly<Record<string, unknown>>) => object): unknown {
  if (Array.isArray(value)) return value.map((one) => withBackends(one, change));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, below]) => {
      if (key === 'backendRef') return [key, change(fields(below))];
      if (key !== 'backendRefs' || !Array.isArray(below)) return [key, withBackends(below, change)];
      return [key, below.map((ref) => withBackends(change(fields(ref)), change))];
    }),
  );
}
