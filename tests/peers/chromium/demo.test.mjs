// Headless Chromium with the page of `wsgate demo`, doing what a person does: one visit, a test for each thing done.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { endAll, startDemo } from '../node/gateway.mjs';
import { keepPicture, startBrowser } from './browser.mjs';

describe('a person visits the demo page', { concurrency: false }, () => {
  let demo;
  let browser;
  let page;
  const requested = [];
  const errors = [];

  before(async () => {
    demo = await startDemo();
    browser = await startBrowser({ viewport: { width: 1000, height: 900 } });
    page = await browser.newPage();
    page.on('request', (request) => requested.push(request.url()));
    page.on('pageerror', (error) => errors.push(`${error}`));
    await page.goto(demo.page);
  });

  after(async () => {
    await browser?.stop();
    const exit = await demo?.stop();
    endAll();
    assert.equal(exit, 0, 'the demo drains and exits with 0');
  });

  test('the page says that its socket is open', async () => {
    await page.locator('#state', { hasText: /^\s*open\s*$/ }).waitFor();
  });

  test('a typed message is echoed', async () => {
    await page.locator('input#message').fill('hello, gateway');
    await page.locator('button#send').click();
    await page.locator('#log', { hasText: 'sent: hello, gateway' }).waitFor();
    await page.locator('#log', { hasText: 'echo: hello, gateway' }).waitFor();
  });

  test('a second message is echoed on the same socket', async () => {
    await page.locator('input#message').fill('grüße, 世界, 🦀');
    await page.locator('button#send').click();
    await page.locator('#log', { hasText: 'echo: grüße, 世界, 🦀' }).waitFor();
  });

  test('the page shows what a version-8 client gets', async () => {
    const button = page.locator('button#try-version-8');
    if ((await button.count()) > 0) await button.click();
    const answer = page.locator('pre#version-8', { hasText: 'HTTP/1.1 426' });
    await answer.waitFor();
    const head = await answer.textContent();
    assert.match(head, /^HTTP\/1\.1 426 /);
    assert.match(head, /^Sec-WebSocket-Version: 13\b/m);
    assert.match(head, /^Upgrade: websocket\r?$/im);
  });

  test('the page needs nothing from elsewhere and has no error', async () => {
    await keepPicture(page, 'demo.png');
    assert.ok(requested.length > 0);
    assert.deepEqual(requested.filter((url) => !url.startsWith(demo.page)), []);
    assert.deepEqual(errors, []);
  });

  test('the page is no wider than a phone', async () => {
    await page.setViewportSize({ width: 360, height: 740 });
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 360, `${width} pixels wide`);
  });

  test('its link leads to the metrics, where the refusal is counted', async () => {
    const link = page.locator('a#metrics');
    await link.evaluate((element) => element.removeAttribute('target'));
    await link.click();
    await page.waitForURL(demo.metrics);
    const metrics = await page.locator('body').innerText();
    assert.match(metrics, /^wsgate_refusals_total\{[^}]*reason="version-unsupported"[^}]*\} [1-9]/m);
  });
});
