// A client made of Node's `ws` as a process of its own, which can be stopped or cut off: sends one message, takes whatever
// comes, and reports how it ended. Arguments: URL and message.

import { WebSocket } from 'ws';

const [url, message] = process.argv.slice(2);
const socket = new WebSocket(url, { perMessageDeflate: false });
const report = (event, details) => console.log(JSON.stringify({ event, ...details }));

socket.on('open', () => {
  report('opened');
  socket.send(message);
});
socket.once('message', () => report('heard'));
socket.on('error', () => {});
socket.on('close', (code, reason) => report('closed', { code, reason: reason.toString() }));
