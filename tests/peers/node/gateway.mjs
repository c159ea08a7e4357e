// Starts the gateway under test, and the servers behind it, and waits until each says that it listens.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ReportingProcess } from './reporting_process.mjs';

const PEERS = fileURLToPath(new URL('../', import.meta.url));
const REPOSITORY = join(PEERS, '../..');
const GATEWAY = process.env.WSGATE_BIN ?? join(REPOSITORY, 'target/debug/wsgate');
const INTERPRETERS = { node: process.execPath, python: join(REPOSITORY, 'target/peers/venv/bin/python') };

export const ARTIFACTS = join(REPOSITORY, 'target/test-artifacts');
export const MATRIX = JSON.parse(readFileSync(join(PEERS, 'matrix.json'), 'utf8'));

// Every server of the matrix, and one gateway in front of them all. Whoever starts it calls `endAll` after all.
export async function startEverything() {
  const servers = {};
  for (const [name, { run }] of Object.entries(MATRIX.servers)) servers[name] = await startServer(name, run);
  const gateway = await startGateway('gateway.toml', servers);
  return {
    servers,
    url: (path) => `ws://${gateway.address}/${path}`,
    stop: gateway.stop,
  };
}

export const endAll = () => ReportingProcess.endAll();

// The gateway of `status.toml` with one server behind it, and the page of its admin listener. Whoever starts it calls
// `endAll` after all.
export async function startGatewayWithPage() {
  const ws = await startServer('ws', MATRIX.servers.ws.run);
  const gateway = await startGateway('status.toml', { ws });
  return { page: `http://${gateway.admin}/`, url: (path) => `ws://${gateway.address}${path}`, stop: gateway.stop };
}

// `wsgate demo`: nothing but the binary, and the addresses that it tells a person to open. Whoever starts it calls
// `endAll` after all.
export async function startDemo() {
  const args = ['demo', '--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0'];
  const demo = new ReportingProcess('wsgate demo', GATEWAY, args, 'stdout', parseAddress);
  const { address: page } = await demo.waitFor(({ path }) => path === '/', 'the address of the page');
  const { address: metrics } = await demo.waitFor(({ path }) => path === '/metrics', 'the address of the metrics');
  return { page, metrics, stop: () => demo.stop() };
}

async function startServer(name, [interpreter, script]) {
  const server = new ReportingProcess(name, INTERPRETERS[interpreter], [join(PEERS, script)], 'stdout');
  const { port } = await server.waitFor(({ event }) => event === 'listening', 'listening');
  server.address = `127.0.0.1:${port}`;
  return server;
}

async function startGateway(configuration, servers) {
  const directory = mkdtempSync(join(tmpdir(), 'wsgate-peers-'));
  const words = { directory };
  for (const [name, { address }] of Object.entries(servers)) words[name] = address;
  const template = readFileSync(join(PEERS, configuration), 'utf8');
  const file = join(directory, 'wsgate.toml');
  writeFileSync(file, template.replace(/@([a-z]+)@/g, (_, word) => words[word]));
  const gateway = new ReportingProcess('wsgate', GATEWAY, ['run', '-c', file], 'stderr');
  const { address: admin } = await gateway.waitFor(isListening('admin'), 'listening: admin');
  const { address } = await gateway.waitFor(isListening('public'), 'listening: public');
  return {
    address,
    admin,
    stop: async () => {
      const exit = await gateway.stop();
      rmSync(directory, { recursive: true });
      return exit;
    },
  };
}

function isListening(name) {
  return ({ message, listener }) => message === 'listening' && listener === name;
}

function parseAddress(line) {
  const [address] = line.match(/http:\/\/[\w.:]+\/\S*/) ?? [];
  return address && { address, path: new URL(address).pathname };
}
