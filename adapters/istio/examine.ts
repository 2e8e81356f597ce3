import type { Examiner } from '../../src/mesh/examiner.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';

type IstioExamination<T> = (signal: AbortSignal) => Promise<T>;

const describe = (identity: Identity): string => {
  const { notAfter, issuer } = leafOf(identity);
  const until = new Date(notAfter).toISOString();
  const roots = `${identity.roots.length} root${identity.roots.length === 1 ? '' : 's'}`;
  return `issued ${identity.id} until ${until}, by "${issuer}", under ${roots}; it was discarded`;
};

/** Roots, connection, token, then a real certificate. */
export async function examineCa(
  examiner: Examiner,
  looks: {
    readonly roots: IstioExamination<string>;
    /** Without a token. */
    readonly connection: IstioExamination<string>;
    readonly token: IstioExamination<string>;
    readonly issue: IstioExamination<Identity>;
  },
): Promise<void> {
  const said = (text: string) => text;
  const roots = await examiner.look('istio-root', looks.roots, said);
  const connected = roots !== undefined && (await examiner.look('istio-connection', looks.connection, said));
  const token = await examiner.look('istio-token', looks.token, said);
  if (!examiner.issue) examiner.skip('istio-issue', 'no certificate was requested (--no-issue)');
  else if (connected && token !== undefined) await examiner.look('istio-issue', looks.issue, describe);
}

/** One subscription, until it yields an identity. */
export async function examineSds(examiner: Examiner, socket: string, first: IstioExamination<Identity>): Promise<void> {
  if (examiner.here) await examiner.look('istio-sds', first, describe);
  else examiner.skip('istio-sds', `the socket ${socket} is in the agent's pod; run meshcert doctor there`);
}
