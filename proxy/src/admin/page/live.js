// The live page: asks for /metrics, /tunnels and /certificates once a second and shows them.
// Whatever comes from outside becomes text by textContent; nothing is parsed as HTML.
"use strict";

const PERIOD_MS = 1000;
const byId = (id) => document.getElementById(id);

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// OpenMetrics text -> { name: [{ labels: { … }, value }] }
function parseMetrics(text) {
  const all = Object.create(null);
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([^ ]+)$/.exec(line);
    if (!match) continue;
    const labels = Object.create(null);
    for (const [, key, value] of (match[2] || "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[key] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    }
    (all[match[1]] ||= []).push({ labels, value: Number(match[3]) });
  }
  return all;
}

function sum(metrics, name, label, wanted) {
  const series = metrics[name] || [];
  return series.reduce((total, one) =>
    label && one.labels[label] !== wanted ? total : total + one.value, 0);
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) { count /= 1000; unit += 1; }
  return `${unit && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

const count = (number) => Math.round(number).toLocaleString("en");

let before = null;

// Change per second of a sum since the last answer.
function rate(now, total) {
  if (!before) return 0;
  const seconds = (now.at - before.at) / 1000;
  return seconds > 0 ? Math.max(0, (total(now.metrics) - total(before.metrics)) / seconds) : 0;
}

function showFigures(now) {
  const m = now.metrics;
  const requests = (metrics) => sum(metrics, "underpass_requests_total");
  const down = (metrics) =>
    sum(metrics, "underpass_response_body_bytes_total") +
    sum(metrics, "underpass_tunnel_bytes_total", "direction", "down");
  const up = (metrics) =>
    sum(metrics, "underpass_request_body_bytes_total") +
    sum(metrics, "underpass_tunnel_bytes_total", "direction", "up");
  const cpu = (metrics) => sum(metrics, "process_cpu_seconds_total");
  const figures = [
    ["requests per second", count(rate(now, requests))],
    ["requests", count(requests(m))],
    ["answers 5xx", count(sum(m, "underpass_requests_total", "status", "5xx"))],
    ["client connections", count(sum(m, "underpass_connections_open"))],
    ["tunnels open", count(sum(m, "underpass_tunnels_open"))],
    ["to clients, per second", bytes(rate(now, down))],
    ["from clients, per second", bytes(rate(now, up))],
    ["resident memory", bytes(sum(m, "process_resident_memory_bytes"))],
    ["CPU", `${(100 * rate(now, cpu)).toFixed(0)} %`],
    ["open descriptors", count(sum(m, "process_open_fds"))],
  ];
  byId("figures").replaceChildren(...figures.map(([name, value]) => {
    const card = element("div", undefined, "figure");
    card.append(element("b", value), element("span", name));
    return card;
  }));
  const info = (m.underpass_build_info || [])[0];
  if (info) byId("version").textContent = info.labels.version;

  const errors = (m.underpass_errors_total || []).filter((one) => one.value > 0);
  byId("errors-section").hidden = errors.length === 0;
  byId("errors").replaceChildren(...errors.map((one) => {
    const row = element("div");
    row.append(element("span", one.labels.kind), element("b", count(one.value)));
    return row;
  }));
}

function cell(name, value) {
  if (value === null || value === undefined) return "–";
  if (Array.isArray(value)) return value.join(", ");
  if (typeof value === "object" && "to_upstream" in value) {
    return `↑ ${cell(name, value.to_upstream)}  ↓ ${cell(name, value.to_downstream)}`;
  }
  if (typeof value === "object" && "name" in value) {
    const engine = value.name.replaceAll("_", " ");
    return value.reason ? `${engine} (${value.reason})` : engine;
  }
  if (name === "started") return new Date(value * 1000).toLocaleTimeString();
  if (name === "idle_seconds") return `${value.toFixed(1)} s`;
  if (typeof value === "object") {
    return Object.entries(value).map(([key, inner]) => `${key} ${cell(name, inner)}`).join(", ");
  }
  if (name === "bytes_per_second") return `${bytes(value)}/s`;
  if (typeof value === "number" && name.includes("bytes")) return bytes(value);
  return String(value);
}

async function end(id, button) {
  button.disabled = true;
  await fetch(`tunnels/${encodeURIComponent(id)}`, { method: "DELETE" });
}

// Rows stay the same elements as long as their tunnel lives, so that a click or the
// focus of the keyboard is not lost to the next refresh.
const rows = new Map();
const MAX_ROWS = 500;

function rowOf(id, names) {
  let known = rows.get(id);
  if (!known) {
    const row = element("tr");
    const cells = names.map(() => element("td"));
    const button = element("button", "end");
    button.addEventListener("click", () => end(id, button));
    const last = element("td");
    last.append(button);
    row.append(...cells, last);
    known = { row, cells };
    rows.set(id, known);
  }
  return known;
}

// The columns are the fields of the tunnels, in the order they come in.
function showTunnels(tunnels) {
  byId("count").textContent = String(tunnels.length);
  byId("none").hidden = tunnels.length > 0;
  byId("tunnels").hidden = tunnels.length === 0;
  const names = tunnels.length ? Object.keys(tunnels[0]) : [];
  const head = element("tr");
  head.append(...names.map((name) => element("th", name.replaceAll("_", " "))), element("th"));
  byId("tunnels").tHead.replaceChildren(head);

  const shown = new Set(tunnels.slice(0, MAX_ROWS).map((tunnel) => tunnel.id));
  for (const [id, { row }] of rows) {
    if (!shown.has(id)) {
      row.remove();
      rows.delete(id);
    }
  }
  const body = byId("tunnels").tBodies[0];
  for (const tunnel of tunnels.slice(0, MAX_ROWS)) {
    const { row, cells } = rowOf(tunnel.id, names);
    cells.forEach((td, i) => { td.textContent = cell(names[i], tunnel[names[i]]); });
    if (!row.parentNode) body.append(row);
  }
}

const DAY_SECONDS = 86400;

function time(unix) {
  return new Date(unix * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

// When a certificate ends, and whether that is near or past.
function ends(certificate) {
  if (certificate.not_after === null) return ["none yet", "bad"];
  const days = Math.floor((certificate.not_after - Date.now() / 1000) / DAY_SECONDS);
  const left = days < 0 ? "over" : days === 1 ? "1 day" : `${days} days`;
  return [`${time(certificate.not_after)} (${left})`, days < 7 ? "bad" : ""];
}

// What becomes of an order, where it comes by ACME.
function order(acme) {
  if (!acme) return "from a file";
  if (acme.ordering) return "under way";
  if (acme.retry_at) return `again ${time(acme.retry_at)}, ${acme.failures} failed`;
  return acme.renew_at ? `renewed ${time(acme.renew_at)}` : "–";
}

function showCertificates(certificates) {
  byId("certificates-section").hidden = certificates.length === 0;
  byId("certificates").tBodies[0].replaceChildren(...certificates.map((one) => {
    const row = element("tr");
    const error = one.acme && one.acme.error;
    const last = element("td", error || "–", error ? "bad" : "");
    last.title = error || "";
    row.append(
      element("td", one.names.join(", ")), element("td", one.listener),
      element("td", ...ends(one)), element("td", order(one.acme)), last);
    return row;
  }));
}

function showState(text, className) {
  byId("state").textContent = text;
  byId("state").className = className;
}

async function refresh() {
  try {
    const [metrics, tunnels, certificates, ready] = await Promise.all([
      fetch("metrics"), fetch("tunnels"), fetch("certificates"), fetch("readyz"),
    ]);
    const now = { at: performance.now(), metrics: parseMetrics(await metrics.text()) };
    showFigures(now);
    showTunnels(await tunnels.json());
    showCertificates(await certificates.json());
    showState((await ready.text()).trim(), ready.ok ? "good" : "bad");
    before = now;
  } catch (error) {
    showState("no answer", "bad");
    before = null;
  }
  setTimeout(refresh, PERIOD_MS);
}

refresh();
