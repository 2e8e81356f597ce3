/** Ports of a Linkerd annotation or value: single ones and ranges. */
export type PortSet = readonly (readonly [first: number, last: number])[];

/** `"25,587, 4000-4010"`; entries that are not ports, such as names, are dropped: Linkerd ignores them too. */
export function parsePorts(text: string): PortSet {
  return text.split(',').flatMap((part) => {
    const [, first, last = first] = /^\s*(\d{1,5})(?:-(\d{1,5}))?\s*$/.exec(part) ?? [];
    return first === undefined ? [] : [[Number(first), Number(last)] as const];
  });
}

export const hasPort = (ports: PortSet, port: number): boolean =>
  ports.some(([first, last]) => first <= port && port <= last);
