import type { Share } from '../../src/async/sharing.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Examiner } from '../../src/mesh/examiner.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { certify, type IdentityService } from './certify.ts';
import type { ControlPlane } from './control-plane.ts';
import { identityOf, type ServiceAccountName } from './name.ts';

interface Questions {
  readonly now: number;
  plane(signal: AbortSignal): Promise<ControlPlane>;
  roots(signal: AbortSignal): Promise<readonly Certificate[]>;
  token(plane: ControlPlane, signal: AbortSignal): Promise<{ readonly account: ServiceAccountName }>;
  service(plane: ControlPlane, roots: readonly Certificate[]): IdentityService;
  issue(signal: AbortSignal): Promise<Identity>;
}

/** `linkerd check` warns this early about trust anchors. */
const EXPIRY_WARNING_MS = 60 * 86_400_000;

/**
 * Configuration, roots, token, connection, then a certificate, for which Linkerd leaves an Event on the ServiceAccount.
 */
export async function examine(examiner: Examiner, ask: Questions, share: Share): Promise<void> {
  const plane = await examiner.look('linkerd-config', ask.plane, ({ namespace, trustDomain }) => {
    return `control plane in ${namespace}, trust domain ${trustDomain}`;
  });
  const roots = await examiner.look(
    'linkerd-roots',
    ask.roots,
    (found) => `${found.length} trust root${found.length === 1 ? '' : 's'}`,
  );
  for (const root of roots ?? []) {
    if (root.notAfter - ask.now > EXPIRY_WARNING_MS) continue;
    const end = new Date(root.notAfter).toISOString();
    const title = root.subject || root.fingerprint;
    examiner.fail(
      'linkerd-root-expiry',
      `the trust root ${title} ends at ${end}; rotate it, which takes a restart of every meshed pod`,
    );
  }
  if (!plane) return;
  const token = await examiner.look(
    'linkerd-token',
    (signal) => ask.token(plane, signal),
    ({ account }) => `identity will be ${identityOf(account, plane)}`,
  );
  if (!roots) return;
  const service = ask.service(plane, roots);
  const connected = await examiner.look(
    'linkerd-connection',
    (signal) => greet(service, { now: () => ask.now, share }, signal),
    () => `${service.serverName} answers at ${service.address}`,
  );
  if (!examiner.issue) examiner.skip('linkerd-issue', 'no certificate was requested (--no-issue)');
  else if (connected && token) {
    await examiner.look('linkerd-issue', ask.issue, (identity) => {
      return `issued ${identity.id} until ${new Date(leafOf(identity).notAfter).toISOString()}; it was discarded`;
    });
  }
}

/** An empty request is refused before any other check: the refusal proves the connection. */
async function greet(
  service: IdentityService,
  asking: { readonly now: () => number; readonly share: Share },
  signal: AbortSignal,
): Promise<true> {
  try {
    await certify(service, { identity: '', token: '', csr: Buffer.alloc(0) }, asking, signal);
  } catch (error) {
    if (!(error instanceof MeshError && error.code === 'ERR_MESH_TOKEN')) throw error;
  }
  return true;
}
