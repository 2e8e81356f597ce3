import type { KubeObject } from '../../../core/object.ts';
import { fields, text } from '../../../mesh/kube-object.ts';

/** On a ConfigMap: makes its text different, though the roots are the same. */
export const REVISION_ANNOTATION = 'meshcert.dev/revision';

/** Revisions are counted in lines at the end of the text, and start again after this many. */
const REVISIONS = 8;

/** The roots as this revision writes them. */
export const revised = (pem: string, revision: number): string => pem + '\n'.repeat(revision % REVISIONS);

/** The revision that the text of a ConfigMap has. */
export function revisionOf({ data }: KubeObject): number {
  const pem = text(fields(data)['ca.crt']) ?? '';
  // The first one belongs to the last certificate.
  return Math.max(0, pem.length - pem.trimEnd().length - 1);
}

/** The revision that was asked for, by the annotation; 0 without one. */
export function revisionWanted({ metadata }: KubeObject): number {
  const wanted = Number(metadata.annotations?.[REVISION_ANNOTATION]);
  return Number.isInteger(wanted) && wanted > 0 ? wanted % REVISIONS : 0;
}
