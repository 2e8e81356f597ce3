import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { MeshError } from 'meshcert/adapter';
import { adapterContract, FakeClock, RecordingHost } from 'meshcert/adapter-contract';
import { parseConfig } from '../src/config.ts';
import { adapter } from '../src/vault.ts';
import { VaultServer } from './vault-server.ts';

const ID = 'spiffe://corp.example/ns/emissary/sa/emissary';
const configFor = (address: string) => ({
  address,
  role: 'gateway',
  id: ID,
  auth: { role: 'meshcert', serviceAccount: 'emissary' },
  caConfigMap: 'vault-ca',
});

function equip(host: RecordingHost, vault: VaultServer): void {
  host.setConfigMap({ namespace: host.namespace, name: 'vault-ca' }, { 'ca.crt': vault.ca });
  host.mint = () => 'header.claims.signature';
}

adapterContract('The Vault adapter', async (host) => {
  const vault = await VaultServer.start();
  equip(host, vault);
  return {
    adapter,
    config: configFor(vault.address),
    outage: (on) => {
      vault.broken = on ? 503 : undefined;
    },
    secrets: [vault.clientToken],
    stop: () => vault.stop(),
  };
});

describe('the Vault adapter', () => {
  let vault: VaultServer;

  before(async () => {
    vault = await VaultServer.start();
  });

  after(() => vault.stop());

  const issue = (changes: object = {}, host = new RecordingHost(new FakeClock(Date.now()))) => {
    equip(host, vault);
    const issuer = adapter.open(parseConfig({ ...configFor(vault.address), ...changes }), host);
    if (!('issue' in issuer)) throw new TypeError('Vault is asked');
    return issuer.issue(new AbortController().signal);
  };

  it('splits what Vault answers into chain and roots', async () => {
    const { chain, roots, id } = await issue();
    assert.equal(id, ID);
    assert.deepEqual(chain.map(({ subject }) => subject).slice(1), ['CN=intermediate']);
    assert.deepEqual(
      roots.map(({ subject }) => subject),
      ['CN=root'],
    );
  });

  it('asks for a token of the ServiceAccount, for Vault alone', async () => {
    const host = new RecordingHost(new FakeClock(Date.now()));
    await issue({}, host);
    const [request] = host.tokenRequests;
    assert.deepEqual(request?.serviceAccount, { name: 'emissary', namespace: 'emissary' });
    assert.deepEqual(request?.destinations, [{ address: new URL(vault.address).host, secure: true }]);
    assert.equal(request?.audience, 'vault');
  });

  for (const [title, changes, code] of [
    ['a role that Vault does not have', { role: 'other' }, 'ERR_MESH_CONFIG'],
    ['an account that may not log in', { auth: { role: 'other', serviceAccount: 'emissary' } }, 'ERR_MESH_DENIED'],
    ['an address where nobody listens', { address: 'https://127.0.0.1:1' }, 'ERR_MESH_UNREACHABLE'],
    ['a CA that did not sign Vault', { caConfigMap: undefined }, 'ERR_MESH_TLS'],
  ] as const) {
    it(`tells ${title} by ${code}`, async () => {
      await assert.rejects(issue(changes), (error) => error instanceof MeshError && error.code === code);
    });
  }

  it('refuses a configuration with the name of the field', () => {
    const good = configFor('https://vault.vault:8200');
    for (const [changes, message] of [
      [{ address: 'http://vault.vault:8200' }, /^address must be https/],
      [{ id: 'corp' }, /^id must be a SPIFFE ID/],
      [{ auth: { role: 'a' } }, /^auth\.serviceAccount must be text/],
      [{ colour: 1 }, /^there is no field colour/],
    ] as const) {
      assert.throws(
        () => parseConfig({ ...good, ...changes }),
        (error) => message.test((error as Error).message),
      );
    }
  });
});
