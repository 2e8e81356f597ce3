import { linkerd } from '../../adapters/linkerd/adapter.ts';
import { startLinkerd } from '../../src/sandbox/linkerd/linkerd.ts';
import { adapterContract } from './adapter-contract.ts';
import { install, mintFor } from './adapter-linkerd-host.ts';

for (const way of ['TLS to the identity service', 'plaintext to its own sidecar']) {
  adapterContract(`The linkerd adapter with ${way}`, async (host, clock) => {
    const mesh = await startLinkerd({ clock, trustDomain: 'mesh.example' });
    install(host, mesh);
    host.mint = mintFor();
    const plaintext = way.startsWith('plaintext');
    return {
      adapter: linkerd,
      config: {
        serviceAccount: { name: 'emissary' },
        address: plaintext ? mesh.plaintextAddress : mesh.address,
        plaintext,
        ...(plaintext && { trustDomain: 'mesh.example' }),
      },
      outage: (on) => (plaintext ? mesh.fail(on ? 14 : undefined) : mesh.outage(on)),
      changeRoots: async () => {
        await mesh.addRoot();
        install(host, mesh);
      },
      stop: () => mesh.stop(),
    };
  });
}
