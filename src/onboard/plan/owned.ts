import { type KubeObject, OWNER_LABEL } from '../../core/object.ts';
import { ownerLabel } from '../../gateway/owner.ts';
import type { OnboardableGateway } from '../discover/gateway.ts';

/** Namespace and name of a MeshCertificate, which may be gone. */
export interface CertificatePlace {
  readonly namespace: string;
  readonly name: string;
}

/** The gateway's own objects of one MeshCertificate. */
export const ownedBy = (
  objects: readonly KubeObject[],
  { onboarding }: OnboardableGateway,
  place: CertificatePlace,
): KubeObject[] =>
  objects.filter(
    ({ apiVersion, kind, metadata }) =>
      metadata.labels?.[OWNER_LABEL] === ownerLabel(place) &&
      onboarding
        .own(place)
        .some(
          ({ resource, namespace }) =>
            resource.apiVersion === apiVersion &&
            resource.kind === kind &&
            (namespace === undefined || namespace === metadata.namespace),
        ),
  );

export const isRoute = ({ apiVersion, kind }: KubeObject, { onboarding }: OnboardableGateway): boolean =>
  onboarding.routes.some((one) => one.apiVersion === apiVersion && one.kind === kind);
