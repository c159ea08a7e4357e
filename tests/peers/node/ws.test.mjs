// Node's `ws` as the client of every server, through the gateway.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client, freshId, refusal } from './client.mjs';
import { MATRIX, endAll, startEverything } from './gateway.mjs';

let everything;
before(async () => {
  everything = await startEverything();
});
after(async () => {
  const exit = await everything?.stop();
  endAll();
  assert.equal(exit, 0, 'the gateway drains and exits with 0');
});

for (const [name, { can }] of Object.entries(MATRIX.servers)) {
  const open = (options) => Client.open(everything.url(name), options);
  const serverSees = (id, event) =>
    everything.servers[name].waitFor((one) => one.event === event && one.id === id, `${event}: ${id}`);

  describe(`ws speaks with ${name}`, () => {
    messages(open);
    controlFrames(open, can);
    closes(open, serverSees, can);
    negotiation(open, serverSees);
    versions(name, open, serverSees);
    manyConnections(open);
  });
}

function messages(open) {
  for (const text of MATRIX.texts) {
    test(`the text ${JSON.stringify(text)} comes back`, async () => {
      const client = await open();
      client.socket.send(text);
      assert.deepEqual(await client.next(), { text });
      await client.close();
    });
  }

  for (const bytes of MATRIX.message_bytes) {
    test(`${bytes} bytes come back`, async () => {
      const client = await open();
      const sent = patternOf(bytes);
      client.socket.send(sent);
      const { binary } = await client.next();
      assert.ok(sent.equals(binary), `same ${bytes} bytes`);
      await client.close();
    });
  }

  test('messages come back in order', async () => {
    const client = await open();
    const sent = Array.from({ length: 500 }, (_, index) => `message ${index}`);
    for (const text of sent) client.socket.send(text);
    for (const text of sent) assert.deepEqual(await client.next(), { text });
    await client.close();
  });
}

function controlFrames(open, can) {
  test('a ping of the client is answered', async () => {
    const client = await open();
    client.socket.ping('hello');
    assert.deepEqual(await client.next(), { pong: 'hello' });
    await client.close();
  });

  test('a ping of the server is answered', async () => {
    const client = await open();
    client.socket.send('!ping hello');
    assert.deepEqual(await client.next(), { ping: 'hello' });
    assert.deepEqual(await client.next(), { text: 'pong hello' });
    await client.close();
  });

  test('a ping between fragments of the client is answered before the message', async () => {
    const client = await open();
    client.socket.send('one ', { fin: false });
    client.socket.send('two ', { fin: false });
    client.socket.ping('between');
    client.socket.send('three', { fin: true });
    assert.deepEqual(await client.next(), { pong: 'between' });
    assert.deepEqual(await client.next(), { text: 'one two three' });
    await client.close();
  });

  if (can.includes('send fragments')) {
    test('a ping between fragments of the server arrives before the message', async () => {
      const client = await open();
      client.socket.send('!fragments one two three');
      assert.deepEqual(await client.next(), { ping: 'between' });
      assert.deepEqual(await client.next(), { text: 'onetwothree' });
      client.socket.terminate();
    });
  }
}

function closes(open, serverSees, can) {
  for (const code of MATRIX.close_codes) {
    test(`the server sees the client's close ${code}`, async () => {
      const client = await open();
      client.socket.close(code, 'that is all');
      const { reason, code: seen } = await serverSees(client.id, 'closed');
      assert.deepEqual({ seen, reason }, { seen: code, reason: 'that is all' });
      assert.notEqual((await client.next()).closed, 1006);
    });

    test(`the client sees the server's close ${code}`, async () => {
      const client = await open();
      client.socket.send(`!close ${code} that is all`);
      assert.deepEqual(await client.next(), { closed: code, reason: 'that is all' });
      assert.equal((await serverSees(client.id, 'closed')).code, code);
    });
  }

  test("the server sees the client's close without a code", async () => {
    const client = await open();
    client.socket.close();
    assert.equal((await serverSees(client.id, 'closed')).code, 1005);
    assert.notEqual((await client.next()).closed, 1006);
  });

  test('the server learns that the client is gone', async () => {
    const client = await open();
    client.socket.terminate();
    assert.equal((await serverSees(client.id, 'closed')).id, client.id);
  });

  if (can.includes('close without a code')) {
    test("the client sees the server's close without a code", async () => {
      const client = await open();
      client.socket.send('!close');
      assert.deepEqual(await client.next(), { closed: 1005, reason: '' });
    });
  }
}

