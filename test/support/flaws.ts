import { type CaOptions, type SandboxCa, SERVER_AUTH } from '../../sandbox/tls/ca.ts';

import { extension, nameConstraints } from '../../sandbox/tls/x509.ts';
import type { VerifyCode } from '../../src/core/verify.ts';
import { context, oid, seq, utf8 } from '../../src/pki/der.ts';

/** A chain that upstreams or the gateway refuse although each of its signatures is valid. */
export interface Flaw {
  readonly title: string;
  readonly code: VerifyCode;
  /** OpenSSL and Go accept it: a gateway that loads it freezes. */
  readonly onlyEnvoy?: true;
  /** The signing CA that makes it, below a root; it gives its CAs the same clock and period. */
  readonly signer: (root: SandboxCa, options?: CaOptions) => SandboxCa;
}

/** Unassigned: no implementation knows it. */
const UNKNOWN_OID = '1.3.6.1.4.1.55555.1';

/** The flaws that must not be published, from an issuing CA with names of URIs and DNS names below `domain`. */
export function flaws(domain: string): readonly Flaw[] {
  const host = Buffer.from(domain, 'latin1');
  const excluded = nameConstraints({ excluded: [context(6, host), context(2, host)] });
  return [
    {
      title: 'an intermediate without CA:TRUE',
      code: 'ERR_VERIFY_ISSUER_NOT_CA',
      signer: (root, options) => root.intermediate({ ...options, profile: { ca: false } }),
    },
    {
      title: 'an intermediate with an unknown critical extension',
      code: 'ERR_VERIFY_CRITICAL_EXTENSION',
      signer: (root, options) =>
        root.intermediate({
          ...options,
          profile: { more: [extension(UNKNOWN_OID, seq(oid(UNKNOWN_OID), utf8('must be understood')), true)] },
        }),
    },
    {
      title: 'an intermediate for servers only',
      code: 'ERR_VERIFY_ISSUER_EKU',
      signer: (root, options) => root.intermediate({ ...options, profile: { eku: [SERVER_AUTH] } }),
    },
    {
      title: 'an intermediate that excludes the trust domain',
      code: 'ERR_VERIFY_NAME_CONSTRAINTS',
      signer: (root, options) => root.intermediate({ ...options, profile: { more: [excluded] } }),
    },
    {
      title: 'an intermediate below a CA of path length 0',
      code: 'ERR_VERIFY_PATH_LENGTH',
      signer: (root, options) =>
        root
          .intermediate({ ...options, name: 'Last CA', profile: { pathLength: 0 } })
          .intermediate({ ...options, name: 'One CA more', profile: {} }),
    },
    {
      title: 'a leaf with keyUsage keyEncipherment only',
      code: 'ERR_VERIFY_KEY_USAGE',
      signer: (root, options) => root.intermediate({ ...options, leaves: { keyUsage: ['keyEncipherment'] } }),
    },
    {
      title: 'a leaf of version 2',
      code: 'ERR_VERIFY_VERSION',
      onlyEnvoy: true,
      signer: (root, options) => root.intermediate({ ...options, leaves: { version: 2 } }),
    },
  ];
}
