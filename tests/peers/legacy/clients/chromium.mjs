// A client made of headless Chromium, in one page: 13. The README says what it understands and reports.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { startBrowser } from '../../chromium/browser.mjs';
import { report, reportMessage, takeCommands, textOf } from '../reporting.mjs';

const browser = await startBrowser();
const page = await browser.newPage();
await page.exposeFunction('tell', ({ event, binary, text, ...details }) => {
  if (event !== 'message') return report(event, details);
  return reportMessage(binary === undefined ? text : Buffer.from(binary, 'base64'), binary !== undefined, details);
});
// A page from elsewhere may not connect to this machine.
const pages = createServer((_request, response) => response.end('<!doctype html>')).listen(0, '127.0.0.1');
await once(pages, 'listening');
await page.goto(`http://127.0.0.1:${pages.address().port}/`);
await page.evaluate(prepare);

// `do` in the page, one after the other in the order of the commands.
let last = Promise.resolve();
function inPage(does, ...details) {
  last = last.then(() => page.evaluate(([name, values]) => globalThis[name](...values), [does, details]));
}

takeCommands(
  {
    open: (url, { id, subprotocol }) => inPage('openSocket', url, id, subprotocol ?? null),
    send: (text) => inPage('sendText', text),
    send_size: (bytes) => inPage('sendText', textOf(bytes)),
    send_binary: (base64) => inPage('sendBinary', base64),
    close: (code, { reason }) => inPage('closeSocket', code, reason ?? ''),
    // A page cannot be as rude as a reset.
    abort: () => inPage('closeSocket', null, ''),
  },
  () => browser.stop(),
);

function prepare() {
  let socket;
  globalThis.openSocket = (url, id, subprotocol) => {
    const opened = new WebSocket(url, subprotocol === null ? [] : [subprotocol]);
    opened.binaryType = 'arraybuffer';
    // The page is not told why a handshake failed.
    let isOpen = false;
    opened.onopen = () => {
      isOpen = true;
      globalThis.tell({ event: 'opened', id, subprotocol: opened.protocol || null });
    };
    opened.onmessage = ({ data }) => {
      const said = typeof data === 'string' ? { text: data } : { binary: base64Of(data) };
      globalThis.tell({ event: 'message', id, ...said });
    };
    opened.onclose = ({ code, reason, wasClean }) =>
      globalThis.tell(isOpen ? { event: 'closed', id, code, reason, clean: wasClean } : { event: 'failed', id });
    socket = opened;
  };
  globalThis.sendText = (text) => socket.send(text);
  globalThis.sendBinary = (base64) => socket.send(Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0)));
  globalThis.closeSocket = (code, reason) => (code === null ? socket.close() : socket.close(code, reason));

  function base64Of(buffer) {
    let text = '';
    for (const byte of new Uint8Array(buffer)) text += String.fromCharCode(byte);
    return btoa(text);
  }
}
