import { texts } from './flags.ts';

/** For every command that reads MeshCertificates of any mesh. */
export const adapterFlag = () =>
  texts(
    '--adapter <file>',
    'Also load the adapter in this ES module, which runs with all rights of this process (docs/adapters.md)',
  ).offers('files');
