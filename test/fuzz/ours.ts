import { verify } from '../../src/core/verify.ts';
import { parseCertificates } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import type { Case } from './cases.ts';

/** What the product says of a pair and a bundle, as it would before it publishes them. */
export interface Opinion {
  readonly ok: boolean;
  /** Of the error or of the check that failed. */
  readonly code?: string;
  readonly message?: string;
}

export function opinionOn({ chain, roots, key, form }: Case, now: number): Opinion {
  try {
    const pair = { key: PrivateKey.fromPem(key), chain: parseCertificates(chain) };
    const verdict = verify(pair, parseCertificates(roots), { form }, now);
    return verdict.ok ? { ok: true } : { ok: false, code: verdict.code, message: verdict.message };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    // An error without a code of ours is a defect, and no verdict.
    if (!code?.startsWith('ERR_')) throw error;
    return { ok: false, code, message };
  }
}
