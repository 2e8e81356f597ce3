import type { Semaphore } from '../../async/semaphore.ts';
import type { Share } from '../../async/sharing.ts';
import type { Allowed, AllowList } from '../../config/allow.ts';
import type { Preflight } from '../../core/verify/preflight.ts';
import type { Gateway } from '../../gateway/gateway.ts';
import type { Bundles } from '../../gateway/publication-reader.ts';
import type { Kube } from '../../kube/api.ts';
import type { Runtime } from '../../mesh/log.ts';
import type { Leadership } from '../election/leadership.ts';
import type { SharedInformers } from '../informers/by-kind.ts';
import type { ObjectInformers } from '../informers/by-object.ts';
import type { BatchGaps } from '../publish/batch-gap.ts';
import type { WritePriority } from '../publish/write-priority.ts';
import type { Reporter } from '../report/reporter.ts';

/** What the reconcilers of one agent share. */
export interface Environment extends Runtime {
  readonly kube: Kube;
  readonly preflight: Preflight;
  readonly objectInformers: ObjectInformers;
  readonly sharedInformers: SharedInformers;
  readonly share: Share;
  readonly bundles: Bundles;
  readonly batchGaps: BatchGaps;
  /** The uids of Secrets that the agent created, also when their MeshCertificate is gone and comes back. */
  readonly createdSecrets: Set<string>;
  readonly gateways: readonly Gateway[];
  readonly writePriority: WritePriority;
  readonly leadership: Leadership;
  readonly reporter: Reporter;
  /** Directories below which a MeshCertificate may name files. */
  readonly filesBelow: Allowed;
  /** What MeshCertificates may make the agent do. */
  readonly allow: AllowList;
  /** For handshakes with upstreams that are only checked: a few at a time. */
  readonly handshakes: Semaphore;
  /** How many MeshCertificates there are, whichever replica leads them. */
  readonly fleet: () => number;
  /** The API server validates each write and stores none. */
  readonly dryRun: boolean;
}
