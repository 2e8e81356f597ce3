import { z } from 'zod';
import { MeshError } from '../../src/mesh/error.ts';
import { readClaims } from '../../src/mesh/input.ts';
import { cel, hostPort, LONGEST, MOST } from '../../src/mesh/schema.ts';

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

export interface ServiceAccountName {
  readonly name: string;
  readonly namespace: string;
}

interface Domain {
  readonly namespace: string;
  readonly trustDomain: string;
}

/** The audience that Linkerd's identity service requires in a token review. */
export const AUDIENCE = 'identity.l5d.io';

/** A name with several labels would be read as another account's. */
export const isLabel = (name: string): boolean => /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(name);

/** The DNS name that Linkerd gives to a ServiceAccount. */
export const identityOf = (account: ServiceAccountName, { namespace, trustDomain }: Domain): string =>
  `${account.name}.${account.namespace}.serviceaccount.identity.${namespace}.${trustDomain}`;

/** The name of the identity service's own proxy. */
export const identityServiceName = (domain: Domain): string =>
  identityOf({ name: 'linkerd-identity', namespace: domain.namespace }, domain);

export function requireLabels(account: ServiceAccountName): ServiceAccountName {
  if (isLabel(account.name) && isLabel(account.namespace)) return account;
  throw new MeshError(
    'ERR_MESH_CONFIG',
    `Linkerd gives no identity to ServiceAccount ${account.namespace}/${account.name}, since its name is not a single DNS label; use an account without dots in its name`,
    { retry: 'never' },
  );
}

/** The account in a service-account token's own claim: used to choose the name to request, not as a proof. */
export function accountOf(token: string, source: string): ServiceAccountName {
  const account = readClaims(token)?.account;
  if (account) return account;
  throw new MeshError(
    'ERR_MESH_TOKEN',
    `${source} holds no token of a Kubernetes ServiceAccount; mount a projected token of audience identity.l5d.io there`,
  );
}
