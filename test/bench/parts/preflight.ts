import { SandboxCa } from '../../../sandbox/tls/ca.ts';
import { PrivateKey } from '../../../src/pki/key.ts';
import { opensslPreflight } from '../../../src/preflight/preflight.ts';
import { servePart } from './part.ts';

const HOUR_MS = 3_600_000;

const methods = {
  /** CPU milliseconds for each of `count` handshakes with one bundle, after as many to warm up. */
  async prove({ count }: { count: number }) {
    const now = Date.now();
    const period = { notBefore: now - HOUR_MS, notAfter: now + HOUR_MS };
    const root = SandboxCa.root({ name: 'root', ...period });
    const key = PrivateKey.generate();
    const pair = { key, chain: [root.issue(key, { uris: ['spiffe://td/ns/emissary/sa/gateway'], ...period })] };
    const preflight = opensslPreflight();
    const all = async () => {
      const verdicts = await Promise.all(Array.from({ length: count }, () => preflight(pair, [root.certificate])));
      if (!verdicts.every(({ ok }) => ok)) throw new Error('a good pair was refused');
    };
    await all();
    const before = process.cpuUsage();
    await all();
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1000 / count;
  },
};

export type PreflightPart = typeof methods;
servePart(methods);
