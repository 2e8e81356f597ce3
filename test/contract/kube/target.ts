import type { TestContext } from 'node:test';
import type { Kube } from '../../../src/kube/api.ts';
import type { KubeObject } from '../../../src/objects/objects.ts';

/** An API server, simulated or real, for the suite. RBAC is on. The suite creates what it needs. */
export interface KubeTarget {
  readonly name: string;
  /** The one version in which it serves ClusterTrustBundles. */
  readonly trustBundles: 'v1' | 'v1beta1';
  /** Text of a kubeconfig for this token; without one, for a member of `system:masters`. */
  kubeconfig(token?: string): string;
  /** Makes the server drop old versions, if it supports that. */
  compact?(): Promise<void>;
}

/** What each part of the suite works with. */
export interface Bench {
  readonly target: KubeTarget;
  readonly kube: Kube;
  connectAs(token: string): Kube;
  /** A new namespace. */
  namespace(): Promise<string>;
}

let counter = 0;

export async function makeNamespace(kube: Kube): Promise<string> {
  counter += 1;
  const name = `contract-${process.pid}-${counter}`;
  await kube.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } }, { fieldManager: 'suite' });
  return name;
}

export const base64 = (text: string): string => Buffer.from(text).toString('base64');

export function secret(namespace: string, name: string, data: Record<string, string>, more: object = {}): KubeObject {
  const encoded = Object.fromEntries(Object.entries(data).map(([key, text]) => [key, base64(text)]));
  return { apiVersion: 'v1', kind: 'Secret', metadata: { name, namespace, ...more }, type: 'Opaque', data: encoded };
}

export const MANAGER = { fieldManager: 'meshcert' } as const;
export const OTHER = { fieldManager: 'kubectl' } as const;

/** Aborted when the test is over, however it ends: everything that it started ends too. */
export function stopAfter(test: TestContext): AbortController {
  const stop = new AbortController();
  test.after(() => stop.abort());
  return stop;
}
