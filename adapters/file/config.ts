import { z } from 'zod';
import { cel } from '../../src/mesh/schema.ts';
import { parseSpiffeId } from '../../src/pki/names.ts';

const absolutePath = () => z.string().startsWith('/', 'must be an absolute path').max(4096);
const dnsName = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;

const FORM =
  'set directory; or certificate, key and bundle; or credentialBundle and bundle; layout goes with directory alone';

/** `spec.file` of a MeshCertificate. */
export const fileConfig = z
  .strictObject({
    directory: absolutePath().optional().describe('Directory that holds certificate, key and bundle.'),
    layout: z
      .enum(['tls', 'istio', 'spiffe-helper'])
      .optional()
      .describe(
        'File names in the directory. tls: tls.crt, tls.key and ca.crt, as csi-driver-spiffe, cert-manager and mounted Secrets have them. istio: cert-chain.pem, key.pem and root-cert.pem, as OUTPUT_CERTS of a sidecar writes them. spiffe-helper: svid.pem, svid_key.pem and svid_bundle.pem. Default: tls.',
      ),
    certificate: absolutePath().optional().describe('PEM file with the leaf, then its intermediates.'),
    key: absolutePath().optional().describe('PEM file with the private key.'),
    credentialBundle: absolutePath()
      .optional()
      .describe('Instead of certificate and key: one PEM file with both, as a projected PodCertificate has them.'),
    bundle: absolutePath().optional().describe('PEM file with the trust roots.'),
    id: z
      .string()
      .max(2048)
      .refine(
        (id) => parseSpiffeId(id) !== undefined || dnsName.test(id),
        'expected a SPIFFE ID, spiffe://<trust domain>/<path>, or a DNS name',
      )
      .optional()
      .describe('Exact SPIFFE ID or DNS name. Default: the SPIFFE ID that the files hold at first.'),
    trustDomain: z
      .string()
      .max(253)
      .regex(dnsName, 'must be a DNS name in lower case')
      .optional()
      .describe('Trust domain of the SPIFFE ID. Default: any.'),
  })
  .refine(
    ({ directory, layout, certificate, key, credentialBundle, bundle }) => {
      if (directory !== undefined)
        return [certificate, key, credentialBundle, bundle].every((one) => one === undefined);
      const pair = certificate !== undefined && key !== undefined && credentialBundle === undefined;
      const whole = credentialBundle !== undefined && certificate === undefined && key === undefined;
      return layout === undefined && bundle !== undefined && (pair || whole);
    },
    { error: FORM },
  )
  .meta(
    cel(
      'has(self.directory) ? !has(self.certificate) && !has(self.key) && !has(self.credentialBundle) && !has(self.bundle) : !has(self.layout) && has(self.bundle) && has(self.certificate) == has(self.key) && has(self.certificate) != has(self.credentialBundle)',
      FORM,
    ),
  )
  .describe('Identity from files that another program writes.');

export type FileConfig = z.output<typeof fileConfig>;
