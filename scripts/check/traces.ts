import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { trackedBelow } from '../tree.ts';

const TEXT = /\.(ts|js|json|md|ya?ml|tpl|txt|proto|toml|mod|sh)$|(^|\/)(run|LICENSE|NOTES\.txt|\.\w+)$/;
const PUBLIC_HOSTS = new Set(['registry.npmjs.org', 'proxy.golang.org', 'sum.golang.org', 'pypi.org', 'localhost']);

/** Home and work directories of the file's author: useless to anyone else. */
const MACHINE_PATH = /(?<![\w.~-])\/(?:root|work|Users|home\/(?!nonroot)[a-z][\w-]*)\/[\w.-]+/;

export interface Traces {
  /** Hosts of the package registries that this machine happens to use. */
  readonly hosts: readonly string[];
}

/** Traces of the machine that a file was written on; `path:line: what` each. */
export function tracesOfMachine(root: string, { hosts }: Traces): string[] {
  const found: string[] = [];
  for (const file of trackedBelow(root).filter((name) => TEXT.test(name))) {
    const text = readFileSync(join(root, file), 'utf8');
    if (file === 'package-lock.json' && text.includes('"resolved"')) {
      found.push(`${file}: holds download addresses; .npmrc omits them: run npm install once more`);
    }
    for (const [index, line] of text.split('\n').entries()) {
      const path = MACHINE_PATH.exec(line);
      if (path) found.push(`${file}:${index + 1}: a path of one machine: ${path[0]}`);
      const host = hosts.find((name) => line.includes(name));
      if (host !== undefined) found.push(`${file}:${index + 1}: the package registry of one machine`);
    }
  }
  return found;
}

/** Registries from the environment, except the public ones, which may be named. */
export function registryHosts(env: NodeJS.ProcessEnv, npmRegistry: string): string[] {
  const urls = [npmRegistry, env.PIP_INDEX_URL, env.UV_INDEX_URL, ...(env.GOPROXY?.split(/[,|]/) ?? [])];
  const hosts = urls.flatMap((url) => {
    try {
      return [new URL(url ?? '').hostname];
    } catch {
      return [];
    }
  });
  return [...new Set(hosts)].filter((host) => host !== '' && !PUBLIC_HOSTS.has(host));
}
