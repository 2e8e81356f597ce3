import { request } from 'node:https';
import { startConsul } from '../../sandbox/consul/consul.ts';
import { jwtMethod } from '../../sandbox/consul/jwt.ts';
import { startSidecar } from '../../sandbox/consul/mesh.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { systemClock } from '../../src/async/clock.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { ScaledClock } from '../support/scaled-clock.ts';
import type { ConsulKind } from './consul-target.ts';

/** Consul's waits are 15 s, 30 s and a minute; its answers here take milliseconds. */
const FASTER = 10;

export const sandboxConsul: ConsulKind = {
  name: 'sandbox',
  async start(setup) {
    const clock = setup.realTime ? systemClock : new ScaledClock(FASTER);
    const apiCa = setup.tls ? SandboxCa.root({ name: 'Consul Agent CA' }) : undefined;
    const consul = await startConsul({
      clock,
      acl: setup.acl ?? false,
      ...(apiCa ? { tls: apiCa } : {}),
      ...(setup.leafLifetimeMs === undefined ? {} : { leafLifetimeMs: setup.leafLifetimeMs }),
    });
    consul.connectDisabled(setup.connectDisabled ?? false);
    consul.noLeader(setup.leaderless ?? false);
    return {
      clock,
      httpAddress: consul.httpAddress,
      grpcAddress: consul.grpcAddress,
      apiCa: apiCa?.certificate.pem,
      createToken: async (service) => consul.createToken(service).secret,
      async deleteLoginTokens() {
        for (const token of consul.tokens) if (token.method !== undefined) consul.deleteToken(token.secret);
      },
      loginTokens: async () => consul.tokens.filter(({ method }) => method !== undefined).length,
      addJwtMethod: async (jwt) => consul.addAuthMethod(jwtMethod({ ...jwt, serviceClaim: 'service', clock })),
      rotateRoot: async (how) => consul.rotateRoot(how),
      setLeafLifetime: async (ms) => consul.setLeafLifetime(ms),
      limitSigning: async () => consul.rateLimit(),
      rebuild: () => consul.restart({ newTrustDomain: true }),
      allow: async (source, destination) => consul.intentions.set(source, destination, 'allow'),
      deny: async (source, destination) => consul.intentions.set(source, destination, 'deny'),
      async path(service) {
        const sidecar = await startSidecar(consul, service, clock);
        return {
          call: async (identity) => ((await get(sidecar.port, identity)) === 200 ? 'allowed' : 'refused'),
          [Symbol.asyncDispose]: () => sidecar.stop(),
        };
      },
      [Symbol.asyncDispose]: () => consul.stop(),
    };
  },
};

/** As a gateway does: our certificate, their chain verified, no host name compared. */
function get(port: number, { key, chain, roots }: Identity): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        host: '127.0.0.1',
        port,
        key: key.toPem(),
        cert: formatCertificates(chain),
        ca: formatCertificates(roots),
        checkServerIdentity: () => undefined,
        agent: false,
      },
      (response) => {
        response.resume();
        resolve(response.statusCode);
      },
    );
    sent.on('error', reject);
    sent.end();
  });
}
