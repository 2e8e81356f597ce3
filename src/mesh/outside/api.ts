/**
 * The package export `meshcert/adapter`: what an adapter outside of this repository is written with. Whatever is not
 * here may change without notice.
 */
export type { Clock } from '../../async/clock.ts';
export type { Share } from '../../async/sharing.ts';
export { Trigger } from '../../async/trigger.ts';
export { Certificate, formatCertificates, parseCertificates } from '../../pki/certificate.ts';
export { type CsrNames, createCsr } from '../../pki/csr.ts';
export { formatPem, PkiError } from '../../pki/der.ts';
export { PrivateKey } from '../../pki/key.ts';
export { formatSpiffeId, parseSpiffeId, type SpiffeId } from '../../pki/names.ts';
export type {
  AdapterCore as Adapter,
  Checking,
  ConfigMapRef,
  Destination,
  Expectation,
  Host,
  Issuer,
  Need,
  Schema,
  Source,
  TlsDefaults,
  TokenField,
  TokenRequest,
} from '../adapter.ts';
export { MESH_ERROR_CODES, MeshError, type MeshErrorCode, type Retry } from '../error.ts';
export type { ExaminedCheck, Examiner } from '../examiner.ts';
export { type Identity, leafOf } from '../identity.ts';
export type { Log } from '../log.ts';
export { type AdapterModule, CONTRACT_VERSION } from './adapter.ts';
