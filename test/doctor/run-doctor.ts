import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { say } from '../support/io.ts';

export interface DoctorRun {
  readonly code: number;
  readonly text: string;
}

interface Checked {
  readonly area: string;
  readonly state: 'passed' | 'failed' | 'skipped';
  readonly code?: string;
  readonly message: string;
  readonly object?: { readonly kind: string; readonly name: string };
}

export interface DoctorReport {
  readonly summary: Readonly<Record<'objects' | 'error' | 'warning' | 'note', number>>;
  readonly findings: readonly {
    readonly code: string;
    readonly severity: string;
    readonly message: string;
    readonly fix: string;
    readonly object: { readonly kind: string; readonly namespace?: string; readonly name: string };
  }[];
  readonly checked: readonly Checked[];
  readonly skipped: readonly string[];
}

/** `meshcert doctor` with this kubeconfig. */
export async function runDoctor(kubeconfig: string, ...argv: readonly string[]): Promise<DoctorRun> {
  const directory = await mkdtemp(join(tmpdir(), 'meshcert-doctor-'));
  const file = join(directory, 'kubeconfig');
  try {
    await writeFile(file, kubeconfig, { mode: 0o600 });
    const { code, stdout, stderr } = await say(['doctor', '--kubeconfig', file, ...argv]);
    return { code, text: stdout + stderr };
  } finally {
    await rm(directory, { recursive: true });
  }
}

export async function doctorReport(
  kubeconfig: string,
  ...argv: readonly string[]
): Promise<DoctorReport & { readonly code: number; readonly text: string }> {
  const { code, text } = await runDoctor(kubeconfig, '-o', 'json', ...argv);
  return { ...(JSON.parse(text) as DoctorReport), code, text };
}

/** `istio-token passed` for the mesh, else `MC6005 passed`. */
export const states = ({ checked }: DoctorReport, prefix: string): string[] =>
  checked
    .filter(({ code = '' }) => code.startsWith(prefix))
    .map(
      ({ code, state, message }) => `${code === 'MC6010' ? /[a-z]+-[a-z-]+(?=:)/.exec(message)?.[0] : code} ${state}`,
    );
