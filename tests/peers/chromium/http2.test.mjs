// Headless Chromium over TLS: it takes HTTP/2 by itself, and opens its WebSockets on the connection that brought the page.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { endAll, startGatewayFrom } from '../node/gateway.mjs';
import { startBrowser } from './browser.mjs';

const { WebSocketServer } = createRequire(new URL('../node/package.json', import.meta.url))('ws');
const MAKE = fileURLToPath(new URL('../python/certificates.py', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'wsgate-http2-'));
const log = join(folder, 'access.log');
let server;
let gateway;
let browser;

before(async () => {
  execFileSync('python3', [MAKE, folder]);
  server = createServer((_, answer) => answer.setHeader('Content-Type', 'text/html').end('<title>page</title>'));
  new WebSocketServer({ server }).on('connection', (socket) => {
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  gateway = await startGatewayFrom('http2.toml', {
    certificates: `{ certificate = "${join(folder, 'server.pem')}", key = "${join(folder, 'server.key')}" }`,
    server: `127.0.0.1:${server.address().port}`,
    log,
  });
  // The test's own authority is nobody's.
  browser = await startBrowser({ ignoreHTTPSErrors: true });
});

after(async () => {
  await browser?.stop();
  await endAll();
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true });
});

const records = () => readFileSync(log, 'utf8').trim().split('\n').map((line) => JSON.parse(line));

// Runs in the page.
async function echo(text) {
  const socket = new WebSocket(`wss://${location.host}/ws`);
  const answer = await new Promise((resolve, reject) => {
    socket.onopen = () => socket.send(text);
    socket.onmessage = ({ data }) => resolve(data);
    socket.onerror = () => reject(new Error('no tunnel'));
  });
  socket.close(1000);
  return answer;
}

test('its WebSockets are streams of the connection that brought the page', async () => {
  const page = await browser.newPage();
  await page.goto(`https://localhost:${gateway.address.split(':')[1]}/`);
  assert.equal(await page.title(), 'page');
  for (const text of ['first', 'x'.repeat(1 << 20)]) assert.equal(await page.evaluate(echo, text), text);
  const sockets = records().filter(({ event }) => event === 'opened');
  assert.deepEqual(sockets.map(({ http, client }) => [http, client]), Array(2).fill(['2', sockets[0].client]));
  const brought = records().find(({ event, path }) => event === 'request' && path === '/');
  assert.deepEqual([brought.http, brought.client], ['2', sockets[0].client], 'one connection for all');
  assert.equal(await gateway.metric('wsgate_connections{listener="public"}'), 1);
});
