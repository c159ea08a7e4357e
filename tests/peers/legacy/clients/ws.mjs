// A client made of today's `ws`: 13 and 8. The README says what it understands and reports. Argument: the version.

import { WebSocket } from 'ws';
import { abort, report, reportMessage, takeCommands, textOf } from '../reporting.mjs';

const protocolVersion = Number(process.argv[2]);
let socket;

takeCommands({
  open(url, { id, subprotocol }) {
    const opened = new WebSocket(url, subprotocol ? [subprotocol] : [], { protocolVersion, perMessageDeflate: false });
    let error = null;
    opened.on('error', ({ message }) => (error = message));
    opened.on('unexpected-response', (_request, response) => {
      report('refused', { id, status: response.statusCode });
      response.destroy();
    });
    opened.on('open', () => report('opened', { id, subprotocol: opened.protocol || null }));
    opened.on('message', (data, isBinary) => reportMessage(data, isBinary, { id }));
    opened.on('ping', (data) => report('ping', { id, data: data.toString() }));
    opened.on('pong', (data) => report('pong', { id, data: data.toString() }));
    opened.on('close', (code, reason) =>
      report('closed', { id, code, reason: reason.toString(), clean: code !== 1006, error }),
    );
    socket = opened;
  },
  send: (text) => socket.send(text),
  send_size: (bytes) => socket.send(textOf(bytes)),
  send_binary: (base64) => socket.send(Buffer.from(base64, 'base64')),
  send_as_text: (base64) => socket.send(Buffer.from(base64, 'base64'), { binary: false }),
  fragments: (parts) => parts.forEach((part, index) => socket.send(part, { fin: index === parts.length - 1 })),
  ping: (data) => socket.ping(data),
  close: (code, { reason }) => (code ? socket.close(code, reason) : socket.close()),
  abort: () => abort(socket._socket),
});
