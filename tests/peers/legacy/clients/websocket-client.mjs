// A client made of `websocket-client` 1.0.0, of 2010: 0. The README says what it understands and reports.

import http from 'node:http';
import { createRequire } from 'node:module';
import { abort, hashStringsAsBytes, report, reportMessage, takeCommands, textOf } from '../reporting.mjs';

hashStringsAsBytes();
// What Node had in 2010: a client whose requests share its events.
http.createClient = (port, host) => {
  const listeners = [];
  return {
    on: (event, listener) => listeners.push([event, listener]),
    removeAllListeners: () => {},
    end: () => {},
    request(path, headers) {
      const request = http.request({ port, host, path, headers, agent: false });
      for (const [event, listener] of listeners) request.on(event, listener);
      request.on('upgrade', (_response, stream) => (socket = stream));
      request.on('response', onResponse);
      return request;
    },
  };
};
const { WebSocket } = createRequire(import.meta.url)('websocket-client/lib/websocket');
let client;
let socket;
let onResponse;

takeCommands({
  open(url, { id, subprotocol }) {
    onResponse = ({ statusCode }) => report('refused', { id, status: statusCode });
    const opened = new WebSocket(url, subprotocol, { origin: 'http://client.example' });
    let isOver = false;
    const end = (clean) => {
      if (!isOver) report('closed', { id, code: null, clean });
      isOver = true;
    };
    // It does not look at the subprotocol of the answer.
    opened.on('open', () => report('opened', { id }));
    opened.on('data', (data) => reportMessage(data, false, { id }));
    opened.on('close', () => end(true));
    opened.on('wserror', () => end(false));
    client = opened;
  },
  send: (text) => client.send(text),
  send_size: (bytes) => client.send(textOf(bytes)),
  close: () => client.close(),
  abort: () => abort(socket),
});
