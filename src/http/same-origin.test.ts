import assert from 'node:assert/strict';
import { it } from 'node:test';
import { isOwnHost } from './server.ts';

it('addresses, local names and allowed names are this server, names of other sites are not', () => {
  const allowed = ['meshcert.example.com', '*.corp.example'];
  const own = ['10.1.2.3:9464', '127.0.0.1', '[::1]:9464', 'localhost:9464', 'LOCALHOST', 'a.localhost:1', 'meshcert'];
  own.push(
    'meshcert.emissary.svc:9464',
    'meshcert.emissary.svc.cluster.local.',
    'meshcert.example.com',
    'a.b.corp.example',
  );
  own.push('10-1-2-3.emissary.pod.cluster.local:9464');
  assert.deepEqual(
    own.filter((host) => !isOwnHost(host, allowed)),
    [],
  );
  const foreign = ['attacker.example', 'attacker.example:9464', 'svc.attacker.example', 'a.svc.attacker.example'];
  foreign.push(
    '127.0.0.1.attacker.example',
    'notmeshcert.example.com',
    'corp.example',
    'xcorp.example',
    'a b',
    'a@b.svc/',
    '[::1',
    ']',
  );
  assert.deepEqual(
    foreign.filter((host) => isOwnHost(host, allowed)),
    [],
  );
});
