import { z } from 'zod';
import { hostPort } from '../../src/mesh/schema/address.ts';
import { LONGEST, MOST } from '../../src/mesh/schema/bounds.ts';
import { cel } from '../../src/mesh/schema/cel.ts';

const LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

const label = () =>
  z.string().max(LONGEST.label).regex(LABEL, 'must be a DNS label: a-z, 0-9 and "-", at most 63 characters');
const domain = () =>
  z
    .string()
    .max(253)
    .regex(
      /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/,
      'must be a DNS name without a trailing dot',
    );
const accountName = () =>
  z
    .string()
    .max(LONGEST.label)
    .regex(
      LABEL,
      'must be a DNS label: Linkerd gives no identity to a ServiceAccount with a dot in its name; use another account',
    )
    .describe('Name of the ServiceAccount.');

const serviceAccount = z
  .strictObject({
    name: accountName(),
    namespace: label()
      .optional()
      .describe(
        "Default: this object's namespace. An account of another namespace must allow this one by the annotation meshcert.dev/allow-from.",
      ),
  })
  .describe(
    "ServiceAccount whose identity the gateway gets, usually the gateway's own. The agent mints a token for it.",
  );

const target = z.strictObject({
  serviceAccount: accountName(),
  namespace: label().describe('Namespace of the ServiceAccount.'),
  name: label()
    .optional()
    .describe("Short name, which stands for account and namespace in the name of the gateway's object."),
  contextName: label().optional().describe("Exact name of the gateway's object, instead of a generated one."),
});

/** `spec.linkerd` of a MeshCertificate. */
export const linkerdConfig = z
  .strictObject({
    serviceAccount: serviceAccount.optional(),
    tokenFile: z
      .string()
      .max(LONGEST.path)
      .startsWith('/')
      .optional()
      .describe(
        "Instead of serviceAccount: file of a projected token of audience identity.l5d.io, for the agent's own identity. It is read at each use.",
      ),
    controlPlaneNamespace: label().default('linkerd').describe('Namespace of the Linkerd control plane.'),
    address: hostPort('linkerd-identity-headless.linkerd.svc.cluster.local:8080')
      .optional()
      .describe(
        'host:port of the identity service. Default: linkerd-identity-headless.<control plane>.svc.<cluster domain>:8080.',
      ),
    trustDomain: domain().optional().describe("Default: the value in Linkerd's ConfigMap linkerd-config."),
    clusterDomain: domain().optional().describe("Default: the value in Linkerd's ConfigMap linkerd-config."),
    trustRoots: z
      .strictObject({
        configMap: z.string().min(1).max(253).default('linkerd-identity-trust-roots'),
        key: z.string().min(1).max(253).default('ca-bundle.crt'),
      })
      .prefault({})
      .describe('The ConfigMap that holds the trust roots, in the namespace of the control plane.'),
    targets: z
      .array(target)
      .min(1)
      .max(MOST.targets)
      .optional()
      .describe(
        'The workloads that the gateway calls. Each gets an object of the gateway, because Linkerd distinguishes them by SNI.',
      ),
    discover: z
      .boolean()
      .optional()
      .describe('Whether targets are also found from the selected routes. Default: true without targets, else false.'),
  })
  .refine((config) => (config.serviceAccount === undefined) !== (config.tokenFile === undefined), {
    error: 'exactly one of serviceAccount and tokenFile must be set',
  })
  .meta(
    cel('has(self.serviceAccount) != has(self.tokenFile)', 'exactly one of serviceAccount and tokenFile must be set'),
  )
  .describe('Identity from Linkerd.');

export type LinkerdConfig = z.output<typeof linkerdConfig>;
