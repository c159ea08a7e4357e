// Asks /status every two seconds and shows the answer. It changes nothing at the gateway. What it shows are names that
// others chose, so everything goes in as text, never as markup.
"use strict";

const POLL_MS = 2_000;
const ANSWER_MS = 5_000;
// An answer older than this is called old, whatever the next one waits for.
const OLD_MS = 6_000;
const VERSIONS = ["13", "8", "7", "0", "hixie-75", "other", "missing", "malformed"];
const NUMBER = new Intl.NumberFormat("en");

// The newest answer and the one before it, as { status, routes, at }; no `before` where the two cannot be compared.
let now, before;
let failed = false;

async function ask() {
  try {
    const answer = await fetch("status", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    return answer.ok ? await answer.json() : undefined;
  } catch {
    return undefined;
  }
}

async function poll() {
  const status = await ask();
  failed = status === undefined;
  if (!failed) {
    // After a restart the counts begin anew.
    before = now && status.uptime_seconds >= now.status.uptime_seconds ? now : undefined;
    now = { status, routes: new Map(all(status).map((route) => [route.name, route])), at: performance.now() };
    for (const show of [showFigures, showVersions, showRoutes, showRefusals, showUpstreams, showRest]) show(status);
    place("main").hidden = false;
  }
  showState();
  setTimeout(poll, POLL_MS);
}

// Phase, age and notices, which change even when no answer comes.
function showState() {
  const age_ms = now ? performance.now() - now.at : 0;
  const isOld = failed || age_ms > OLD_MS;
  const phase = isOld ? "no answer" : now?.status.phase ?? "asking";
  place("phase").className = isOld ? "gone" : phase;
  put("phase", text(phase));
  place("age").className = isOld ? "old" : "";
  put("age", text(isOld && now ? `figures are ${duration(Math.floor(age_ms / 1000))} old` : ""));
  document.title = phase === "ready" ? "wsgate" : `${phase} – wsgate`;
  const notices = now ? noticesOf(now.status) : [];
  if (isOld) notices.unshift(["bad", "The gateway does not answer."]);
  const list = place("notices");
  notices.forEach(([kind, line], index) => {
    const item = list.children[index] ?? list.appendChild(document.createElement("li"));
    item.className = kind;
    fill(item, text(line));
  });
  while (list.children.length > notices.length) list.lastChild.remove();
}

function noticesOf({ drain, reload, shared_limits, upstreams }) {
  const notices = [];
  if (drain.draining) {
    const end = duration(drain.delay_seconds + drain.timeout_seconds);
    const open = `${count(drain.remaining)} tunnels or requests open`;
    notices.push(["warn", `Draining, with ${open}. What is still open ${end} after the signal is cut.`]);
  }
  if (shared_limits === "down") notices.push(["bad", "Limits per client are not shared: Redis is of no use."]);
  if (!reload.last_successful) {
    const since = time(reload.last_success_time);
    notices.push(["bad", `The last reload failed; the log says why. The configuration of ${since} is still in force.`]);
  }
  for (const { name, servers } of upstreams) {
    const down = servers.filter((server) => !server.up).map((server) => server.address);
    if (down.length === 0) continue;
    const up = servers.length - down.length;
    const rest = up > 0 ? `${up} of ${servers.length} still up` : "none is up";
    notices.push([up > 0 ? "warn" : "bad", `Down in upstream ${name}: ${down.join(", ")} (${rest}).`]);
  }
  return notices;
}

function showFigures(status) {
  const servers = status.upstreams.flatMap((upstream) => upstream.servers);
  const up = servers.filter((server) => server.up).length;
  put("process", text(`${status.version}, up for ${duration(status.uptime_seconds)}`));
  put("tunnels", text(count(status.tunnels)));
  put("backends", text([`${up} of ${servers.length}`, up < servers.length ? "bad" : ""]));
  for (const [id, field] of [["asked", "asked"], ["refused", "refusals"]]) {
    const sum = (status) => all(status).reduce((sum, route) => sum + total(route[field]), 0);
    put(id, text(rate(sum(status), before && sum(before.status)) || "0/s"));
    put(`${id}-all`, text(`${count(sum(status))} in all`));
  }
}

function showVersions(status) {
  const routes = all(status).filter((route) => route.upstream || total(route.asked) > 0);
  const serves = (route, version) => route.accept?.some((accepted) => String(accepted) === version);
  const columns = VERSIONS.filter((version) => routes.some((route) => serves(route, version) || route.asked[version]));
  const cell = (route, version) => {
    const asked = route.asked[version] ?? 0;
    if (!asked && !serves(route, version)) return number(NOTHING);
    const [fate, kind] = serves(route, version) ? ["accepted", "good"]
      : route.mode === "observe" ? ["let through", "warn"] : ["refused", "bad"];
    const speed = rate(asked, earlier(route)?.asked[version]);
    return number(count(asked), [fate, `small ${kind}`], [speed, "small"]);
  };
  const rows = routes.map((route) => [text(route.name), ...columns.map((version) => cell(route, version))]);
  table("versions", [text("Route"), ...columns.map((version) => number(version))], rows);
}

function showRoutes({ routes }) {
  const heads = [text("Route"), text("Accepts"), text("Upstream"), number("Tunnels"), number("To backend"),
    number("To client"), text("Ended by")];
  const bytes = (route, direction) => {
    const speed = rate(route.bytes[direction], earlier(route)?.bytes[direction], size);
    return number(size(route.bytes[direction]), [speed, "small"]);
  };
  table("routes", heads, routes.map((route) => [
    text(route.name, [`${route.hosts.join(", ") || "any host"} · ${route.paths.join(", ")}`, "small"],
      [`on ${route.listeners.join(", ")}`, "small"]),
    text(route.accept.join(", "),
      [route.mode === "observe" ? "observe: others pass" : "", "small warn"]),
    text(route.upstream, [`plain HTTP: ${route.plain_http}`, "small"]),
    limited(route.tunnels, route.max_tunnels),
    bytes(route, "to_backend"),
    bytes(route, "to_client"),
    list(route.closes),
  ]));
}

function showRefusals(status) {
  const rowsOf = (route, field, fate) => descending(route[field] ?? {}).map(([reason, times]) => {
    const speed = rate(times, earlier(route)?.[field][reason]);
    return [text(route.name), text(reason), text(fate), number(count(times)), number(speed || NOTHING)];
  });
  const rows = all(status).flatMap((route) =>
    [...rowsOf(route, "refusals", ["refused", "bad"]), ...rowsOf(route, "would_refuse", ["let through", "warn"])]);
  place("no-refusals").hidden = rows.length > 0;
  place("refusals").parentElement.hidden = rows.length === 0;
  table("refusals", [text("Route"), text("Reason"), text("Outcome"), number("Count"), number("Rate")], rows);
}

function showUpstreams({ upstreams }) {
  const heads = [text("Upstream"), text("Server"), text("State"), number("Tunnels"), number("Weight"),
    text("Failures")];
  table("upstreams", heads, upstreams.flatMap(({ name, versions, panic, servers }) => servers.map((server) => [
    text(name, [`speaks ${Array.isArray(versions) ? versions.join(", ") : "what it says when asked"}`, "small"]),
    text([server.address, "address"], [server.versions ? `said ${server.versions.join(", ")}` : "", "small"]),
    text(server.up ? ["up", "good strong"] : ["down", "bad strong"], [server.draining ? "draining" : "", "small warn"],
      [panic ? "used all the same" : "", "small warn"]),
    limited(server.tunnels, server.max_tunnels),
    number(count(server.weight)),
    list(server.failures),
  ])));
}

function showRest({ listeners, reload, drain, version, revision }) {
  table("listeners", [text("Listener"), text("Address"), number("Connections")], listeners.map((listener) =>
    [text(listener.name), text([listener.listen, "address"]),
      limited(listener.connections, listener.max_connections)]));
  const outcome = reload.last_successful ? "" : "; a later one was refused";
  put("reload", text(`in force since ${time(reload.last_success_time)}${outcome}`));
  const [delay, spread, timeout] = [drain.delay_seconds, drain.spread_seconds, drain.timeout_seconds].map(duration);
  put("drain", text(`delay ${delay}, spread ${spread}, timeout ${timeout}`));
  put("build", text(`wsgate ${version}, revision ${revision}`));
}

const all = ({ routes, unrouted }) => [...routes, { name: "no route", ...unrouted }];
const earlier = (route) => before?.routes.get(route.name);
const total = (counts) => Object.values(counts).reduce((sum, one) => sum + one, 0);
const descending = (counts) => Object.entries(counts).filter(([, one]) => one > 0).sort(([, a], [, b]) => b - a);
const count = (value) => NUMBER.format(value);
const time = (seconds) => new Date(seconds * 1000).toISOString().replace("T", " ").replace(".000Z", " UTC");

// How fast a count grew between the last two answers; empty where it did not, or where nobody knows.
function rate(value, earlierValue = 0, format = (speed) => (speed < 10 ? speed.toFixed(1) : count(Math.round(speed)))) {
  if (!before || value <= earlierValue) return "";
  return `${format((value - earlierValue) / ((now.at - before.at) / 1000))}/s`;
}

function size(bytes) {
  const step = Math.min(4, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  const value = bytes / 1024 ** step;
  const digits = step > 0 && value < 10 ? value.toFixed(1) : count(Math.round(value));
  return `${digits} ${["B", "KiB", "MiB", "GiB", "TiB"][step]}`;
}

// In its two greatest units.
function duration(seconds) {
  if (seconds < 60) return `${Number(seconds.toFixed(3))} s`;
  const [d, h, min, s] = [seconds / 86_400, (seconds / 3_600) % 24, (seconds / 60) % 60, seconds % 60].map(Math.floor);
  if (d) return h ? `${d} d ${h} h` : `${d} d`;
  if (h) return min ? `${h} h ${min} min` : `${h} h`;
  return s ? `${min} min ${s} s` : `${min} min`;
}

const place = (id) => document.getElementById(id);
const put = (id, cell) => fill(place(id), cell);

// A cell is a list of parts; a part is a text, or a text and its class.
const text = (...parts) => ({ parts });
const number = (...parts) => ({ parts, kind: "number" });
const NOTHING = ["–", "nothing"];
const limited = (value, limit) => number(count(value), [limit === null ? "" : `of ${count(limit)}`, "small"]);
const listed = (counts) => descending(counts).map(([name, one]) => [`${name} ${count(one)}`, "line"]);
const list = (counts) => (total(counts) > 0 ? text(...listed(counts)) : text(NOTHING));

// Rows and cells get their roles here because the narrow layout takes from them what a browser knows a table by.
function table(id, heads, rows) {
  const found = place(id);
  found.setAttribute("role", "table");
  found.setAttribute("aria-labelledby", `${id}-title`);
  fillRows(found.tHead ?? found.createTHead(), [heads], heads, () => ["th", "columnheader"]);
  const kindOf = (column) => (column === 0 ? ["th", "rowheader"] : ["td", "cell"]);
  fillRows(found.tBodies[0] ?? found.createTBody(), rows, heads, kindOf);
}

function fillRows(section, rows, heads, kindOf) {
  section.setAttribute("role", "rowgroup");
  rows.forEach((cells, index) => {
    const row = section.rows[index] ?? section.insertRow();
    row.setAttribute("role", "row");
    cells.forEach((cell, column) => {
      const [tag, role] = kindOf(column);
      const element = row.cells[column] ?? row.appendChild(document.createElement(tag));
      element.setAttribute("role", role);
      element.dataset.label = heads[column].parts[0];
      fill(element, cell);
    });
    while (row.cells.length > cells.length) row.lastChild.remove();
  });
  while (section.rows.length > rows.length) section.deleteRow(-1);
}

// What has not changed is left alone, so that a selection stays and nothing is read out twice.
function fill(element, { parts, kind }) {
  const shown = JSON.stringify(parts);
  if (element.shown === shown) return;
  element.shown = shown;
  if (kind) element.className = kind;
  const pairs = parts.map((part) => [part, ""].flat()).filter(([content]) => content !== "");
  element.replaceChildren(...pairs.map(([content, style]) =>
    Object.assign(document.createElement("span"), { textContent: content, className: style })));
}

showState();
setInterval(showState, 1_000);
poll();
