import descriptors from './gen/protos.json' with { type: 'json' };
import type { WireShape } from './wire.ts';

/** One place in the tree of declarations: a package, a message or a service. */
interface Declared {
  readonly nested?: Readonly<Record<string, Declared>>;
  readonly fields?: Readonly<Record<string, { readonly type: string; readonly id: number }>>;
  readonly methods?: Readonly<Record<string, { readonly responseType: string }>>;
}

const ROOT = descriptors as Declared;
const shapes = new Map<string, WireShape>();

/** The shape of the message with this full name. */
export function messageShape(name: string): WireShape {
  let shape = shapes.get(name);
  if (!shape) {
    const fields = Object.values(at(name)?.fields ?? {});
    shape = new Map(
      fields.flatMap(({ id, type }) => {
        const inner = resolve(name, type);
        return inner === undefined ? [] : [[id, () => messageShape(inner)] as const];
      }),
    );
    shapes.set(name, shape);
  }
  return shape;
}

/** The shape of a method's response. */
export function responseShape(service: string, method: string): WireShape {
  const type = at(service)?.methods?.[method]?.responseType;
  const name = type === undefined ? undefined : resolve(service, type);
  if (name === undefined) throw new TypeError(`no declaration of what ${service}/${method} answers`);
  return messageShape(name);
}

function at(name: string): Declared | undefined {
  let place: Declared | undefined = ROOT;
  for (const part of name.split('.')) place = place?.nested?.[part];
  return place;
}

/** The full name of a message as it is referred to within `scope`; undefined for anything but a message. */
function resolve(scope: string, type: string): string | undefined {
  // A full name begins with a dot.
  const parts = type.startsWith('.') ? [] : scope.split('.');
  const local = type.replace(/^\./, '');
  for (let depth = parts.length; depth >= 0; depth--) {
    const name = [...parts.slice(0, depth), local].join('.');
    if (at(name)?.fields) return name;
  }
  return undefined;
}
