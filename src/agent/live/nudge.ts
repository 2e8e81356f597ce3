import { describe } from '../../core/object.ts';
import type { Nudge } from '../../gateway/loading.ts';
import type { Kube } from '../../kube/api.ts';
import { KubeError } from '../../kube/transport/error.ts';
import type { Log } from '../../mesh/log.ts';

/** Makes the gateway read everything again. A failure is logged; the next nudge is another attempt. */
export async function nudge(
  { ref, patch, fieldManager }: Nudge,
  { kube, log, signal }: { readonly kube: Kube; readonly log: Log; readonly signal: AbortSignal },
): Promise<void> {
  try {
    await kube.merge(ref, patch, { fieldManager }, signal);
    log.warn({ object: describe(ref) }, 'nudged the gateway, which used an old certificate');
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    const { code, message } = error;
    log.warn({ object: describe(ref), code }, `could not nudge the gateway: ${message}`);
  }
}
