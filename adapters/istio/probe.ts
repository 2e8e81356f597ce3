import type { Check } from '../../src/mesh/adapter.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';

type Look = () => Promise<string>;

async function check(code: string, look: Look, signal: AbortSignal): Promise<Check> {
  try {
    return { code, ok: true, message: await look() };
  } catch (error) {
    signal.throwIfAborted();
    return { code, ok: false, message: error instanceof Error ? error.message : String(error) };
  }
}

const describe = (identity: Identity): string => {
  const { notAfter, issuer } = leafOf(identity);
  const until = new Date(notAfter).toISOString();
  return `${identity.id} until ${until}, issued by "${issuer}", under ${identity.roots.length} root(s)`;
};

/** Roots, token, then a real certificate, which is thrown away. */
export async function probeCa(looks: {
  readonly roots: Look;
  readonly token: Look;
  readonly issue: () => Promise<Identity>;
  readonly signal: AbortSignal;
}): Promise<readonly Check[]> {
  const { signal } = looks;
  return [
    await check('ISTIO_ROOT', looks.roots, signal),
    await check('ISTIO_TOKEN', looks.token, signal),
    await check('ISTIO_CA', async () => describe(await looks.issue()), signal),
  ];
}

/** One subscription, until it brought an identity. */
export async function probeSds(first: () => Promise<Identity>, signal: AbortSignal): Promise<readonly Check[]> {
  return [await check('ISTIO_SDS', async () => describe(await first()), signal)];
}
