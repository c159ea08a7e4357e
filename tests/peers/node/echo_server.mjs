// An echo server made of Node's `ws`. The README beside this folder says what it understands and reports.

import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';

const SUBPROTOCOLS = ['chat.v2', 'chat.v1'];

const http = createServer();
const server = new WebSocketServer({
  server: http,
  perMessageDeflate: { threshold: 0 },
  handleProtocols: (offered) => SUBPROTOCOLS.find((one) => offered.has(one)) ?? false,
});

server.on('connection', (socket, request) => {
  const id = new URL(request.url, 'ws://server').searchParams.get('id');
  report('opened', { id, subprotocol: socket.protocol || null, extensions: socket.extensions });
  socket.on('error', () => {});
  socket.on('close', (code, reason) => report('closed', { id, code, reason: reason.toString() }));
  socket.on('pong', (data) => data.length && socket.send(`pong ${data}`));
  socket.on('message', (data, isBinary) => {
    if (isBinary || data[0] !== '!'.charCodeAt(0)) return socket.send(data, { binary: isBinary });
    const [word, ...rest] = data.toString().split(' ');
    COMMANDS[word](socket, rest);
  });
});

// A plain request is answered in two parts, the second one when somebody asks for `/release`.
const held = [];
http.on('request', (request, response) => {
  if (request.url !== '/release') return held.push(response) && response.write('first ');
  held.splice(0).forEach((one) => one.end('last'));
  return response.end();
});

http.listen(0, '127.0.0.1', () => report('listening', { port: http.address().port }));
// Whoever started this holds the other end of standard input; its end is the end of this server.
process.stdin.on('end', () => process.exit(0)).resume();

const COMMANDS = {
  '!ping': (socket, [data]) => socket.ping(data),
  '!fragments': (socket, fragments) => {
    fragments.forEach((fragment, index) => {
      const isLast = index === fragments.length - 1;
      if (isLast) socket.ping('between');
      socket.send(fragment, { fin: isLast, compress: false });
    });
  },
  '!send': (socket, [bytes, fragments = 1]) => {
    const [whole, each] = [patternOf(Number(bytes)), bytes / fragments];
    for (let start = 0; start < bytes; start += each) {
      socket.send(whole.subarray(start, start + each), { fin: start + each >= bytes, compress: false });
    }
  },
  '!close': (socket, [code, ...reason]) => (code ? socket.close(Number(code), reason.join(' ')) : socket.close()),
};

// Bytes in which a lost, doubled or swapped part shows: the length of the period is a prime.
function patternOf(bytes) {
  return Buffer.alloc(bytes, Uint8Array.from({ length: 251 }, (_, index) => index));
}

function report(event, details) {
  console.log(JSON.stringify({ event, ...details }));
}
