// A client made of `websocket`: 13 and 8. The README says what it understands and reports. Argument: the version.

import websocket from 'websocket';
import { abort, report, reportMessage, takeCommands, textOf } from '../reporting.mjs';

const webSocketVersion = Number(process.argv[2]);
// Above the first limit it sends fragments.
const config = { webSocketVersion, maxReceivedFrameSize: 1 << 24, maxReceivedMessageSize: 1 << 24 };
const OPCODES = { continuation: 0, text: 1 };
let connection;

takeCommands({
  open(url, { id, subprotocol }) {
    const client = new websocket.client(config);
    client.on('httpResponse', ({ statusCode }) => report('refused', { id, status: statusCode }));
    client.on('connectFailed', (error) => report('failed', { id, error: `${error}` }));
    client.on('connect', (opened) => {
      connection = opened;
      opened.on('error', () => {});
      opened.on('message', ({ type, utf8Data, binaryData }) =>
        reportMessage(utf8Data ?? binaryData, type === 'binary', { id }),
      );
      opened.on('pong', (data) => report('pong', { id, data: data.toString() }));
      opened.on('close', (code, reason) => report('closed', { id, code, reason, clean: code !== 1006 }));
      report('opened', { id, subprotocol: opened.protocol ?? null });
    });
    client.connect(url, subprotocol ? [subprotocol] : [], 'http://client.example');
  },
  send: (text) => connection.sendUTF(text),
  send_size: (bytes) => connection.sendUTF(textOf(bytes)),
  send_binary: (base64) => connection.sendBytes(Buffer.from(base64, 'base64')),
  fragments: (parts) =>
    parts.forEach((part, index) => {
      const frame = new websocket.frame(connection.maskBytes, connection.frameHeader, connection.config);
      frame.opcode = index === 0 ? OPCODES.text : OPCODES.continuation;
      frame.fin = index === parts.length - 1;
      frame.binaryPayload = Buffer.from(part);
      connection.sendFrame(frame);
    }),
  ping: (data) => connection.ping(data),
  close: (code, { reason }) => (code ? connection.close(code, reason) : connection.close()),
  abort: () => abort(connection?.socket),
});
