import { verify } from '../../src/core/verify/verify.ts';
import { parseCertificates } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import type { Case } from './cases.ts';

/** What the product says of a pair and a bundle, as it would before it publishes them. */
export interface Opinion {
  readonly ok: boolean;
  /** What the checks say alone, without the preflight handshake. */
  readonly checked: boolean;
  /** Of the error or of the check that failed. */
  readonly code?: string;
  readonly message?: string;
}

export async function opinionOn({ chain, roots, key, form }: Case, now: number): Promise<Opinion> {
  try {
    const pair = { key: PrivateKey.fromPem(key), chain: parseCertificates(chain) };
    const bundle = parseCertificates(roots);
    const verdict = verify(pair, bundle, { form }, now);
    if (!verdict.ok) return { ok: false, checked: false, code: verdict.code, message: verdict.message };
    return { ok: true, checked: true };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    // An error without a code of ours is a defect, and no verdict.
    if (!code?.startsWith('ERR_')) throw error;
    return { ok: false, checked: false, code, message };
  }
}
