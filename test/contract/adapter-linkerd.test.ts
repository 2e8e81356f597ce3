import { linkerd } from '../../adapters/linkerd/adapter.ts';
import { startLinkerd } from '../../sandbox/linkerd/linkerd.ts';
import { adapterContract } from './adapter-contract.ts';
import { install, mintFor } from './adapter-linkerd-host.ts';

adapterContract('The linkerd adapter', async (host, clock) => {
  const mesh = await startLinkerd({ clock, trustDomain: 'mesh.example' });
  install(host, mesh);
  host.mint = mintFor();
  return {
    adapter: linkerd,
    config: { serviceAccount: { name: 'emissary' }, address: mesh.address },
    outage: (on) => mesh.outage(on),
    changeRoots: async () => {
      await mesh.addRoot();
      install(host, mesh);
    },
    stop: () => mesh.stop(),
  };
});
