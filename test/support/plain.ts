import type { Certificate } from '../../src/pki/certificate.ts';
import { extensionsIn } from '../../src/pki/extensions.ts';
import { readFields } from '../../src/pki/fields.ts';
import { plainLeafIn } from '../../src/pki/plain-leaf.ts';

/** Whether it is read without OpenSSL. */
export function isPlainLeaf({ der }: Pick<Certificate, 'der'>): boolean {
  const fields = readFields(der);
  return plainLeafIn(fields, extensionsIn(fields.extensions)) !== undefined;
}
