import { describe, type KubeObject, refOf } from '../../core/object.ts';
import type { Kube } from '../../kube/api.ts';
import { KubeError } from '../../kube/transport/error.ts';
import type { Log } from '../../mesh/log.ts';

/** On a TLSContext: a value that changes is all there is to it. */
const NUDGE_ANNOTATION = 'meshcert.dev/nudge';
/** Not ours of old: what this one writes must not look like a publication to be taken back. */
const NUDGE_FIELD_MANAGER = 'meshcert-nudge';

/**
 * Makes the gateway read everything anew: a changed TLSContext alone in a batch is a complete reconfigure, which mends
 * the clusters that a batch of a Secret and a Mapping left on the old certificate.
 */
export async function nudge(
  context: KubeObject,
  value: string,
  { kube, log, signal }: { readonly kube: Kube; readonly log: Log; readonly signal: AbortSignal },
): Promise<void> {
  const patch = { metadata: { annotations: { [NUDGE_ANNOTATION]: value } } };
  try {
    await kube.merge(refOf(context), patch, { fieldManager: NUDGE_FIELD_MANAGER }, signal);
    log.warn({ object: describe(refOf(context)), value }, 'nudged the gateway, which used an old certificate');
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    const { code, message } = error;
    log.warn({ object: describe(refOf(context)), code }, `could not nudge the gateway: ${message}`);
  }
}
