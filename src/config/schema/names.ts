import { z } from 'zod';
import { MANAGED_BY_LABEL, OWNER_LABEL } from '../../core/object.ts';
import { atMost, MOST } from '../../mesh/schema/bounds.ts';
import { cel } from '../../mesh/schema/cel.ts';

const LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const LABEL_VALUE = /^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$/;
const LABEL_KEY = /^([a-z0-9]([-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/;

/** The longest value that Kubernetes accepts in a label. */
export const LONGEST_LABEL = 63;

/** Dots are refused: a gateway may read what follows the last one as a namespace. */
export const undottedName = () =>
  z.string().max(253).regex(LABEL, 'must be lower-case letters, digits and dashes, and without dots');

export const objectName = () =>
  z.string().max(253).regex(SUBDOMAIN, 'must be lower-case letters, digits, dashes and dots');

export const namespaceName = () =>
  z.string().max(LONGEST_LABEL).regex(LABEL, 'must be lower-case letters, digits and dashes');

export const labels = () =>
  atMost(
    MOST.labels,
    z.record(
      z.string().max(317).regex(LABEL_KEY, 'is not a valid label key'),
      z.string().max(LONGEST_LABEL).regex(LABEL_VALUE, 'is not a valid label value'),
    ),
  );

/** Labels that a user may add, except the two that name the owner of an object. */
export const extraLabels = () =>
  labels()
    .refine((given) => !(OWNER_LABEL in given) && !(MANAGED_BY_LABEL in given), { error: OURS })
    .meta(cel(`!('${OWNER_LABEL}' in self) && !('${MANAGED_BY_LABEL}' in self)`, OURS));

const OURS = `${OWNER_LABEL} and ${MANAGED_BY_LABEL} are set by meshcert`;
