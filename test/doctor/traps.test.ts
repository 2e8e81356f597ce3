import { describe } from 'node:test';
import { startSandboxJudge, startSandboxSidecar } from './sandbox-judge.ts';
import { judgeTraps } from './traps.ts';

describe('each trap of docs/checks.md on the gateway of the sandbox', () => {
  judgeTraps({ name: 'sandbox', judge: startSandboxJudge, sidecar: startSandboxSidecar });
});
