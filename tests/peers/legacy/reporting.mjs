// What processes of Node share: reports as JSON lines, commands as JSON lines, and an end as soon as whoever started them
// is gone.

import crypto from 'node:crypto';
import { createInterface } from 'node:readline';

const TEXT_SHOWN_BYTES = 200;

export function report(event, details) {
  console.log(JSON.stringify({ event, ...details }));
}

export function reportMessage(data, isBinary, details) {
  const bytes = Buffer.from(data);
  const sha1 = crypto.createHash('sha1').update(bytes).digest('hex');
  const shown = bytes.length <= TEXT_SHOWN_BYTES && !isBinary ? { text: bytes.toString() } : {};
  report('message', { ...details, binary: isBinary, bytes: bytes.length, sha1, ...shown });
}

export const requestParameter = (url, name) => new URL(url, 'ws://server').searchParams.get(name);

// The commands of a client: the first word of each says what to do. `clear` is what is to be done at the end.
export function takeCommands(commands, clear = () => {}) {
  const input = createInterface({ input: process.stdin });
  input.on('line', (line) => {
    const command = JSON.parse(line);
    const [word] = Object.keys(command);
    commands[word](command[word], command);
  });
  input.on('close', async () => {
    await clear();
    process.exit(0);
  });
}

export function untilInputEnds() {
  process.stdin.on('end', () => process.exit(0)).resume();
}

// A text of ASCII alone in which a lost, doubled or swapped part shows: the length of the period is a prime.
export function textOf(bytes) {
  return Buffer.alloc(bytes, Uint8Array.from({ length: 83 }, (_, index) => 36 + index)).toString();
}

// Old code hashes strings of bytes; since Node 6 such a string would be hashed as UTF-8.
export function hashStringsAsBytes() {
  const { createHash } = crypto;
  crypto.createHash = (...options) => {
    const hash = createHash(...options);
    const { update } = hash;
    hash.update = (data, encoding = 'latin1') => update.call(hash, data, encoding);
    return hash;
  };
}

// Ends a connection in the rudest way, by a reset. One that was refused has no socket.
export function abort(socket) {
  socket?.resetAndDestroy();
}