function negotiation(open, serverSees) {
  for (const { offered, chosen } of MATRIX.subprotocols) {
    test(`of the subprotocols [${offered}] both sides choose ${chosen}`, async () => {
      const client = await open({ subprotocols: offered });
      assert.equal(client.socket.protocol || null, chosen);
      assert.equal((await serverSees(client.id, 'opened')).subprotocol, chosen);
      await client.close();
    });
  }

  test('permessage-deflate is agreed on by both sides and compresses', async () => {
    const client = await open({ perMessageDeflate: { threshold: 0 } });
    assert.match(client.socket.extensions, /^permessage-deflate/);
    assert.match((await serverSees(client.id, 'opened')).extensions, /^permessage-deflate/);
    const text = 'the same words again and again, '.repeat(32 * 1024);
    client.socket.send(text);
    assert.deepEqual(await client.next(), { text });
    const { bytesRead, bytesWritten } = client.socket._socket;
    assert.ok(bytesRead < text.length / 10, `${bytesRead} bytes read`);
    assert.ok(bytesWritten < text.length / 10, `${bytesWritten} bytes written`);
    await client.close();
  });

  test('permessage-deflate is off where the client does not offer it', async () => {
    const client = await open({ perMessageDeflate: false });
    assert.equal(client.socket.extensions, '');
    assert.equal((await serverSees(client.id, 'opened')).extensions, '');
    await client.close();
  });
}

function versions(name, open, serverSees) {
  for (const protocolVersion of [8]) {
    test(`a version-${protocolVersion} client gets 426 with the list, and the server never hears of it`, async () => {
      const refused = freshId();
      const { status, headers, body } = await refusal(`${everything.url(name)}?id=${refused}`, { protocolVersion });
      assert.equal(status, 426);
      assert.equal(headers['sec-websocket-version'], '13');
      assert.equal(headers.upgrade.toLowerCase(), 'websocket');
      assert.match(headers.connection, /\bupgrade\b/i);
      assert.notEqual(body, '');
      const next = await open();
      await serverSees(next.id, 'opened');
      assert.ok(!everything.servers[name].saw(({ id }) => id === refused));
      await next.close();
    });
  }
}

function manyConnections(open) {
  const count = MATRIX.connections_in_a_row;
  test(`${count} connections in a row each have their echo and their close`, async () => {
    for (let index = 0; index < count; index += 1) {
      const client = await open();
      client.socket.send(`${index}`);
      assert.deepEqual(await client.next(), { text: `${index}` });
      assert.equal((await client.close()).closed, 1000);
    }
  });
}

// A route that strips extensions serves both sides without them.
test('permessage-deflate is off where the route strips extensions', async () => {
  const client = await Client.open(everything.url('without-extensions'), { perMessageDeflate: true });
  assert.equal(client.socket.extensions, '');
  client.socket.send('plain');
  assert.deepEqual(await client.next(), { text: 'plain' });
  await client.close();
});

// Bytes in which no two neighbouring blocks are alike, so that a lost, doubled or swapped block shows.
function patternOf(bytes) {
  const pattern = Buffer.alloc(bytes);
  for (let index = 0; index < bytes; index += 1) pattern[index] = (index ^ (index >>> 8) ^ (index >>> 16)) & 0xff;
  return pattern;
}
