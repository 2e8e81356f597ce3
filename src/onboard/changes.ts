import { parse } from 'yaml';
import { fields } from '../gateway/kinds.ts';
import { OnboardError } from './error.ts';

/** With `path=value` set; a path that begins with another mesh is for that mesh's document. */
export function withChanges(spec: object, mesh: string, meshes: readonly string[], changes: readonly string[]): object {
  let result: unknown = spec;
  for (const change of changes) {
    const at = change.indexOf('=');
    const path = change.slice(0, at).trim().split('.');
    if (at < 1 || path.some((part) => part === '')) {
      throw new OnboardError('ERR_ONBOARD_INVALID', `--set ${change}: expected FIELD=VALUE, such as trust.hold=5m`);
    }
    const [first = ''] = path;
    if (meshes.includes(first) && first !== mesh) continue;
    result = withValue(result, path, parse(change.slice(at + 1)));
  }
  return result as object;
}

function withValue(below: unknown, [first, ...rest]: readonly string[], value: unknown): unknown {
  if (first === undefined) return value;
  const now = fields(below);
  const set = withValue(now[first], rest, value);
  return Object.fromEntries(Object.entries({ ...now, [first]: set }).filter(([, one]) => one !== null));
}
