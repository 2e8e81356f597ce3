import type { KubeObject } from '../core/object.ts';
import { fields, text } from '../mesh/kube-object.ts';

/** The texts of a Secret by their key. Values that are not base64 of UTF-8, and empty ones, count as absent. */
export function decodeData(secret: KubeObject): Readonly<Record<string, string | undefined>> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const decoded: Record<string, string> = {};
  for (const [key, value] of Object.entries(fields(secret.data))) {
    try {
      const plain = decoder.decode(Buffer.from(String(value), 'base64'));
      if (plain !== '') decoded[key] = plain;
    } catch {}
  }
  for (const [key, value] of Object.entries(fields(secret.stringData))) if (text(value)) decoded[key] = String(value);
  return decoded;
}
