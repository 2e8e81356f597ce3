import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { StatusInput } from '../../core/decision/status-of.ts';
import type { PublicationStatus } from '../../core/status.ts';
import type { Gateway } from '../../gateway/gateway.ts';
import type { UsedGateway } from './used-gateway.ts';

/** By kind of gateway, what `LeftFields.of` returns for it. */
export type Recorded = NonNullable<PublicationStatus['gateways']>;

/**
 * The MeshCertificate with the gateways that its spec had before, each configured to retire what is left of it. `before`:
 * what the reconciler of the previous spec recorded; without it, the status says so.
 */
export function withLeft(
  certificate: MeshCertificate,
  gateways: readonly Gateway[],
  before: Recorded | undefined,
): MeshCertificate {
  const { spec, status } = certificate;
  const recorded = before ?? (status as Partial<PublicationStatus> | undefined)?.gateways ?? {};
  const left = gateways.flatMap(({ kind, left }) => {
    const config = spec.gateways[kind] === undefined ? left?.read(recorded[kind]) : undefined;
    return config === undefined ? [] : [[kind, config] as const];
  });
  if (left.length === 0) return certificate;
  return { ...certificate, spec: { ...spec, gateways: { ...spec.gateways, ...Object.fromEntries(left) } } };
}

/** What the status must remember: the gateways of the spec, and those of which something is left. */
export function recordOf(used: readonly UsedGateway[], namespace: string): Recorded {
  return Object.fromEntries(
    used.flatMap((one) => {
      const { gateway, config, isLeft } = one;
      if (!gateway.left || (isLeft && !remains(one))) return [];
      return [[gateway.kind, gateway.left.of(config, namespace) as object]];
    }),
  );
}

/** Whether there may be something left. */
export const remains = ({ routes, retiring }: UsedGateway): boolean =>
  !routes.complete || !retiring.synced || retiring.own().length > 0 || routes.users().length > 0;

/** What keeps what an earlier spec left, and what to do about it. */
export function retirementOf({ gateway, routes, retiring }: UsedGateway): StatusInput['referenced'][number] {
  const { everything, release } = gateway.wording;
  const say = (why: string) => ({
    ...({ status: 'False', reason: 'Retiring' } as const),
    message: `The spec no longer has fields for ${gateway.title}. ${why}`,
  });
  if (!routes.complete || !retiring.synced) {
    return say(
      `What was made for it stays until the agent can list all ${everything}; the Events and the log name what is missing.`,
    );
  }
  const users = routes.users().map(({ route }) => route);
  if (users.length === 0) return say('What was made for it is being deleted.');
  return say(`${listed(users)} would lose mTLS, so what was made for it stays; remove those references (${release}).`);
}

/** More names do not help the reader of a message. */
const LISTED = 3;

/** The first of these names, and how many more there are. */
export function listed(names: readonly string[]): string {
  const more = names.length > LISTED ? ` and ${names.length - LISTED} more` : '';
  return names.slice(0, LISTED).join(', ') + more;
}
