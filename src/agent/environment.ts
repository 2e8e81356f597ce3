import type { AllowList } from '../config/allow.ts';
import type { Preflight } from '../core/preflight.ts';
import type { Bundles } from '../gateway/publication-reader.ts';
import type { Kube } from '../kube/api.ts';
import type { Clock } from '../mesh/clock.ts';
import type { Log } from '../mesh/log.ts';
import type { Share } from '../mesh/sharing.ts';
import type { ApiAudiences } from './api-audiences.ts';
import type { Discovery } from './discovery.ts';
import type { Leadership } from './leadership.ts';
import type { Observer } from './observer.ts';
import type { Precedence } from './precedence.ts';
import type { Reporter } from './reporter.ts';
import type { Spacings } from './spacing.ts';

/** What the workers of one agent share. */
export interface Environment {
  readonly kube: Kube;
  readonly clock: Clock;
  readonly preflight: Preflight;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  readonly log: Log;
  readonly observer: Observer;
  readonly discovery: Discovery;
  readonly share: Share;
  readonly bundles: Bundles;
  readonly spacings: Spacings;
  readonly precedence: Precedence;
  readonly leadership: Leadership;
  readonly reporter: Reporter;
  /** Directories below which a MeshCertificate may name files; absent: any. */
  readonly filesBelow?: readonly string[] | undefined;
  /** What MeshCertificates may make the agent do; absent: everything. */
  readonly allow?: AllowList | undefined;
  readonly apiAudiences: ApiAudiences;
  /** How many MeshCertificates there are, whoever leads them. */
  readonly fleet: () => number;
  /** Ask the API server to validate each write and to store none. */
  readonly dryRun: boolean;
}
