import { verify } from '../../src/core/verify.ts';
import { parseCertificates } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { opensslPreflight } from '../../src/preflight/preflight.ts';
import type { Case } from './cases.ts';

/** The product's verdict on a pair and a bundle before it publishes them: the checks, then the preflight. */
export interface Opinion {
  readonly ok: boolean;
  /** The verdict of the checks alone, without the preflight handshake. */
  readonly checked: boolean;
  /** Code of the error, or of the check or the handshake that refuses. */
  readonly code?: string;
  readonly message?: string;
}

const preflight = opensslPreflight();

export async function opinionOn({ chain, roots, key, form }: Case, now: number): Promise<Opinion> {
  try {
    const pair = { key: PrivateKey.fromPem(key), chain: parseCertificates(chain) };
    const bundle = parseCertificates(roots);
    const checks = verify(pair, bundle, { form }, now);
    const verdict = checks.ok ? await preflight(pair, bundle) : checks;
    if (verdict.ok) return { ok: true, checked: true };
    return { ok: false, checked: checks.ok, code: verdict.code, message: verdict.message };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    // An error without one of our codes is a bug, not a verdict.
    if (!code?.startsWith('ERR_')) throw error;
    return { ok: false, checked: false, code, message };
  }
}
