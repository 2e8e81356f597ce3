import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { describe, type KubeObject } from '../../core/object.ts';
import { isTrouble } from '../../core/status.ts';
import { gatewaysOf } from '../../gateway/gateway.ts';
import { gateways } from '../../gateways.ts';
import { fields, text } from '../../mesh/kube-object.ts';
import type { Seen } from './look.ts';

/** The agent's report in the status of a MeshCertificate. */
export function lookAtStatus(object: KubeObject): Seen {
  const about = { code: 'MC6009', object } as const;
  const status = fields(object.status);
  const conditions = (Array.isArray(status.conditions) ? status.conditions : []).map(fields);
  const ready = conditions.find(({ type }) => type === 'Ready');
  const fix = `meshcert status -n ${object.metadata.namespace}, then the log of the agent; docs/errors.md and docs/runbook.md explain codes and reasons`;
  if (fields(object.spec).paused === true) {
    return { ...about, state: 'skipped', message: 'it is paused (spec.paused), so no agent works on it' };
  }
  if (!ready) {
    const message = 'its status is empty: no agent has processed it';
    return {
      ...about,
      state: 'failed',
      message,
      fix: 'see MC6005 to MC6008; an agent writes the first status within seconds',
    };
  }
  const { generation } = object.metadata;
  const observed = Number(ready.observedGeneration ?? generation);
  if (generation !== undefined && observed < generation) {
    const message = `its spec was changed (generation ${generation}), and the agent has processed only generation ${observed}`;
    return { ...about, state: 'failed', severity: 'warning', message, fix };
  }
  const troubles = conditions.filter(
    ({ type, status }) => status !== 'Unknown' && isTrouble({ type: String(type), status: String(status) }),
  );
  if (ready.status === 'True' && troubles.length === 0) {
    const until = text(status.notAfter);
    return {
      ...about,
      state: 'passed',
      message: `the agent reports Ready${until ? `, its leaf ends at ${until}` : ''}`,
    };
  }
  const lastError = fields(status.lastError);
  const cause = text(lastError.message);
  // Ready, Published and Degraded all name the cause; once is enough.
  const first = troubles.findIndex(({ message }) => cause !== undefined && text(message)?.includes(cause));
  const sentences = troubles
    .filter(({ message }, at) => at <= first || cause === undefined || !text(message)?.includes(cause))
    .map(({ type, reason, message }) => `${type} ${reason}: ${text(message)?.replace(/\.$/, '')}`);
  const causes =
    cause && !sentences.some((one) => one.includes(cause)) ? [`last error ${lastError.code}: ${cause}`] : [];
  const severity = ready.status === 'True' ? 'warning' : 'error';
  const message =
    [...sentences, ...causes, ...attempts(status)].join('; ') || `the agent reports Ready=${ready.status}`;
  return { ...about, state: 'failed', severity, message, fix };
}

/** Since when it fails, and the times of the last and the next attempt. */
function attempts(status: Record<string, unknown>): string[] {
  const { firstTime, time } = fields(status.lastError);
  if (typeof time !== 'string') return [];
  const next = text(status.nextAttemptTime);
  const since = text(firstTime) ?? time;
  return [`failing since ${since}, last attempt at ${time}${next === undefined ? '' : `, next attempt at ${next}`}`];
}

/** Whether its published objects exist. `known` returns whether the objects of a kind were all read. */
export function lookAtObjects(
  certificate: MeshCertificate,
  object: KubeObject,
  objects: readonly KubeObject[],
  known: (kind: string) => boolean,
  perTarget: boolean,
): Seen[] {
  const { metadata, spec } = certificate;
  const namespace = metadata.namespace ?? 'default';
  const secret = (name: string, hurts: string) => ({ kind: 'Secret', namespace, name, hurts });
  const meta = { name: metadata.name, namespace };
  const wanted = [
    secret(spec.secretName, 'the gateway has no certificate to send'),
    secret(spec.caSecretName, 'the gateway has no roots to verify upstreams with'),
    // One for each target means none while there is no target.
    ...gatewaysOf(spec, gateways).flatMap(({ gateway, config }) =>
      gateway
        .references({ meta, spec, config, targets: perTarget ? [] : undefined })
        .map(({ kind, name, namespace: place = namespace }) => ({
          kind,
          namespace: place,
          name,
          hurts: gateway.wording.missing,
        })),
    ),
  ];
  return wanted.map(({ kind, namespace: place, name, hurts }): Seen => {
    const title = describe({ apiVersion: '', kind, namespace: place, name });
    const about = { code: 'MC6011', object } as const;
    const there = objects.some(
      (one) => one.kind === kind && one.metadata.name === name && one.metadata.namespace === place,
    );
    if (there) return { ...about, state: 'passed', message: `${title} exists` };
    if (!known(kind)) return { ...about, state: 'skipped', message: `${title} could not be read` };
    const fix = 'see MC6009 and MC6010 for the reason; once the mesh issues, the agent creates it';
    return { ...about, state: 'failed', message: `${title} does not exist: ${hurts}`, fix };
  });
}
