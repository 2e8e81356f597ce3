import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { consul as consulAdapter } from '../../adapters/consul/adapter.ts';
import { file } from '../../adapters/file/adapter.ts';
import { istio } from '../../adapters/istio/adapter.ts';
import { linkerd } from '../../adapters/linkerd/adapter.ts';
import { spiffe } from '../../adapters/spiffe/adapter.ts';
import { startConsul } from '../../sandbox/consul/consul.ts';
import { startIstio } from '../../sandbox/istio/istio.ts';
import { startLinkerd } from '../../sandbox/linkerd/linkerd.ts';
import { SpireAuthority } from '../../sandbox/spiffe/authority.ts';
import { der, WorkloadApi } from '../../sandbox/spiffe/workload-api.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import type { Clock } from '../../src/async/clock.ts';
import { verify } from '../../src/core/verify.ts';
import { type Adapter, isIssuer } from '../../src/mesh/adapter.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { flaws } from '../support/flaws.ts';
import { istioToken, readIstioToken } from '../support/istio-token.ts';
import { opensslRefusal } from '../support/openssl-judge.ts';
import { RecordingHost } from '../support/recording-host.ts';
import { install, mintFor } from './adapter-linkerd-host.ts';

/** A mesh whose CA can be replaced by one that makes certificates of another form. */
interface Mesh {
  readonly adapter: Adapter;
  readonly config: unknown;
  /** What the flaws are about: the domain of its URI or DNS names. */
  readonly domain: string;
  plugIn(signer: (root: SandboxCa) => SandboxCa): void;
  stop(): Promise<void>;
}

const ID = 'spiffe://cluster.local/ns/emissary/sa/emissary';

const meshes: Readonly<Record<string, (host: RecordingHost, clock: Clock) => Promise<Mesh>>> = {
  async "Istio's CA"(host, clock) {
    const mesh = await startIstio({
      clock,
      authenticate: (token) => readIstioToken(token),
      publishRoots: (pem) =>
        host.setConfigMap({ namespace: 'emissary', name: 'istio-ca-root-cert' }, { 'root-cert.pem': pem }),
    });
    host.mint = ({ serviceAccount }) =>
      istioToken({ namespace: serviceAccount?.namespace ?? '', account: serviceAccount?.name ?? '' });
    return {
      adapter: istio as Adapter,
      config: { ca: { address: mesh.address, serverName: mesh.serverName, serviceAccount: 'emissary' } },
      domain: 'cluster.local',
      plugIn: (signer) => mesh.plugIn(signer),
      stop: () => mesh.stop(),
    };
  },
  async "Istio's SDS"(_host, clock) {
    const directory = mkdtempSync(join(tmpdir(), 'sds-'));
    const socket = join(directory, 'socket');
    const mesh = await startIstio({ clock });
    const agent = await mesh.startPilotAgent({ socket, id: ID });
    return {
      adapter: istio as Adapter,
      config: { sds: { socket }, trustDomain: 'cluster.local' },
      domain: 'cluster.local',
      plugIn(signer) {
        mesh.plugIn(signer);
        agent.rotate();
      },
      async stop() {
        await mesh.stop();
        rmSync(directory, { recursive: true });
      },
    };
  },
  async Linkerd(host, clock) {
    const mesh = await startLinkerd({ clock, trustDomain: 'mesh.example' });
    install(host, mesh);
    host.mint = mintFor();
    return {
      adapter: linkerd as Adapter,
      config: { serviceAccount: { name: 'emissary' }, address: mesh.address },
      domain: 'mesh.example',
      plugIn: (issuer) => mesh.plugIn(issuer),
      stop: () => mesh.stop(),
    };
  },
  async "Consul's agent"(_host, clock) {
    const consul = await startConsul({ clock, random: () => 0.5 });
    return {
      adapter: consulAdapter as Adapter,
      config: { http: { address: consul.httpAddress } },
      domain: consul.trustDomain,
      plugIn(signer) {
        consul.plugIn(signer);
        consul.renewLeaves();
      },
      stop: () => consul.stop(),
    };
  },
  async "Consul's servers"(_host, clock) {
    const consul = await startConsul({ clock, random: () => 0.5 });
    return {
      adapter: consulAdapter as Adapter,
      config: { datacenter: 'dc1', grpc: { addresses: [consul.grpcAddress], plaintext: true } },
      domain: consul.trustDomain,
      plugIn: (signer) => consul.plugIn(signer),
      stop: () => consul.stop(),
    };
  },
  async 'the Workload API'(_host, clock) {
    const lifetimes = { leafLifetimeMs: 3_600_000, caLifetimeMs: 86_400_000 };
    const authority = new SpireAuthority({ clock, trustDomain: 'cluster.local', ...lifetimes });
    const api = await WorkloadApi.start({ clock, authority, listen: { port: 0 }, entries: [{ id: ID }] });
    return {
      adapter: spiffe as Adapter,
      config: { address: api.address },
      domain: 'cluster.local',
      plugIn(signer) {
        const { root, key, chain } = issuedBy(signer, clock);
        const pair = { x509_svid: der(chain), x509_svid_key: key.keyObject.export({ type: 'pkcs8', format: 'der' }) };
        const svids = [{ spiffe_id: ID, ...pair, bundle: der([root.certificate]), hint: '' }];
        api.spoil = () => ({ svids, crl: [], federated_bundles: {} });
      },
      stop: () => api.stop(),
    };
  },
  async 'the program that writes files'(host, clock) {
    return {
      adapter: file as Adapter,
      config: { directory: '/certs' },
      domain: 'cluster.local',
      plugIn(signer) {
        const { root, key, chain } = issuedBy(signer, clock);
        host.setFile('/certs/tls.crt', formatCertificates(chain));
        host.setFile('/certs/tls.key', key.toPem());
        host.setFile('/certs/ca.crt', formatCertificates([root.certificate]));
      },
      async stop() {},
    };
  },
};

function issuedBy(signer: (root: SandboxCa) => SandboxCa, clock: Clock): { readonly root: SandboxCa } & Identity {
  const root = SandboxCa.root({ clock });
  return { root, ...signer(root).identity({ uris: [ID], lifetimeMs: 3_600_000 }) };
}

for (const [name, start] of Object.entries(meshes)) {
  describe(`A pair from ${name}`, () => {
    for (const { title, code, onlyEnvoy } of flaws('any')) {
      it(`with ${title} is named by ${code}`, { timeout: 60_000 }, async () => {
        const clock = new FakeClock(Date.now());
        const host = new RecordingHost(clock);
        const mesh = await start(host, clock);
        try {
          const flaw = flaws(mesh.domain).find((one) => one.title === title);
          assert.ok(flaw);
          mesh.plugIn((root) => flaw.signer(root, { clock }));
          const config = mesh.adapter.config.parse(mesh.config);
          const identity = await firstIdentity(mesh.adapter, config, host);
          const verdict = verify(identity, identity.roots, mesh.adapter.expect(config, host), clock.now());
          assert.ok(!verdict.ok, 'it is refused');
          assert.equal(verdict.code, code, verdict.message);
          assert.equal((await opensslRefusal(identity, identity.roots)) === undefined, onlyEnvoy === true);
        } finally {
          await mesh.stop();
        }
      });
    }
  });
}

async function firstIdentity(adapter: Adapter, config: unknown, host: RecordingHost): Promise<Identity> {
  await using opened = adapter.open(config, host);
  const { signal } = new AbortController();
  if (isIssuer(opened)) return await opened.issue(signal);
  for await (const identity of opened.watch(signal)) return identity;
  throw new Error('the stream ended without a value');
}
