import { describe } from 'node:test';
import { judgeTraps } from '../doctor/traps.ts';
import { startEnvoyJudge } from './parts/envoy-judge.ts';
import { startEnvoySidecar } from './parts/envoy-sidecar.ts';

describe('each trap of docs/checks.md on a real Envoy', () => {
  judgeTraps({
    name: 'Envoy',
    judge: startEnvoyJudge,
    sidecar: startEnvoySidecar,
    refusals: {
      MC1004: /require_client_certificate/,
      MC1011: /CertificateValidationContextValidationError\.Crl/,
      MC1103: /TlsCertificateValidationError\.CertificateChain/,
      MC1104: /CertificateValidationContextValidationError\.TrustedCa/,
      MC1201: /Failed to load certificate chain/,
      MC1202: /Failed to load private key/,
      MC1203: /only RSA certificates with 2048-bit or larger keys/,
    },
  });
});
