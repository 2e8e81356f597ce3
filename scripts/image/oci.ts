import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { type Entry, tar, withDirectories } from './tar.ts';

/** One layer in the form in which a registry stores it. */
export interface Layer {
  readonly blob: Buffer;
  readonly mediaType: string;
  /** Of the uncompressed archive. */
  readonly diffId: string;
  readonly unpackedBytes: number;
}

/** The part of an image's configuration that says how its program is run. */
export interface RunConfig {
  readonly User?: string;
  readonly Env?: readonly string[];
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly ExposedPorts?: Readonly<Record<string, object>>;
  readonly Labels?: Readonly<Record<string, string>>;
}

export type Architecture = 'amd64' | 'arm64';

/** Of this machine. */
export const nativeArchitecture: Architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';

/** The architectures of a list with commas. */
export function architecturesOf(text: string): Architecture[] {
  return text.split(',').map((one) => {
    if (one === 'amd64' || one === 'arm64') return one;
    throw new TypeError(`there is no image for ${one}; --arch takes amd64, arm64, or both with a comma`);
  });
}

export interface PlatformImage {
  readonly architecture: Architecture;
  readonly layers: readonly Layer[];
  readonly config: RunConfig;
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: object;
  readonly annotations?: Readonly<Record<string, string>>;
}

const OCI = 'application/vnd.oci.image';

/** `compressed: false` saves seconds if the layer does not leave this machine. */
export function layer(files: readonly Entry[], options: { compressed: boolean } = { compressed: true }): Layer {
  const archive = tar(withDirectories(files));
  return {
    // zlib writes no time and no name into the header, so equal archives have equal blobs.
    blob: options.compressed ? gzipSync(archive) : archive,
    mediaType: `${OCI}.layer.v1.tar${options.compressed ? '+gzip' : ''}`,
    diffId: sha256(archive),
    unpackedBytes: files.reduce((sum, { content }) => sum + (content?.length ?? 0), 0),
  };
}

export interface Archive {
  readonly tar: Buffer;
  /** Digest of the image index, by which a registry serves the image. */
  readonly digest: string;
}

/** An OCI image layout as one file, with the image of each platform under one name: `REPOSITORY:TAG`. */
export function ociArchive(name: string, platforms: readonly PlatformImage[]): Archive {
  const blobs = new Map<string, Buffer>();
  const add = (mediaType: string, content: Buffer, more: Partial<Descriptor> = {}): Descriptor => {
    const digest = sha256(content);
    blobs.set(digest, content);
    return { mediaType, digest, size: content.length, ...more };
  };
  const json = (value: unknown) => Buffer.from(JSON.stringify(value));
  const manifests = platforms.map(({ architecture, layers, config }) => {
    const platform = { architecture, os: 'linux' };
    const image = {
      ...platform,
      created: '1970-01-01T00:00:00Z',
      config,
      rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
    };
    const manifest = {
      schemaVersion: 2,
      mediaType: `${OCI}.manifest.v1+json`,
      config: add(`${OCI}.config.v1+json`, json(image)),
      layers: layers.map(({ mediaType, blob }) => add(mediaType, blob)),
      annotations: config.Labels,
    };
    return add(manifest.mediaType, json(manifest), { platform });
  });
  const mediaType = `${OCI}.index.v1+json`;
  const annotations = { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': tagOf(name) };
  const index = add(mediaType, json({ schemaVersion: 2, mediaType, manifests }), { annotations });
  const files: Entry[] = [
    { path: 'oci-layout', mode: 0o644, content: json({ imageLayoutVersion: '1.0.0' }) },
    { path: 'index.json', mode: 0o644, content: json({ schemaVersion: 2, mediaType, manifests: [index] }) },
    ...[...blobs].map(([digest, content]) => ({ path: `blobs/${digest.replace(':', '/')}`, mode: 0o644, content })),
  ];
  return { tar: tar(withDirectories(files)), digest: index.digest };
}

const tagOf = (name: string): string => name.slice(name.lastIndexOf(':') + 1);

const sha256 = (content: Buffer): string => `sha256:${createHash('sha256').update(content).digest('hex')}`;
