import { file } from '../../adapters/file/adapter.ts';
import { FileWriter, type Manner } from '../../sandbox/file/writer.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { fileTexts } from '../../src/agent/file-informer.ts';
import { ANY } from '../../src/config/allow.ts';
import { adapterContract } from './adapter-contract.ts';

const ID = 'spiffe://cluster.local/ns/emissary/sa/emissary';

for (const manner of ['in-place', 'renamed', 'swapped', 'credential-bundle'] as const satisfies readonly Manner[]) {
  adapterContract(`file, of a program that writes ${manner}`, async (host, clock) => {
    host.readFiles = (paths, signal) => fileTexts(paths, { clock: host.clock, below: ANY }, signal);
    const ca = SandboxCa.root({ clock });
    const issue = () => ca.intermediate({ clock }).identity({ uris: [ID], lifetimeMs: 3_600_000 });
    const writer = await FileWriter.start({ clock, manner, layout: 'istio', issue });
    return {
      adapter: file,
      config: writer.config,
      outage: (on) => writer.outage(on),
      rotate: () => writer.rotate(),
      stop: () => writer.stop(),
    };
  });
}
