import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hostPort, httpOrSocket, splitAddress } from './schema.ts';

const accepts = (schema: { safeParse(text: string): { success: boolean } }) => (text: string) =>
  schema.safeParse(text).success;

describe('an address in configuration', () => {
  it('is host:port with a port that exists', () => {
    const good = ['web.shop:443', '10.0.0.1:1', '[::1]:65535', '[2001:db8::1]:8080', 'a_b-c:59999', 'h:9'];
    assert.deepEqual(good.filter(accepts(hostPort('web.shop:443'))), good);
    const bad = ['h:99999', 'h:65536', 'h:70000', 'h:0', 'h:00443', 'h:', 'h', ':443', '[:::::]:80', '[1.2.3.4]:80'];
    bad.push('a b:1', 'http://h:1', 'h:1/x', `${'h'.repeat(254)}:1`, 'h:443\n', '-h:1');
    assert.deepEqual(bad.filter(accepts(hostPort('web.shop:443'))), []);
  });

  it('is a URL that can be called, or a socket', () => {
    const good = ['http://consul:8500', 'https://consul.svc:8501/', 'http://[::1]:8500', 'unix:///run/consul.sock'];
    good.push('http://consul', 'https://10.0.0.1:65535');
    assert.deepEqual(good.filter(accepts(httpOrSocket())), good);
    const bad = [
      'http://h:99999',
      'http://[',
      'http://[::',
      'http://10.0.0.256:80',
      'http://h:0',
      'http://',
      'ftp://h:1',
    ];
    bad.push('http://u:p@h:1', 'http://h:1/path', 'http://[:::::]:1', 'unix://relative', 'http://h h', 'http://%zz');
    assert.deepEqual(bad.filter(accepts(httpOrSocket())), []);
  });

  it('splits into host and port', () => {
    assert.deepEqual(splitAddress('[::1]:443'), { host: '::1', port: 443 });
    assert.deepEqual(splitAddress('web.shop:80'), { host: 'web.shop', port: 80 });
  });
});
