import { fields, type KubeObject, text } from '../../../mesh/kube-object.ts';
import type { TargetRefusal } from '../../../mesh/targeting.ts';
import { workloadSpec } from '../../../mesh/workload.ts';
import type { ClusterLists, GatewayInstallation } from '../../onboarding.ts';
import { controllerOf, isGateway } from '../routes/client.ts';
import { ENVOY_GATEWAY } from '../spec/resources.ts';

/** On the Deployment that Envoy Gateway makes for a Gateway. */
const OWNING = 'gateway.envoyproxy.io/owning-gateway-';

/** One for each Gateway: its routes join on their own. */
export const installationsOf = ({ workloads, gatewayObjects }: ClusterLists): GatewayInstallation[] =>
  gatewayObjects.filter(isGateway).map((object) => {
    const { name, namespace = '' } = object.metadata;
    const problem = classProblem(object, gatewayObjects) ?? backendsProblem(object, gatewayObjects);
    const workload = workloads.find(
      ({ metadata: { labels } }) => labels?.[`${OWNING}name`] === name && labels[`${OWNING}namespace`] === namespace,
    );
    // Unless Envoy Gateway runs its proxies beside the Gateway, a token is minted for an account of that name.
    const account = workload?.metadata.namespace === namespace ? workloadSpec(workload).template?.spec : undefined;
    return {
      object,
      workload,
      problem,
      home: namespace,
      serviceAccount: account?.serviceAccountName ?? name,
      product: problem ? 'another implementation' : 'Envoy Gateway',
      version: undefined,
      gapMs: 0,
    };
  });

/** The configuration of Envoy Gateway, by the name that its chart gives it. */
export const CONFIGURATION = 'envoy-gateway-config';

/** Why Envoy Gateway would refuse Backends, as far as its configuration is found. */
function backendsProblem(gateway: KubeObject, objects: readonly KubeObject[]): TargetRefusal | undefined {
  const found = objects.filter(({ kind, metadata }) => kind === 'ConfigMap' && metadata.name === CONFIGURATION);
  const [first] = found;
  const texts = found.map(({ data }) => text(fields(data)['envoy-gateway.yaml']) ?? '');
  if (!first || texts.some((one) => /^[ \t]*enableBackend:[ \t]*true[ \t\r]*$/m.test(one))) return undefined;
  const { name, namespace } = gateway.metadata;
  const message = `Gateway ${namespace}/${name} cannot lead to Backends, because Envoy Gateway does not read them; set extensionApis.enableBackend: true in ConfigMap ${first.metadata.namespace}/${CONFIGURATION}, restart Envoy Gateway, and run this again`;
  return { code: 'ERR_GATEWAY_CRD_MISSING', message };
}

/** Why a Gateway cannot lead to Backends, which only Envoy Gateway knows. */
export function classProblem(gateway: KubeObject, objects: readonly KubeObject[]): TargetRefusal | undefined {
  const controller = controllerOf(gateway, { behind: (kind) => objects.filter((object) => object.kind === kind) });
  if (controller?.startsWith(ENVOY_GATEWAY)) return undefined;
  const { name, namespace } = gateway.metadata;
  const named = text(fields(gateway.spec).gatewayClassName) ?? 'none';
  const run = controller === undefined ? 'does not exist' : `is run by ${controller}`;
  const message = `Gateway ${namespace}/${name} has the GatewayClass ${named}, which ${run}, and onboard supports Envoy Gateway only; write the MeshCertificate by hand (docs/gateway-api.md, "Which implementations")`;
  return { code: 'ERR_TARGET_CLASS', message };
}
