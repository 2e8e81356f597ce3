import { createHash } from 'node:crypto';
import { MANAGED_BY_LABEL, type ObjectMeta, OWNER_LABEL } from '../core/object.ts';

/** The longest value that Kubernetes accepts in a label. */
const LONGEST = 63;

/** `<namespace>.<name>`; a long one is cut and ends in a digest of the whole, so that two never look alike. */
export function ownerLabel({ namespace = '', name }: Pick<ObjectMeta, 'name' | 'namespace'>): string {
  const whole = `${namespace}.${name}`;
  if (whole.length <= LONGEST) return whole;
  const digest = createHash('sha256').update(whole).digest('hex').slice(0, 12);
  return `${whole.slice(0, LONGEST - digest.length - 1).replace(/(?<![^A-Za-z0-9])[^A-Za-z0-9]+$/, '')}-${digest}`;
}

/** Labels of each object that we write. The two that name its owner override the user's. */
export function ownLabels(
  owner: Pick<ObjectMeta, 'name' | 'namespace'>,
  extra: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  return { ...extra, [MANAGED_BY_LABEL]: 'meshcert', [OWNER_LABEL]: ownerLabel(owner) };
}
