// A client made of Node's `ws` that keeps everything it receives in order, so that a test can wait for the next thing.

import { once } from 'node:events';
import { WebSocket } from 'ws';

const PATIENCE_MS = 30_000;
let connections = 0;

// An id that no other connection of any test process has.
export function freshId() {
  connections += 1;
  return `ws-${process.pid}-${connections}`;
}

export class Client {
  #received = [];
  #waiting = [];

  constructor(url, { subprotocols = [], id = freshId(), ...options } = {}) {
    this.id = id;
    this.socket = new WebSocket(`${url}?id=${id}`, subprotocols, { perMessageDeflate: false, ...options });
    this.socket.on('message', (data, isBinary) => this.#take(isBinary ? { binary: data } : { text: data.toString() }));
    this.socket.on('ping', (data) => this.#take({ ping: data.toString() }));
    this.socket.on('pong', (data) => this.#take({ pong: data.toString() }));
    this.socket.on('close', (code, reason) => this.#take({ closed: code, reason: reason.toString() }));
    this.socket.on('error', (error) => this.#take({ error }));
  }

  static async open(url, options) {
    const client = new Client(url, options);
    await once(client.socket, 'open');
    return client;
  }

  // The next thing received: `{ text }`, `{ binary }`, `{ ping }`, `{ pong }`, `{ closed, reason }` or `{ error }`.
  async next() {
    if (this.#received.length > 0) return this.#received.shift();
    return new Promise((resolve, reject) => {
      const deadline = setTimeout(() => reject(new Error(`nothing received by ${this.id}`)), PATIENCE_MS);
      this.#waiting.push((thing) => {
        clearTimeout(deadline);
        resolve(thing);
      });
    });
  }

  // What was received and not yet asked for.
  rest() {
    return [...this.#received];
  }

  async close(code = 1000) {
    this.socket.close(code);
    return this.next();
  }

  #take(thing) {
    const waiting = this.#waiting.shift();
    if (waiting) waiting(thing);
    else this.#received.push(thing);
  }
}

// What a server that does not upgrade answers: `{ status, headers, body }`.
export async function refusal(url, options = {}) {
  const socket = new WebSocket(url, options);
  socket.on('error', () => {});
  const [, response] = await Promise.race([once(socket, 'unexpected-response'), failIfOpened(socket)]);
  let body = '';
  for await (const chunk of response) body += chunk;
  return { status: response.statusCode, headers: response.headers, body };
}

async function failIfOpened(socket) {
  await once(socket, 'open');
  throw new Error('the connection was upgraded');
}
