/**
 * The slowest files on a machine with two cores, mostly because they wait; started last, they would run alone at the
 * end.
 */
export const LONG = [
  'test/peers/ha.test.ts',
  'test/peers/e2e-istio.test.ts',
  'test/peers/traffic.test.ts',
  'test/peers/gateway-drills.test.ts',
  'test/peers/gateway-traffic.test.ts',
  'test/peers/drills-watch.test.ts',
  'test/peers/drills.test.ts',
  'test/peers/istio-rotation.test.ts',
  'test/peers/consul.test.ts',
  'test/peers/istio.test.ts',
  'test/peers/controller.test.ts',
  'test/peers/drills-agents.test.ts',
  'test/contract/consul-suite.test.ts',
  'test/bench/scenarios.test.ts',
  'test/model/publication.test.ts',
  'test/e2e/once.test.ts',
  'test/e2e/adapter-package.test.ts',
  'test/hostile/hostile.test.ts',
  'test/e2e/onboard-gateway-api.test.ts',
  'test/doctor/running.test.ts',
  'sandbox/demo/demo.test.ts',
  'test/e2e/probe.test.ts',
  'test/e2e/onboard.test.ts',
  'test/e2e/live.test.ts',
  'test/e2e/agent.test.ts',
  'test/doctor/harm.test.ts',
  'scripts/build.test.ts',
];

export function longestFirst(files: readonly string[]): string[] {
  const rank = (file: string) => {
    const index = LONG.indexOf(file);
    return index === -1 ? LONG.length : index;
  };
  return files.toSorted((a, b) => rank(a) - rank(b));
}
