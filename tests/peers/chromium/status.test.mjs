// Headless Chromium with the page of the admin listener, while clients come and go: one visit, a test for each thing
// that an operator sees. The last tests take the gateway away.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client, refusal } from '../node/client.mjs';
import { endAll, startGatewayWithPage } from '../node/gateway.mjs';
import { keepPicture, startBrowser } from './browser.mjs';

const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 390, height: 844 };
const ODD_PATH = "=/&lt;img!src=x&amp;onerror=alert(1)&gt;'~$*+,;:@%3Cb%3E/";
const MARKUP = '<img src="x" onerror="hit=1"><script>hit=1</script>';

describe('an operator visits the page of the admin listener', { concurrency: false }, () => {
  let gateway;
  let browser;
  let page;
  const clients = [];
  const requested = [];
  const errors = [];

  before(async () => {
    gateway = await startGatewayWithPage();
    for (const path of ['/ws', '/ws', '/telemetry', '/telemetry']) clients.push(await Client.open(gateway.url(path)));
    clients.push(await Client.open(gateway.url('/devices'), { protocolVersion: 8 }));
    await talk(clients[0]);
    assert.equal((await refusal(gateway.url('/ws'), { protocolVersion: 8 })).status, 426);
    assert.equal((await refusal(gateway.url('/nowhere'))).status, 404);

    browser = await startBrowser({ viewport: DESKTOP });
    page = await browser.newPage();
    page.on('request', (request) => requested.push(request.url()));
    page.on('pageerror', (error) => errors.push(`${error}`));
    page.on('console', (message) => ['error', 'warning'].includes(message.type()) && errors.push(message.text()));
    await page.goto(gateway.page);
  });

  after(async () => {
    await browser?.stop();
    await (gateway?.ending ?? gateway?.stop());
    endAll();
  });

  const table = (name) => page.getByRole('table', { name });
  const row = (name, head) => table(name).getByRole('row').filter({ has: page.getByRole('rowheader', { name: head }) });
  // The cell of a row below a heading.
  const cell = async (name, head, heading) => {
    const headings = await table(name).getByRole('columnheader').allTextContents();
    assert.ok(headings.includes(heading), `${heading} in ${headings}`);
    return row(name, head).locator('th, td').nth(headings.indexOf(heading));
  };
  const shows = async (name, head, heading, text) =>
    (await cell(name, head, heading)).filter({ hasText: text }).first().waitFor();

  test('it says that the gateway is ready', async () => {
    await page.locator('#phase', { hasText: /^ready$/ }).waitFor();
    assert.equal(await page.title(), 'wsgate');
  });

  test('every route has its versions, accepted, refused or let through, with their counts', async () => {
    await shows('Versions asked for', 'chat', '13', /^2accepted/);
    await shows('Versions asked for', 'chat', '8', /^1refused/);
    await shows('Versions asked for', 'devices', '13', /^0accepted/);
    await shows('Versions asked for', 'devices', '8', /^1let through/);
    await shows('Versions asked for', 'telemetry', '13', /^2accepted/);
    await shows('Versions asked for', 'telemetry', '8', /^0accepted/);
    await shows('Versions asked for', 'no route', '13', /^1refused/);
    await shows('Routes', 'chat', 'Accepts', /^13$/);
    await shows('Routes', 'telemetry', 'Accepts', /^13, 8$/);
    await shows('Routes', 'devices', 'Accepts', 'observe');
    await shows('Routes', 'chat', 'Tunnels', /^2of 1,000$/);
  });

  test('every refusal has its route, reason and count', async () => {
    await shows('Refusals', 'chat', 'Reason', 'version-unsupported');
    await shows('Refusals', 'chat', 'Count', /^1$/);
    await shows('Refusals', 'no route', 'Reason', 'no-route');
    await shows('Refusals', 'devices', 'Outcome', 'let through');
  });

  test('a backend that is down stands out, with why', async () => {
    await page.locator('#notices', { hasText: 'Down in upstream half: 127.0.0.1:1 (1 of 2 still up).' }).waitFor();
    const down = table('Upstreams').getByRole('row').filter({ hasText: '127.0.0.1:1' }).filter({ hasText: 'down' });
    await down.filter({ hasText: 'backend-unavailable 1' }).waitFor();
    await page.locator('#backends', { hasText: '2 of 3' }).waitFor();
  });

  test('new requests are counted without a reload, and their rate is shown', async () => {
    let asking = true;
    const storm = (async () => {
      while (asking) await refusal(gateway.url('/ws'), { protocolVersion: 8 });
    })();
    await shows('Versions asked for', 'chat', '8', /refused[\d,.]+\/s$/);
    await page.locator('#refused', { hasText: /^[1-9][\d,.]*\/s$/ }).waitFor();
    asking = false;
    await storm;
  });

  test('the odd names of the configuration are shown as they are', async () => {
    const odd = row('Routes', 'odd-name');
    await odd.filter({ hasText: ODD_PATH }).waitFor();
    await odd.filter({ hasText: 'xn--a-name' }).waitFor();
    assert.deepEqual(await foreignElements(page), []);
  });

  for (const [name, size] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
    test(`it is no wider than the screen: ${name}`, async () => {
      await page.setViewportSize(size);
      for (const colorScheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme });
        await keepPicture(page, `status-${name}-${colorScheme}.png`);
      }
      await isNotTooWide(page);
      // The narrow layout takes nothing from who listens to it.
      await shows('Versions asked for', 'chat', '13', /accepted/);
      await shows('Upstreams', 'half', 'State', 'up');
      await page.setViewportSize(DESKTOP);
    });
  }

  test('an answer full of markup and endless words stays text', async () => {
    const hostile = await browser.newPage();
    await hostile.route('**/status', async (route) => {
      const answer = await route.fetch();
      await route.fulfill({ response: answer, json: withEveryText(await answer.json(), MARKUP + 'x'.repeat(300)) });
    });
    await hostile.goto(gateway.page);
    await hostile.getByRole('table', { name: 'Routes' }).getByText(MARKUP).first().waitFor();
    assert.deepEqual(await foreignElements(hostile), []);
    assert.equal(await hostile.evaluate(() => typeof globalThis.hit), 'undefined');
    for (const size of [DESKTOP, PHONE]) {
      await hostile.setViewportSize(size);
      await isNotTooWide(hostile);
    }
    await hostile.unrouteAll({ behavior: 'wait' });
    await hostile.close();
  });

  test('a failed reload stands out', async () => {
    const reloaded = await browser.newPage();
    await reloaded.route('**/status', async (route) => {
      const answer = await route.fetch();
      const status = await answer.json();
      assert.equal(status.reload.last_successful, true);
      status.reload.last_successful = false;
      await route.fulfill({ response: answer, json: status });
    });
    await reloaded.goto(gateway.page);
    const notice = /^The last reload failed; .* UTC is still in force\.$/;
    await reloaded.locator('#notices li.bad', { hasText: notice }).waitFor();
    await reloaded.unrouteAll({ behavior: 'wait' });
    await reloaded.close();
  });

  test('without script it points to the figures', async () => {
    const plain = await startBrowser({ viewport: PHONE, javaScriptEnabled: false });
    const still = await plain.newPage();
    await still.goto(gateway.page);
    await still.locator('noscript p').waitFor();
    for (const path of ['status', 'metrics']) {
      await still.locator(`noscript a[href="${path}"]`).waitFor();
    }
    assert.equal(await still.locator('main').isVisible(), false);
    await plain.stop();
  });

  test('it asks nobody but its own listener and has no error', () => {
    assert.ok(requested.some((url) => url === `${gateway.page}status`));
    assert.deepEqual(requested.filter((url) => !url.startsWith(gateway.page) && !url.startsWith('data:')), []);
    assert.deepEqual(errors, []);
  });

  test('a drain stands out', async () => {
    gateway.ending = gateway.stop();
    await page.locator('#phase', { hasText: /^draining$/ }).waitFor();
    const notice = /^Draining, with 5 tunnels or requests open\. .* 16 s after the signal is cut\.$/;
    await page.locator('#notices li', { hasText: notice }).waitFor();
    assert.equal(await page.title(), 'draining – wsgate');
    await keepPicture(page, 'status-draining.png');
  });

  test('a gateway that is gone stands out, and the age of what is shown', async () => {
    for (const client of clients) client.socket.close();
    assert.equal(await gateway.ending, 0, 'the gateway drains and exits with 0');
    await page.locator('#phase', { hasText: /^no answer$/ }).waitFor();
    await page.locator('#notices li.bad', { hasText: 'The gateway does not answer.' }).waitFor();
    await page.locator('#age.old', { hasText: /^figures are \d+ s old$/ }).waitFor();
    await table('Routes').getByText('chat').first().waitFor();
    await page.setViewportSize(PHONE);
    await keepPicture(page, 'status-gone.png');
    await isNotTooWide(page);
  });
});

async function talk(client) {
  client.socket.send('x'.repeat(5_000));
  await client.next();
}

async function isNotTooWide(page) {
  const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(content <= window, `${content} of ${window} pixels`);
}

// What the page is not made of.
function foreignElements(page) {
  return page.evaluate(() => {
    const own = 'section h2 div p ul li dl dt dd table thead tbody tr th td span'.split(' ');
    const all = document.querySelectorAll('main *, #notices *, header *');
    return [...all].map((element) => element.localName).filter((name) => ![...own, 'h1'].includes(name));
  });
}

// The same value, with this text in the place of every other and as the key of every count.
function withEveryText(value, text) {
  if (typeof value === 'string') return text;
  if (Array.isArray(value)) return value.map((item) => withEveryText(item, text));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([key, item]) => [key, withEveryText(item, text)]);
  const isCounts = entries.length > 0 && entries.every(([key, item]) => typeof item === 'number' && !key.includes('_'));
  return isCounts ? { [text]: 1 } : Object.fromEntries(entries);
}
