import { filesBelow, ROOT } from '../tree.ts';

const NUMBER = String.raw`\d+\.\d+\.\d+(?:-(?:alpha|beta|rc)\.\d+)?`;

/** Where a version of meshcert stands in docs and manifests. package.json is the only place in which it is edited. */
const PLACES: readonly RegExp[] = [
  String.raw`(?<=ghcr\.io/meshcert/meshcert:)${NUMBER}`,
  `(?<=charts/meshcert --version )${NUMBER}`,
  String.raw`(?<=\bmeshcert(?:-npm|-image)?-)${NUMBER}(?=\.t)`,
  String.raw`(?<=\bmeshcert@)${NUMBER}`,
  `(?<=releases/download/v)${NUMBER}`,
  `(?<="meshcert": ")${NUMBER}`,
].map((pattern) => new RegExp(pattern, 'g'));

/** In Chart.yaml: the versions of the chart, of the image, and of the dependency that is part of it. */
const OF_CHART = new RegExp(`(?<=^ *(?:version|appVersion): )${NUMBER}`, 'gm');

export function filesWithVersion(): string[] {
  const docs = filesBelow(ROOT, 'docs', 'deploy', 'examples').filter((file) => /\.(md|ya?ml|json)$/.test(file));
  return [...docs, 'README.md', 'SECURITY.md'].filter((file) => file !== 'docs/upgrade.md');
}

/** The file with this version in every place. */
export function withVersion(path: string, text: string, version: string): string {
  const places = path.endsWith('/Chart.yaml') ? [...PLACES, OF_CHART] : PLACES;
  return places.reduce((changed, place) => changed.replace(place, version), text);
}
