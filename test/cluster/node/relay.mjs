// Runs in the network of the node. A connection to its Unix socket names an address in its first line, `HOST:PORT`,
// and is joined with a connection to that address.
import { connect, createServer } from 'node:net';

createServer({ allowHalfOpen: true }, (client) => {
  client.on('error', () => client.destroy());
  client.once('data', (first) => {
    client.pause();
    const end = first.indexOf('\n');
    const [host, port] = first.subarray(0, end).toString().split(':');
    const target = connect({ host, port: Number(port), allowHalfOpen: true });
    target.on('error', () => client.destroy());
    client.on('close', () => target.destroy());
    target.on('close', () => client.destroy());
    target.write(first.subarray(end + 1));
    client.pipe(target).pipe(client);
  });
}).listen(process.argv[2]);
