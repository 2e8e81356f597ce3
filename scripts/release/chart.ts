import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { parseDocument, stringify } from 'yaml';
import { type Entry, tar } from '../image/tar.ts';
import { filesBelow, ROOT } from '../tree.ts';
import type { Change } from './changelog.ts';

const CHART = 'deploy/helm/meshcert';

/**
 * The chart as `helm package` makes it, but with the same bytes each time, and with the changes of this version for
 * Artifact Hub.
 */
export async function packChart(changes: readonly Change[]): Promise<Buffer> {
  const entries: Entry[] = [];
  // Helm reads Chart.yaml first.
  for (const file of filesBelow(ROOT, CHART).sort((a, b) => Number(isMetadata(b)) - Number(isMetadata(a)))) {
    const content = await readFile(join(ROOT, file));
    const path = file.replace('deploy/helm/', '');
    entries.push({ path, mode: 0o644, content: isMetadata(file) ? withChanges(content, changes) : content });
  }
  return gzipSync(tar(entries), { level: 9 });
}

const isMetadata = (file: string): boolean => file === `${CHART}/Chart.yaml`;

function withChanges(content: Buffer, changes: readonly Change[]): Buffer {
  const metadata = parseDocument(content.toString('utf8'));
  metadata.setIn(['annotations', 'artifacthub.io/changes'], stringify(changes, { lineWidth: 0 }));
  return Buffer.from(metadata.toString({ lineWidth: 0 }));
}
