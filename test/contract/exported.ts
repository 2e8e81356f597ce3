/**
 * The package export `meshcert/adapter-contract`: the suite that every adapter passes, for adapters outside of this
 * repository, and the helpers for their tests.
 */
export { FakeClock } from '../support/fake-clock.ts';
export { RecordingHost } from '../support/recording-host.ts';
export { adapterContract, type Subject } from './adapter-contract.ts';
