import type { Kube, Resource } from './api.ts';
import { RESOURCES } from './resources.ts';

export interface AccessQuestion {
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
  readonly subresource?: string | undefined;
}

/** Whether the connection's own user may do this, as the API server's authorizer says (SelfSubjectAccessReview). */
export async function canI(
  kube: Kube,
  verb: string,
  resource: Resource,
  about: AccessQuestion = {},
  signal?: AbortSignal,
): Promise<boolean> {
  const [version = '', group = ''] = resource.apiVersion.split('/').reverse();
  const { apiVersion, kind } = RESOURCES.selfSubjectAccessReviews;
  const resourceAttributes = { verb, group, version, resource: resource.plural, ...about };
  const review = { apiVersion, kind, metadata: { name: '' }, spec: { resourceAttributes } };
  const answer = await kube.post(RESOURCES.selfSubjectAccessReviews, review, signal);
  return (answer.status as { allowed?: boolean } | undefined)?.allowed === true;
}
