import type { Check } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Share } from '../../src/mesh/sharing.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { certify, type IdentityService } from './certify.ts';
import type { ControlPlane } from './control-plane.ts';
import { type Account, identityOf } from './name.ts';

interface Questions {
  readonly now: number;
  plane(): Promise<ControlPlane>;
  roots(): Promise<readonly Certificate[]>;
  token(plane: ControlPlane): Promise<{ readonly account: Account }>;
  service(plane: ControlPlane, roots: readonly Certificate[]): IdentityService;
}

/** `linkerd check` warns as early about trust anchors. */
const EXPIRY_WARNING_MS = 60 * 86_400_000;

/**
 * What can be known without being issued a certificate, which would leave an event on the ServiceAccount: each
 * finding with the code that a failed issue would have, in the order in which things are needed.
 */
export async function probe(ask: Questions, share: Share, signal: AbortSignal): Promise<readonly Check[]> {
  const checks: Check[] = [];
  const look = async <T>(
    title: string,
    question: () => Promise<T>,
    tell: (answer: T) => string,
  ): Promise<T | undefined> => {
    try {
      const answer = await question();
      checks.push({ code: title, ok: true, message: tell(answer) });
      return answer;
    } catch (error) {
      if (signal.aborted) throw error;
      checks.push({ code: title, ok: false, message: error instanceof Error ? error.message : String(error) });
      return undefined;
    }
  };

  const plane = await look('linkerd-config', ask.plane, ({ namespace, trustDomain }) => {
    return `control plane in ${namespace}, trust domain ${trustDomain}`;
  });
  const roots = await look(
    'linkerd-roots',
    ask.roots,
    (found) => `${found.length} trust root${found.length === 1 ? '' : 's'}`,
  );
  for (const root of roots ?? []) {
    if (root.notAfter - ask.now > EXPIRY_WARNING_MS) continue;
    const end = new Date(root.notAfter).toISOString();
    const message = `the trust root ${root.subject || root.fingerprint} ends at ${end}; rotate it, which takes a restart of every meshed pod`;
    checks.push({ code: 'linkerd-root-expiry', ok: false, message });
  }
  if (!plane) return checks;
  await look(
    'linkerd-token',
    () => ask.token(plane),
    ({ account }) => `identity will be ${identityOf(account, plane)}`,
  );
  if (roots) {
    const service = ask.service(plane, roots);
    await look(
      'linkerd-identity',
      () => greet(service, { now: () => ask.now, share }, signal),
      () => `${service.serverName} answers at ${service.address}`,
    );
  }
  return checks;
}

/** An empty request is refused before anything else is looked at: the refusal proves the way. */
async function greet(
  service: IdentityService,
  asking: { readonly now: () => number; readonly share: Share },
  signal: AbortSignal,
): Promise<void> {
  try {
    await certify(service, { identity: '', token: '', csr: Buffer.alloc(0) }, asking, signal);
  } catch (error) {
    if (!(error instanceof MeshError && error.code === 'ERR_MESH_TOKEN')) throw error;
  }
}
