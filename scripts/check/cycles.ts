/** Returns one cycle through each group of nodes that can all reach each other, with its first node again at its end. */
export function cyclesOf(graph: ReadonlyMap<string, ReadonlySet<string>>): string[][] {
  const cycles: string[][] = [];
  const seen = new Set<string>();
  for (const start of graph.keys()) {
    if (seen.has(start)) continue;
    const cycle = shortestCycle(graph, start);
    if (!cycle) continue;
    cycles.push(cycle);
    for (const node of groupOf(graph, start)) seen.add(node);
  }
  return cycles;
}

function shortestCycle(graph: ReadonlyMap<string, ReadonlySet<string>>, start: string): string[] | undefined {
  const cameFrom = new Map<string, string>();
  const queue = [start];
  for (const node of queue) {
    for (const next of graph.get(node) ?? []) {
      if (next === start) return [...path(cameFrom, start, node), start];
      if (cameFrom.has(next)) continue;
      cameFrom.set(next, node);
      queue.push(next);
    }
  }
  return undefined;
}

function path(cameFrom: ReadonlyMap<string, string>, start: string, end: string): string[] {
  const before = cameFrom.get(end);
  return end === start || before === undefined ? [end] : [...path(cameFrom, start, before), end];
}

/** All nodes that `start` reaches and that reach `start`. */
function groupOf(graph: ReadonlyMap<string, ReadonlySet<string>>, start: string): string[] {
  const reached = reachable(graph, start);
  return [...reached].filter((node) => reachable(graph, node).has(start));
}

function reachable(graph: ReadonlyMap<string, ReadonlySet<string>>, start: string): Set<string> {
  const found = new Set([start]);
  for (const node of found) for (const next of graph.get(node) ?? []) found.add(next);
  return found;
}
