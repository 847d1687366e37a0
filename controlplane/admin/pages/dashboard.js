// The dashboard: asks the API every two seconds, and hears events as they happen. All text is set as text, never as HTML.
"use strict";

const SHOWN = 200; // rows of routes: ten thousand would only slow the browser down
const $ = (id) => document.getElementById(id);
const last = { at: 0, requests: new Map(), rates: new Map() };
let documents = null;

function element(tag, text, kind) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (kind) e.className = kind;
  return e;
}

function row(...cells) {
  const tr = element("tr");
  for (const c of cells) tr.append(c instanceof Node ? c : element("td", c));
  return tr;
}

const count = (n) => element("td", Number(n).toLocaleString("en"), "n");
const rate = (n) => (n < 0.05 ? "0" : n < 10 ? n.toFixed(1) : Math.round(n).toLocaleString("en"));
const time = (at) => new Date(at).toLocaleTimeString([], { hour12: false });

function word(text, kinds, title) {
  const td = element("td");
  const span = element("span", text.replace("_", " "), kinds[text] || "quiet");
  if (title) span.title = title;
  td.append(span);
  return td;
}

const HEALTH = { up: "good", down: "bad" };
const BREAKER = { closed: "good", open: "bad", half_open: "warn" };
const STATE = { in_sync: "good", refused: "bad", pending: "warn" };

function takeRates(routes) {
  const now = performance.now() / 1000;
  for (const r of routes) {
    const before = last.requests.get(r.name);
    if (before !== undefined && now > last.at) last.rates.set(r.name, (r.requests_total - before) / (now - last.at));
    last.requests.set(r.name, r.requests_total);
  }
  last.at = now;
}

function showRoutes() {
  const { routes, backends } = documents;
  const wanted = $("filter").value.trim().toLowerCase();
  const byName = new Map(backends.routes.map((r) => [r.name, r.backends.flatMap((b) => b.endpoints)]));
  const rows = [];
  let hidden = 0;
  for (const r of routes.routes) {
    const endpoints = byName.get(r.name) || [];
    const text = [r.name, r.host, r.path_prefix, ...endpoints.map((e) => e.address)].join(" ").toLowerCase();
    if (!text.includes(wanted)) continue;
    if (rows.length >= SHOWN) { hidden++; continue; }
    const match = `${r.methods.length ? r.methods.join(",") + " " : ""}${r.host}${r.path_prefix}`;
    const none = { address: "none", health: "down", breaker: "closed", active: 0, failures: 0, reason: "no address" };
    (endpoints.length ? endpoints : [none]).forEach((e, i) => {
      const health = e.draining ? "draining" : e.health;
      rows.push(row(i ? "" : r.name, i ? "" : match, i ? "" : count(r.requests_total),
        element("td", i ? "" : rate(last.rates.get(r.name) || 0), "n"), e.address,
        word(health, { ...HEALTH, draining: "warn" }, e.reason), word(e.breaker, BREAKER, e.breaker_cause),
        count(e.active), count(e.failures)));
    });
  }
  $("routes").replaceChildren(...rows);
  $("routes-more").textContent = hidden ? `${hidden} more: type to find them` : "";
}

function showLimits(limits) {
  $("limits").replaceChildren(...limits.limits.map((l) => {
    const size = l.algorithm === "token_bucket" ? `${l.rate}/s, burst ${l.burst}` : `${l.rate}/s over ${l.window_seconds} s`;
    let allowed = 0, limited = 0; // words that end in "allowed" let pass, with Redis or without
    for (const [decision, n] of Object.entries(l.decisions)) decision.endsWith("allowed") ? (allowed += n) : (limited += n);
    return row(l.route, size + (l.mode === "observe" ? " (observed)" : ""), l.key_by + (l.redis ? ", Redis" : ""),
      count(allowed), count(limited));
  }));
}

function showPlanes(planes) {
  $("dataplanes").replaceChildren(...planes.map((p) => row(p.name, p.version, count(p.generation), word(p.state, STATE, p.reason),
    count(p.active_connections), element("td", `${(p.rss_bytes / 1048576).toFixed(1)} MiB`, "n"))));
}

function badge(id, text, kind) {
  $(id).textContent = text;
  $(id).className = `badge ${kind}`;
}

function showStatus(status, ready) {
  const { config, health, dataplanes } = status;
  badge("state", ready.status, ready.status === "ready" ? (ready.warnings.length ? "warn" : "good") : "bad");
  $("state").title = [...ready.reasons, ...ready.warnings].join("\n");
  $("summary").textContent = `generation ${config.generation} from ${config.source}, ${config.routes} routes` +
    (config.last_reload.ok ? "" : `; the last change was refused: ${config.last_reload.message}`);
  let all = 0, perSecond = 0, connections = 0;
  for (const n of last.requests.values()) all += n;
  for (const n of last.rates.values()) perSecond += n;
  for (const p of dataplanes) connections += p.active_connections;
  const tiles = [[rate(perSecond), "requests per second"], [all.toLocaleString("en"), "requests"], [connections, "client connections"],
    [`${health.up} / ${health.up + health.down + health.unknown}`, "targets healthy"], [health.routes_without_backend, "routes without backend"],
    [dataplanes.length, "data planes"]];
  $("numbers").replaceChildren(...tiles.map(([value, label]) => {
    const div = element("div");
    div.append(element("b", value), element("span", label));
    return div;
  }));
  showPlanes(dataplanes);
}

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  return answer.json();
}

async function refresh() {
  const began = performance.now();
  try {
    const [status, ready, routes, backends, limits] = await Promise.all(
      ["api/v1/status", "readyz", "api/v1/routes", "api/v1/backends", "api/v1/limits"].map(ask));
    documents = { routes, backends };
    takeRates(routes.routes);
    showStatus(status, ready);
    showRoutes();
    showLimits(limits);
  } catch (problem) {
    badge("state", "control plane not reachable", "bad");
    $("state").title = String(problem);
  }
  setTimeout(refresh, Math.max(2000, 5 * (performance.now() - began))); // thousands of routes are asked for less often
}

function listen() {
  const source = new EventSource("api/v1/events?stream=1");
  const add = (e) => {
    const event = JSON.parse(e.data);
    const li = element("li");
    li.append(element("time", time(event.at)), element("span", event.kind, { warn: "warn", error: "bad" }[event.level] || "quiet"),
      " ", event.message);
    $("events").prepend(li);
    while ($("events").childElementCount > 100) $("events").lastElementChild.remove();
  };
  for (const kind of ["breaker", "health", "config", "session", "order", "system"]) source.addEventListener(kind, add);
  source.onopen = () => badge("live", "live", "good");
  source.onerror = () => badge("live", "not connected", "warn");
}

$("filter").addEventListener("input", () => documents && showRoutes());
refresh();
listen();
