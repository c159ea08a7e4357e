// WebSockets on streams of HTTP/2 (RFC 8441) by Node's own client of it; `ws` reads and writes the frames.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import { after, test } from 'node:test';
import { WebSocket } from 'ws';
import { endAll, startStage } from './gateway.mjs';

const PATIENCE_MS = 20_000;

after(endAll);

// A connection, once the gateway has said that it knows extended CONNECT.
async function connect({ gateway }) {
  const session = http2.connect(`http://${gateway.address}`);
  const settings = session.remoteSettings.enableConnectProtocol
    ? session.remoteSettings
    : (await once(session, 'remoteSettings', patience()))[0];
  assert.equal(settings.enableConnectProtocol, true);
  return session;
}

function request(session, path, fields = {}) {
  return session.request({
    ':method': 'CONNECT',
    ':protocol': 'websocket',
    ':path': path,
    'sec-websocket-version': 13,
    ...fields,
  });
}

// A WebSocket of `ws` on a stream, as its own client makes one on a socket.
async function open(session, path, fields) {
  const stream = request(session, path, fields);
  const [head] = await once(stream, 'response', patience());
  assert.equal(head[':status'], 200);
  const socket = new WebSocket(null, undefined, { autoPong: true, closeTimeout: 5000 });
  socket._isServer = false;
  const messages = [];
  socket.on('message', (data, isBinary) => messages.push(isBinary ? data : data.toString()));
  socket.setSocket(stream, Buffer.alloc(0), { maxPayload: 64 << 20, allowSynchronousEvents: true });
  const next = async () => {
    if (messages.length === 0) await once(socket, 'message', patience());
    return messages.shift();
  };
  return { head, socket, next };
}

const patience = () => ({ signal: AbortSignal.timeout(PATIENCE_MS) });

test('tunnels on one connection echo, agree on a subprotocol and close', async () => {
  const stage = await startStage('ws', '');
  const session = await connect(stage);
  const opened = (at) => open(session, `/?id=${at}`, { 'sec-websocket-protocol': 'other, chat.v1' });
  const clients = await Promise.all(Array.from({ length: 50 }, (_, at) => opened(at)));
  for (const size of [1, 126, 65_536, 1 << 20]) {
    const message = Buffer.alloc(size, 'x').toString();
    for (const { socket } of clients.slice(0, 5)) socket.send(message);
    for (const { next } of clients.slice(0, 5)) assert.equal(await next(), message);
  }
  for (const [at, { head, socket, next }] of clients.entries()) {
    assert.equal(head['sec-websocket-protocol'], 'chat.v1');
    assert.equal(head['sec-websocket-accept'], undefined);
    socket.send(`hello ${at}`);
    assert.equal(await next(), `hello ${at}`);
  }
  for (const { socket } of clients) {
    socket.close(4001, 'bye');
    const [code] = await once(socket, 'close', patience());
    assert.equal(code, 4001);
  }
  await stage.server.waitFor(({ event, code }) => event === 'closed' && code === 4001, 'closed');
  session.close();
  assert.equal(await stage.gateway.stop(), 0);
});

test('a version that is not served gets 400 with the list, and a plain request its page', async () => {
  const stage = await startStage('ws', '');
  const session = await connect(stage);
  const refused = request(session, '/', { 'sec-websocket-version': 12 });
  const [head] = await once(refused, 'response', patience());
  assert.deepEqual([head[':status'], head['sec-websocket-version']], [400, '13']);
  refused.resume();
  const page = session.request({ ':path': '/release' });
  const [answer] = await once(page, 'response', patience());
  assert.equal(answer[':status'], 200);
  page.resume();
  await once(page, 'end', patience());
  session.close();
  assert.equal(await stage.gateway.stop(), 0);
});

test('a drain sends GOAWAY and a Close on each stream', async () => {
  const stage = await startStage('ws', 'spread = "0s"');
  const session = await connect(stage);
  const clients = await Promise.all([1, 2, 3].map((at) => open(session, `/?id=${at}`)));
  const left = once(session, 'goaway', patience());
  const closed = clients.map(({ socket }) => once(socket, 'close', patience()));
  await stage.gateway.beginDrain();
  for (const [code, reason] of await Promise.all(closed)) {
    assert.deepEqual([code, reason.toString()], [1001, 'drained']);
  }
  const [code] = await left;
  assert.equal(code, http2.constants.NGHTTP2_NO_ERROR);
  assert.equal(await stage.gateway.end(), 0);
});
