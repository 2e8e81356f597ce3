import type { ListedTarget, TargetRefusal, TargetRules, Workload } from '../../src/mesh/targeting.ts';
import type { LinkerdConfig } from './config.ts';
import { type ControlPlane, hasPort, parsePorts } from './control-plane.ts';
import { identityOf, isLabel } from './name.ts';

/** Where proxies accept each other's connections: another protocol, announced by ALPN and a header. */
const PROXY_PORT = 4143;
/** The proxy's own control and admin ports, which are never redirected to it. */
const PROXY_OWN_PORTS = '4190,4191';
const CONTROL_PLANE_LABEL = 'linkerd.io/control-plane-ns';
const OPAQUE_ANNOTATION = 'config.linkerd.io/opaque-ports';
const SKIP_ANNOTATION = 'config.linkerd.io/skip-inbound-ports';

/** How Linkerd's proxies are named, and on which ports they do not terminate TLS for clients outside the mesh. */
export function targetRules(config: LinkerdConfig, plane: ControlPlane): TargetRules {
  const listed = (config.targets ?? []).map(
    ({ serviceAccount, namespace, name, contextName }): ListedTarget => ({
      id: identityOf({ name: serviceAccount, namespace }, plane),
      serviceAccount,
      namespace,
      name,
      contextName,
    }),
  );
  return {
    listed,
    discover: config.discover ?? listed.length === 0,
    identify: (workload, port) =>
      refusal(workload, port, plane) ?? {
        id: identityOf({ name: workload.serviceAccount, namespace: workload.namespace }, plane),
      },
  };
}

function refusal(workload: Workload, port: number, plane: ControlPlane): TargetRefusal | undefined {
  const pod = `Pod ${workload.namespace}/${workload.name}`;
  const controlPlane = workload.labels[CONTROL_PLANE_LABEL];
  if (controlPlane === undefined) {
    const message = `${pod} has no Linkerd proxy, so nothing terminates TLS there; inject it (linkerd.io/inject: enabled) and restart it`;
    return { code: 'ERR_TARGET_UNMESHED', message };
  }
  if (controlPlane !== plane.namespace) {
    const message = `${pod} belongs to the control plane in ${controlPlane}, not ${plane.namespace}; use a MeshCertificate for that one`;
    return { code: 'ERR_TARGET_OTHER_MESH', message };
  }
  if (port === PROXY_PORT) {
    const message = `port ${PROXY_PORT} of ${pod} accepts only Linkerd's own proxies; use the application's port`;
    return { code: 'ERR_TARGET_PROXY_PORT', message };
  }
  const skipped = workload.annotations[SKIP_ANNOTATION];
  if (
    hasPort(parsePorts(PROXY_OWN_PORTS), port) ||
    hasPort(skipped === undefined ? plane.skippedPorts : parsePorts(skipped), port)
  ) {
    const message = `port ${port} of ${pod} bypasses its proxy, so nothing terminates TLS there; remove it from ${SKIP_ANNOTATION}, or use another port`;
    return { code: 'ERR_TARGET_SKIPPED_PORT', message };
  }
  const opaque = workload.annotations[OPAQUE_ANNOTATION];
  if (hasPort(opaque === undefined ? plane.opaquePorts : parsePorts(opaque), port)) {
    const message = `port ${port} of ${pod} is opaque, so its proxy passes TLS on to the application; remove it from ${OPAQUE_ANNOTATION} (set it to "" when the default lists it), or use another port`;
    return { code: 'ERR_TARGET_OPAQUE_PORT', message };
  }
  if (!isLabel(workload.serviceAccount)) {
    const message = `Linkerd gives no identity to ServiceAccount ${workload.namespace}/${workload.serviceAccount} of ${pod}, since it has a dot in its name; use another account`;
    return { code: 'ERR_TARGET_NAME', message };
  }
  return undefined;
}
