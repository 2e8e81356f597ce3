import { gatewaysOf } from '../../../src/gateway/gateway.ts';
import { gateways } from '../../../src/gateways.ts';
import 'reflect-metadata';
import { execFileSync } from 'node:child_process';
import { X509Certificate as NodeCertificate, webcrypto } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';
import { SandboxCa } from '../../../sandbox/tls/ca.ts';
import { plan } from '../../../src/core/plan.ts';
import { verify } from '../../../src/core/verify.ts';
import { desiredObjects } from '../../../src/gateway/desired.ts';
import { keyOf, refOf } from '../../../src/objects/objects.ts';
import { formatCertificates, parseCertificates } from '../../../src/pki/certificate.ts';
import { createCsr } from '../../../src/pki/csr.ts';
import { PrivateKey } from '../../../src/pki/key.ts';
import { normaliseDocument } from '../parts/document.ts';
import { type Row, ratioAtLeast, row, type Scenario } from '../scenario.ts';
import { interleaved } from '../statistics.ts';
import { reflectorRow } from './reflector.ts';

/** Of one measurement: long enough that the clock's precision does not matter. */
const SLICE_MS = 200;

export const micro: Scenario = {
  id: 'micro',
  title: 'The parts of a rotation',
  same: 'The same input and output on both sides in one process: a CSR, compared with @peculiar/x509 (WebCrypto) and with one process of the openssl CLI each; reading the names and times of a certificate, compared with Node’s own X509Certificate, which reports less; a watch of whole Secrets, streamed on loopback without TLS by another process, into the reflector and into the informer of @kubernetes/client-node, from the first request until the last object is in the cache. Verifying, planning and parsing a publication have no comparison.',
  async run({ sizes }) {
    const uri = 'spiffe://cluster.local/ns/emissary/sa/gateway';
    const ca = SandboxCa.root();
    const identity = ca.identity({ uris: [uri], lifetimeMs: 86_400_000 });
    const roots = [ca.certificate];
    const [leaf] = identity.chain;
    if (!leaf) throw new Error('no leaf');
    const rows: Row[] = [];

    const key = PrivateKey.generate();
    x509.cryptoProvider.set(webcrypto as never);
    const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
    const pair = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const theirs = async () => {
      const names = new x509.SubjectAlternativeNameExtension([{ type: 'url', value: uri }]);
      const request = { keys: pair, signingAlgorithm: algorithm, extensions: [names] };
      await x509.Pkcs10CertificateRequestGenerator.create(request);
    };
    rows.push(
      await compare(
        'CSR, key at hand, against @peculiar/x509',
        sizes.micro,
        () => createCsr(key, { uris: [uri] }),
        theirs,
        ratioAtLeast(3),
      ),
    );

    const dir = mkdtempSync(join(tmpdir(), 'meshcert-micro-'));
    const openssl = () => {
      const args = [
        'req',
        '-new',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:P-256',
        '-nodes',
        '-subj',
        '/',
        '-addext',
        `subjectAltName=critical,URI:${uri}`,
      ];
      execFileSync('openssl', [...args, '-keyout', join(dir, 'key'), '-out', join(dir, 'csr')], { stdio: 'ignore' });
    };
    try {
      openssl();
      rows.push(
        await compare(
          'key and CSR, against openssl req',
          sizes.micro,
          () => createCsr(PrivateKey.generate(), { uris: [uri] }),
          openssl,
        ),
      );
    } catch {
      // Said by the row that is not there.
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }

    const pem = leaf.pem;
    const native = () => {
      const certificate = new NodeCertificate(pem);
      void [certificate.subjectAltName, certificate.validTo, certificate.serialNumber, certificate.fingerprint256];
    };
    rows.push(
      await compare('read one certificate, against X509Certificate', sizes.micro, () => parseCertificates(pem), native),
    );

    const now = Date.now();
    const expected = { form: 'spiffe', id: uri } as const;
    rows.push(
      await alone('verify a fresh pair under its bundle, every check', sizes.micro, () => {
        // Read again, or the cached answers would be measured.
        const chain = parseCertificates(formatCertificates(identity.chain));
        verify({ key: identity.key, chain }, roots, expected, now);
      }),
    );
    const { spec, metadata } = normaliseDocument('istio');
    const input = {
      meta: { name: metadata.name, namespace: 'emissary' },
      spec,
      tls: {},
      identity,
      bundle: roots,
      since: new Map(),
      uses: gatewaysOf(spec, gateways),
    };
    const desired = desiredObjects(input);
    const managedFields = [{ manager: 'meshcert', operation: 'Apply' as const, fieldsV1: {} }];
    const standing = new Map(
      desired.map(({ object }) => [
        keyOf(refOf(object)),
        { ...object, metadata: { ...object.metadata, managedFields, resourceVersion: '1' } },
      ]),
    );
    rows.push(
      await alone('render and plan an existing publication', sizes.micro, () => {
        plan(desiredObjects(input), standing, `emissary.${metadata.name}`, now);
      }),
    );
    rows.push(await reflectorRow(sizes.micro, sizes.events));
    return { rows, counts: [], notes: [] };
  },
};

async function compare(
  what: string,
  rounds: number,
  ours: () => unknown,
  theirs: () => unknown,
  budget?: Parameters<typeof row>[4],
): Promise<Row> {
  const { ours: own, theirs: other } = await interleaved(
    rounds,
    () => rate(ours),
    () => rate(theirs),
  );
  return row(what, '/s', own, other, budget);
}

async function alone(what: string, rounds: number, ours: () => unknown): Promise<Row> {
  const rates: number[] = [];
  for (let round = 0; round <= rounds; round++) rates.push(await rate(ours));
  return row(what, '/s', rates.slice(1));
}

async function rate(work: () => unknown): Promise<number> {
  const start = performance.now();
  let count = 0;
  do {
    const result = work();
    if (result instanceof Promise) await result;
    count += 1;
  } while (performance.now() - start < SLICE_MS);
  return (count / (performance.now() - start)) * 1000;
}
