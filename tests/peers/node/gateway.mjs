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
  for (const name of Object.keys(MATRIX.servers)) servers[name] = await startServer(name);
  const addresses = Object.entries(servers).map(([name, { address }]) => [name, address]);
  const gateway = await startGateway('gateway.toml', Object.fromEntries(addresses));
  return {
    servers,
    url: (path) => `ws://${gateway.address}/${path}`,
    stop: () => gateway.stop(),
  };
}

// One server of the matrix, and a gateway with one route to it and these keys of its drain. Whoever starts it calls
// `endAll` after all.
export async function startStage(name, drain) {
  const server = await startServer(name);
  const words = { server: server.address, drain, tunnel: '', listen: '127.0.0.1:0' };
  const gateway = await startGateway('tunnel.toml', words);
  return { server, gateway, url: `ws://${gateway.address}/` };
}

export const endAll = () => ReportingProcess.endAll();

// The gateway of `status.toml` with one server behind it, and the page of its admin listener. Whoever starts it calls
// `endAll` after all.
export async function startGatewayWithPage() {
  const ws = await startServer('ws');
  const gateway = await startGateway('status.toml', { ws: ws.address });
  return { page: `http://${gateway.admin}/`, url: (path) => `ws://${gateway.address}${path}`, stop: () => gateway.stop() };
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

async function startServer(name) {
  const [interpreter, script] = MATRIX.servers[name].run;
  const server = new ReportingProcess(name, INTERPRETERS[interpreter], [join(PEERS, script)], 'stdout');
  const { port } = await server.waitFor(({ event }) => event === 'listening', 'listening');
  server.address = `127.0.0.1:${port}`;
  return server;
}

class Gateway {
  #directory;
  #process;

  constructor(directory, process) {
    this.#directory = directory;
    this.#process = process;
  }

  async listening() {
    const { address: admin } = await this.#process.waitFor(isListening('admin'), 'listening: admin');
    const { address } = await this.#process.waitFor(isListening('public'), 'listening: public');
    await this.#process.waitFor(({ message }) => message === 'ready', 'ready');
    Object.assign(this, { admin, address });
    return this;
  }

  // The value of one series of `/metrics`, labels in the order of the exposition; 0 when it is not there.
  async metric(series) {
    const text = await (await fetch(`http://${this.admin}/metrics`)).text();
    const line = text.split('\n').find((one) => one.startsWith(`${series} `));
    return line ? Number(line.slice(series.length)) : 0;
  }

  async beginDrain() {
    this.#process.signal('SIGTERM');
    await this.#process.waitFor(({ message }) => message === 'draining', 'draining');
  }

  // From here on nothing is passed on behind the frame that is under way.
  everyTunnelAsked() {
    const message = 'every tunnel was asked to end';
    return this.#process.waitFor((one) => one.message === message, message);
  }

  // Waits until it has ended by itself; gives its exit code, or the signal's name if it had to be ended by force.
  async end() {
    const exit = await this.#process.end();
    rmSync(this.#directory, { recursive: true });
    return exit;
  }

  stop() {
    this.#process.signal('SIGTERM');
    return this.end();
  }
}

// As the others, from any template. Whoever starts it calls `endAll` after all.
export const startGatewayFrom = (template, words) => startGateway(template, words);

async function startGateway(template, words) {
  const directory = mkdtempSync(join(tmpdir(), 'wsgate-peers-'));
  const known = { ...words, directory };
  const text = readFileSync(join(PEERS, template), 'utf8').replace(/@([a-z]+)@/g, (_, word) => known[word]);
  const file = join(directory, 'wsgate.toml');
  writeFileSync(file, text);
  const process = new ReportingProcess('wsgate', GATEWAY, ['run', '-c', file], 'stderr');
  return new Gateway(directory, process).listening();
}

function isListening(name) {
  return ({ message, listener }) => message === 'listening' && listener === name;
}

function parseAddress(line) {
  const [address] = line.match(/http:\/\/[\w.:]+\/\S*/) ?? [];
  return address && { address, path: new URL(address).pathname };
}
