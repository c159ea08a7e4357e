// An echo server made of today's `ws`: 13 and 8. The README says what it understands and reports.

import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';
import { abort, report, reportMessage, requestParameter, untilInputEnds } from '../reporting.mjs';

const http = createServer();
const server = new WebSocketServer({
  server: http,
  perMessageDeflate: false,
  handleProtocols: ([first]) => first,
});

server.on('connection', (socket, request) => {
  const id = requestParameter(request.url, 'id');
  const version = request.headers['sec-websocket-version'];
  report('opened', { id, version, subprotocol: socket.protocol || null });
  let error = null;
  socket.on('error', ({ message }) => (error = message));
  socket.on('close', (code, reason) => report('closed', { id, code, reason: reason.toString(), error }));
  socket.on('pong', (data) => data.length && socket.send(`pong ${data}`));
  if (requestParameter(request.url, 'greet')) socket.send('welcome');
  socket.on('message', (data, isBinary) => {
    reportMessage(data, isBinary, { id });
    if (isBinary || data[0] !== '!'.charCodeAt(0)) return socket.send(data, { binary: isBinary });
    const [word, ...rest] = data.toString().split(' ');
    COMMANDS[word](socket, rest);
  });
});

const COMMANDS = {
  '!ping': (socket, [data]) => socket.ping(data),
  '!send': (socket, words) => socket.send(words.join(' ')),
  '!binary': (socket, [base64]) => socket.send(Buffer.from(base64, 'base64')),
  '!fragments': (socket, parts) =>
    parts.forEach((part, index) => socket.send(part, { fin: index === parts.length - 1 })),
  '!close': (socket, [code, ...reason]) => (code ? socket.close(Number(code), reason.join(' ')) : socket.close()),
  '!abort': (socket) => abort(socket._socket),
};

http.listen(0, '127.0.0.1', () => report('listening', { port: http.address().port }));
untilInputEnds();
