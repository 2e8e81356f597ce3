import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { output } from '../../peers/servers/process.ts';
import type { Namespaces } from './namespaces.ts';

/** As in clock.c. */
const SLOTS = 512;

/**
 * The wall clocks of pods, each of which can be shifted while it runs. The kernel has time namespaces for the monotonic
 * clock alone, so a library of ours answers in place of the C library.
 */
export interface Clocks {
  /** Values of the chart that mount the library into its pods. */
  readonly values: object;
  /** From now on the clock of the pod is this many seconds ahead, or behind if negative. */
  shift(pod: string, seconds: number): Promise<void>;
}

export async function makeClocks(node: Namespaces): Promise<Clocks> {
  const dir = join(node.dir, 'clock');
  await mkdir(dir);
  const source = fileURLToPath(new URL('clock.c', import.meta.url));
  await output('gcc', ['-shared', '-fPIC', '-O2', '-Wall', '-Werror', '-o', join(dir, 'clock.so'), source]);
  const offsets = join(dir, 'offsets');
  await (await open(offsets, 'w')).close();
  const write = async (slot: number, seconds: number) => {
    const content = Buffer.alloc(8);
    content.writeBigInt64LE(BigInt(seconds));
    const file = await open(offsets, 'r+');
    await file.write(content, 0, 8, slot * 8);
    await file.close();
  };
  await write(SLOTS - 1, 0);
  return {
    values: {
      extraVolumes: [{ name: 'clock', hostPath: { path: dir, type: 'Directory' } }],
      extraVolumeMounts: [{ name: 'clock', mountPath: '/clock', readOnly: true }],
      extraEnv: [{ name: 'LD_PRELOAD', value: '/clock/clock.so' }],
    },
    shift: (pod, seconds) => write(slotOf(pod), seconds),
  };
}

/** The name of a pod is that of its host. */
function slotOf(pod: string): number {
  let sum = 0;
  for (const byte of Buffer.from(pod)) sum = (Math.imul(sum, 31) + byte) >>> 0;
  return sum % SLOTS;
}
