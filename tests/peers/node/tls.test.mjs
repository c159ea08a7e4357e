// TLS as Node lives through it: `ws` and `https` with a client certificate, in front of a server of Node's own `https`.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { WebSocket, WebSocketServer } from 'ws';
import { endAll, startGatewayFrom } from './gateway.mjs';

const MAKE = fileURLToPath(new URL('../python/certificates.py', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'wsgate-tls-'));
const file = (name) => join(folder, name);
const read = (name) => readFileSync(file(name));
const heads = [];
let server;
let gateway;

before(async () => {
  execFileSync('python3', [MAKE, folder]);
  const wanted = { ca: read('clients.pem'), requestCert: true, rejectUnauthorized: true };
  server = https.createServer({ cert: read('server.pem'), key: read('server.key'), ...wanted });
  server.on('request', (request, answer) => {
    heads.push(request.headers);
    answer.end('answered');
  });
  new WebSocketServer({ server }).on('connection', (socket, request) => {
    heads.push(request.headers);
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  gateway = await startGatewayFrom('tls.toml', {
    certificates: `{ certificate = "${file('server.pem')}", key = "${file('server.key')}" }`,
    listener: `client_certificates = "required"\nclient_ca = "${file('clients.pem')}"\nclient_certificate_header = "X-Client"`,
    server: `127.0.0.1:${server.address().port}`,
    upstream:
      `tls = { server_name = "x.b.example", ca = "${file('ca.pem')}", ` +
      `certificate = "${file('client.pem')}", key = "${file('client.key')}" }`,
  });
});

after(async () => {
  await endAll();
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true });
});

const identity = () => ({ cert: read('client.pem'), key: read('client.key') });
const trust = () => ({ ca: read('ca.pem'), servername: 'a.example' });
const url = (scheme) => `${scheme}://${gateway.address}/ws`;

for (const version of ['TLSv1.2', 'TLSv1.3']) {
  test(`ws talks over ${version} on both sides, and the server hears whose certificate it was`, async () => {
    const versions = { minVersion: version, maxVersion: version };
    const socket = new WebSocket(url('wss'), { ...trust(), ...identity(), ...versions, headers: { 'x-client': 'CN=root' } });
    await once(socket, 'open');
    for (const size of [5, 70_000]) {
      const sent = Buffer.alloc(size, 7);
      socket.send(sent);
      const [back] = await once(socket, 'message');
      assert.ok(sent.equals(back));
    }
    assert.equal(heads.at(-1)['x-client'], 'CN=device\\, 1,O=Example');
    assert.equal(heads.at(-1)['x-forwarded-proto'], 'https');
    socket.close(1000);
    const [code] = await once(socket, 'close');
    assert.equal(code, 1000);
  });
}

test('https gets its answer', async () => {
  const request = https.get(url('https'), { ...trust(), ...identity(), agent: false });
  const [answer] = await once(request, 'response');
  let text = '';
  for await (const piece of answer) text += piece;
  assert.deepEqual([answer.statusCode, text], [200, 'answered']);
});

test('without a certificate there is no answer, and another name is not believed', async () => {
  const before = heads.length;
  const nobody = https.get(url('https'), { ...trust(), agent: false });
  const [error] = await once(nobody, 'error');
  assert.match(`${error.code} ${error.message}`, /CERTIFICATE_REQUIRED|certificate required|ECONNRESET/);
  const misled = https.get(url('https'), { ...trust(), ...identity(), servername: 'c.example', agent: false });
  const [other] = await once(misled, 'error');
  assert.equal(other.code, 'ERR_TLS_CERT_ALTNAME_INVALID');
  assert.equal(heads.length, before);
});
