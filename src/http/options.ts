import type { Clock } from '../async/clock.ts';
import type { Log } from '../mesh/log.ts';
import type { AgentHealth, StatusSource } from './source/source.ts';

export interface HttpOptions {
  /** `0.0.0.0` where the kubelet and Prometheus must reach it. */
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Host names beside addresses and names of the cluster; see `isOwnHost`. */
  readonly allowedHosts?: readonly string[] | undefined;
  readonly version: string;
  readonly source: StatusSource;
  health(): AgentHealth;
  readonly metrics: { expose(format?: 'prometheus' | 'openmetrics'): string };
  readonly clock: Clock;
  readonly log: Log;
}
