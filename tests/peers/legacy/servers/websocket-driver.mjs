// An echo server made of `websocket-driver`: hixie-75, 0 and 13. The README says what it understands and reports.

import { createServer } from 'node:net';
import websocket from 'websocket-driver';
import { abort, report, reportMessage, requestParameter, untilInputEnds } from '../reporting.mjs';

const SUBPROTOCOL_HEADERS = { 'hixie-76': 'sec-websocket-protocol', 'hixie-75': 'websocket-protocol' };

const server = createServer((socket) => {
  const driver = websocket.server({ allowDrafts: true });
  let id;
  let wasClean = false;
  driver.on('connect', () => {
    id = requestParameter(driver.url, 'id');
    const header = SUBPROTOCOL_HEADERS[driver.version];
    const subprotocol = driver.headers[header] ?? null;
    if (subprotocol) driver.setHeader(header, subprotocol);
    driver.start();
    const version = driver.version.replace('hixie-76', '0').replace('hybi-', '');
    report('opened', { id, version, subprotocol });
    if (requestParameter(driver.url, 'greet')) driver.text('welcome');
  });
  driver.on('message', ({ data }) => {
    reportMessage(data, typeof data !== 'string', { id });
    if (!data.startsWith('!')) return driver.text(data);
    const [word, ...rest] = data.split(' ');
    return COMMANDS[word](driver, rest, socket);
  });
  driver.on('close', () => {
    wasClean = true;
    socket.end();
  });
  socket.on('error', () => {});
  socket.on('close', () => {
    // In hixie-75 there is no other end than that of the connection.
    const clean = driver.version === 'hixie-75' ? null : wasClean;
    report('closed', { id, code: null, clean });
  });
  socket.pipe(driver.io).pipe(socket);
});

const COMMANDS = {
  '!send': (driver, words) => driver.text(words.join(' ')),
  '!close': (driver) => driver.close(),
  '!abort': (_driver, _words, socket) => abort(socket),
};

server.listen(0, '127.0.0.1', () => report('listening', { port: server.address().port }));
untilInputEnds();
