// Runs in another network namespace. A connection to its Unix socket names an address in its first line, `HOST:PORT`,
// and is joined with a connection to that address. With `listen PORT SOCKET` in the first line, each connection to
// that port is joined with one to the given Unix socket instead; the answer is one line, once it listens.
import { writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';

// A port that is exposed here has the number that it has on the machine, which is below 61000. Outgoing connections of
// the namespace get ports above that, so none holds the number.
writeFileSync('/proc/sys/net/ipv4/ip_local_port_range', '61000 65535');

const join = (one, other) => {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ]) {
    from.on('error', () => from.destroy());
    from.on('close', () => to.destroy());
    from.pipe(to);
  }
};

const listen = (client, port, path) => {
  const server = createServer({ allowHalfOpen: true }, (accepted) => {
    const outside = connect({ path, allowHalfOpen: true });
    outside.write(`127.0.0.1:${port}\n`);
    join(accepted, outside);
  });
  client.on('error', () => client.destroy());
  server.once('error', (error) => client.end(`${error.message}\n`));
  // On every address: some resolvers find ::1 for names below localhost.
  server.listen(Number(port), () => client.end('listening\n'));
};

createServer({ allowHalfOpen: true }, (client) => {
  client.once('error', () => client.destroy());
  client.once('data', (first) => {
    client.pause();
    const end = first.indexOf('\n');
    const line = first.subarray(0, end).toString();
    const [command, ...args] = line.split(' ');
    if (command === 'listen') return listen(client, ...args);
    const [host, port] = line.split(':');
    const target = connect({ host, port: Number(port), allowHalfOpen: true });
    target.write(first.subarray(end + 1));
    join(client, target);
  });
}).listen(process.argv[2], () => console.log('ready'));
