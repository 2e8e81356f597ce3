import { join } from 'node:path';
import { ROOT } from '../../../scripts/tree.ts';
import { output } from './process.ts';

/**
 * The source of a Go module, such as `github.com/x/y@v1.2.3`, in Go's cache. The go.sum of one of our modules, a
 * directory in `test/peers/go`, pins it; nothing is built.
 */
export async function goModuleSource(ours: string, version: string): Promise<string> {
  const cwd = join(ROOT, 'test/peers/go', ours);
  const { HOME = '', GOPROXY, GOMODCACHE } = process.env;
  const env = {
    HOME,
    GOFLAGS: '-mod=mod',
    GOWORK: 'off',
    ...(GOPROXY ? { GOPROXY } : {}),
    ...(GOMODCACHE ? { GOMODCACHE } : {}),
  };
  const said = await output('go', ['mod', 'download', '-json', version], { cwd, env });
  return (JSON.parse(said) as { Dir: string }).Dir;
}
