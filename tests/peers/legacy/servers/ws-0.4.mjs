// An echo server made of `ws` 0.4, of 2014: 0, 8 and 13. The README says what it understands and reports.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { abort, hashStringsAsBytes, report, reportMessage, requestParameter, untilInputEnds } from '../reporting.mjs';

hashStringsAsBytes();
const { Server } = createRequire(import.meta.url)('ws-0.4');

const http = createServer();
const server = new Server({
  server: http,
  verifyClient: ({ req }, answer) => {
    const refused = requestParameter(req.url, 'refuse');
    answer(!refused, Number(refused), 'Refused');
  },
});

server.on('connection', (socket) => {
  const id = requestParameter(socket.upgradeReq.url, 'id');
  const isHixie = socket.protocolVersion === 'hixie-76';
  const version = isHixie ? '0' : `${socket.protocolVersion}`;
  report('opened', { id, version, subprotocol: socket.protocol ?? null });
  socket.on('error', () => {});
  // It calls any end of a hixie connection 1000, so that this says nothing.
  socket.on('close', (code, reason) => report('closed', { id, code: isHixie ? null : code, reason }));
  socket.on('pong', (data) => data.length && socket.send(`pong ${data}`));
  if (requestParameter(socket.upgradeReq.url, 'greet')) socket.send('welcome');
  socket.on('message', (data, { binary = false }) => {
    reportMessage(data, binary, { id });
    if (binary || data[0] !== '!') return socket.send(data, { binary });
    const [word, ...rest] = data.split(' ');
    COMMANDS[word](socket, rest);
  });
});

const COMMANDS = {
  '!ping': (socket, [data]) => socket.ping(data),
  '!send': (socket, words) => socket.send(words.join(' ')),
  '!fragments': (socket, parts) => {
    const left = [...parts];
    socket.stream((error, send) => error || send(left.shift(), left.length === 0));
  },
  '!close': (socket, [code, ...reason]) => (code ? socket.close(Number(code), reason.join(' ')) : socket.close()),
  '!abort': (socket) => abort(socket._socket),
};

http.listen(0, '127.0.0.1', () => report('listening', { port: http.address().port }));
untilInputEnds();
