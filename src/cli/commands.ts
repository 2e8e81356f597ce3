import { setFlagsFromString } from 'node:v8';
import type { ListedCommand } from './program.ts';

/** In the order of the overview. */
export const COMMANDS: readonly ListedCommand[] = [
  {
    name: 'agent',
    summary: 'Keep the certificates of MeshCertificates published and rotated',
    load: async () => {
      keepHeapSmall();
      return (await import('./agent.ts')).agent;
    },
  },
  {
    name: 'demo',
    summary: 'Run a whole cluster in this process and rotate certificates under traffic',
    load: async () => (await import('./demo.ts')).demo,
  },
  {
    name: 'onboard',
    summary: 'Find meshes and gateway, and take the gateway into the mesh',
    load: async () => (await import('./onboard.ts')).onboard,
  },
  {
    name: 'offboard',
    summary: 'Take the gateway out of the mesh again, in the safe order',
    load: async () => (await import('./offboard.ts')).offboard,
  },
  {
    name: 'status',
    summary: 'Show what is published, until when, and what is wrong',
    load: async () => (await import('./status.ts')).status,
  },
  {
    name: 'inspect',
    summary: 'Explain a PEM file, a Secret or a live SDS socket',
    load: async () => (await import('./inspect.ts')).inspect,
  },
  { name: 'renew', summary: 'Request a new certificate now', load: async () => (await import('./renew.ts')).renew },
  {
    name: 'doctor',
    summary: 'Find problems in a cluster, or in files before you apply them',
    load: async () => (await import('./doctor.ts')).doctor,
  },
  {
    name: 'probe',
    summary: 'Try a published certificate on a real upstream',
    load: async () => (await import('./probe.ts')).probe,
  },
  {
    name: 'render',
    summary: 'Print what would be written, or the Role that it needs',
    load: async () => (await import('./render.ts')).render,
  },
  {
    name: 'schema',
    summary: 'Print the JSON schema or the CustomResourceDefinition',
    load: async () => (await import('./schema.ts')).schema,
  },
  {
    name: 'completion',
    summary: 'Print a completion script for bash, zsh or fish',
    load: async () => (await import('./completion.ts')).completion,
  },
];

/**
 * Keeps the heap of a long-lived process close to its live data; must be called before much is loaded. By default V8
 * permanently grows the young generation to 32 MiB in the first burst, and doubles the old one between collections.
 * With 1,000 publications the agent's start costs 5 % more CPU time for it. Both flags are read when a size is chosen.
 */
function keepHeapSmall(): void {
  setFlagsFromString('--semi-space-growth-factor=1');
  setFlagsFromString('--heap-growing-percent=50');
}
