// A drain as Node's `ws` and the servers behind the gateway live through it.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { Client } from './client.mjs';
import { MATRIX, endAll, startStage } from './gateway.mjs';

const AT_ONCE = 'spread = "0s"';
const MIB = 1 << 20;
const TOLD = { closed: 1001, reason: 'drained' };
// What may go by before something that has to happen has happened, on a machine that does other things as well.
const SLACK_MS = 2000;
const POLL_MS = 20;

after(endAll);

for (const [name, { can }] of Object.entries(MATRIX.servers)) {
  describe(`a drain between ws and ${name}`, () => {
    bothSidesAreTold(name);
    aMessageArrivesWhole(name);
    if (can.includes('send fragments')) aMessageOfFragmentsIsCutBetweenTwo(name);
  });
}

function bothSidesAreTold(name) {
  test('both sides are told once, and the process goes with the last tunnel', async () => {
    const stage = await startStage(name, AT_ONCE);
    const clients = await openMany(stage, 5);
    await stage.gateway.beginDrain();
    for (const client of clients) assert.deepEqual(await client.next(), TOLD);
    const last = Date.now();
    assert.equal(await stage.gateway.end(), 0);
    assert.ok(Date.now() - last < SLACK_MS, 'it waits for something after the last tunnel');
    for (const client of clients) assert.deepEqual(client.rest(), [], 'told more than once');
    await checkServer(stage, clients);
  });
}

function aMessageArrivesWhole(name) {
  test('a message of one frame that is on its way arrives whole', async () => {
    const { stage, client } = await holdUp(name, `!send ${10 * MIB}`);
    const { binary } = await client.next();
    assert.equal(binary.length, 10 * MIB);
    assert.ok(
      binary.every((byte, index) => byte === index % 251),
      'as it was sent',
    );
    assert.deepEqual(await client.next(), TOLD);
    assert.equal(await stage.gateway.end(), 0);
    await checkServer(stage, [client]);
  });
}

// A Close in the middle of a frame would be a part of its payload, and the client would not know why it was left.
function aMessageOfFragmentsIsCutBetweenTwo(name) {
  test('a message of fragments that is on its way is cut between two of them', async () => {
    const { stage, client } = await holdUp(name, `!send ${10 * MIB} 10`);
    assert.deepEqual(await client.next(), TOLD);
    assert.equal(await stage.gateway.end(), 0);
    await checkServer(stage, [client]);
  });
}

test('the ends of many are spread, and a plain request that is under way is answered', async () => {
  const [count, spreadMs] = [40, 2000];
  const stage = await startStage('ws', `spread = "${spreadMs}ms"`);
  const clients = await openMany(stage, count);
  const plain = await fetch(`http://${stage.gateway.address}/held`);
  const ended = [];
  const told = Date.now();
  for (const { socket } of clients) socket.on('close', () => ended.push(Date.now() - told));
  await stage.gateway.beginDrain();
  for (const client of clients) assert.deepEqual(await client.next(), TOLD);
  ended.forEach((after, place) => {
    // A busy machine makes ends late, but nothing may make them early; a clock of milliseconds rounds down.
    const turn = (spreadMs * place) / count - 1;
    assert.ok(turn <= after && after <= turn + SLACK_MS, `${place}: ${after} ms, its turn was at ${turn} ms`);
  });
  // The last tunnel is gone when its server has finished, too; what then is left is the plain request.
  const until = Date.now() + SLACK_MS;
  while ((await stage.gateway.metric('wsgate_drain_remaining')) !== 1) {
    assert.ok(Date.now() < until, 'more is left than the plain request');
  }
  await fetch(`http://${stage.server.address}/release`);
  assert.equal(await plain.text(), 'first last');
  assert.equal(await stage.gateway.end(), 0);
  await checkServer(stage, clients);
});

async function openMany(stage, count) {
  return Promise.all(Array.from({ length: count }, () => Client.open(stage.url)));
}

// A tunnel in which the server sends more than there is room for on the way, as the client takes nothing; and then the
// gateway is told to go.
async function holdUp(name, command) {
  const stage = await startStage(name, AT_ONCE);
  const client = await Client.open(stage.url);
  client.socket.pause();
  client.socket.send(command);
  const passed = 'wsgate_tunnel_bytes_total{direction="to_client",route="r"}';
  const deadline = Date.now() + 10 * SLACK_MS;
  while ((await stage.gateway.metric(passed)) < MIB / 4) {
    assert.ok(Date.now() < deadline, 'the message does not set out');
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  await stage.gateway.beginDrain();
  await stage.gateway.everyTunnelAsked();
  const messages = 'wsgate_tunnel_messages_total{direction="to_client",kind="binary",route="r"}';
  assert.equal(await stage.gateway.metric(messages), 0, 'the message is still on its way');
  client.socket.resume();
  return { stage, client };
}

// The server was told of each of these tunnels, once.
async function checkServer({ server }, clients) {
  for (const { id } of clients) {
    const { code, reason } = await server.waitFor((one) => one.event === 'closed' && one.id === id, `closed: ${id}`);
    assert.deepEqual({ closed: code, reason }, TOLD);
  }
  const ends = server.events.filter(({ event }) => event === 'closed').map(({ id }) => id);
  assert.deepEqual(ends.sort(), clients.map(({ id }) => id).sort());
}
