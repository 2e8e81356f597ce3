import { type KubeObject, OWNER_LABEL } from '../../core/object.ts';
import { ownerLabel } from '../../gateway/owner.ts';
import type { OnboardableGateway } from '../discover/gateway.ts';
import { MESH_LABEL, ONBOARD_LABEL } from './document.ts';

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

/** What `onboard` created for one MeshCertificate beside it, so that routes lead there. */
export const standInsOf = (
  objects: readonly KubeObject[],
  { onboarding }: OnboardableGateway,
  { namespace, name }: CertificatePlace,
): KubeObject[] =>
  objects.filter(
    ({ apiVersion, kind, metadata }) =>
      metadata.namespace === namespace &&
      metadata.labels?.[ONBOARD_LABEL] !== undefined &&
      metadata.labels[MESH_LABEL] === name &&
      onboarding.standIns?.resources.some((one) => one.apiVersion === apiVersion && one.kind === kind),
  );

export const isRoute = ({ apiVersion, kind }: KubeObject, { onboarding }: OnboardableGateway): boolean =>
  onboarding.routes.some((one) => one.apiVersion === apiVersion && one.kind === kind);
