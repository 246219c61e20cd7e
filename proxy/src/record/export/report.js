"use strict";
// Everything that was recorded reaches the page as text: nothing of it is ever parsed as HTML.
const records = JSON.parse(document.getElementById("records").textContent);
const make = (tag, text, className) => {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = String(text);
  if (className) element.className = className;
  return element;
};
const ms = (micros) => (micros === null || micros === undefined ? "?" : (micros / 1000).toFixed(1) + " ms");
const bodyText = (body) => (typeof body === "string" ? body : "(" + body.base64.length + " characters of base64)\n" + body.base64);
const pretty = (text) => {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
};
const haystack = (record) =>
  [record.id, record.time, record.method, record.url, record.status, record.how, record.error,
    bodyText(record.request.body), bodyText(record.response.body)].join("\n").toLowerCase();

const report = document.getElementById("report");
const nav = make("nav");
const search = make("input");
search.type = "search";
search.placeholder = "Search heads and bodies";
search.setAttribute("aria-label", "Search");
const count = make("div", "", "dim");
const list = make("ol");
const detail = make("article");
nav.append(search, count, list);
report.append(nav, detail);

const section = (title) => detail.append(make("h2", title));
const headers = (fields) => {
  const table = make("table");
  for (const [name, value] of fields) {
    const row = make("tr");
    row.append(make("td", name, "dim"), make("td", value));
    table.append(row);
  }
  detail.append(table);
};
const timeline = (record) => {
  const chunks = record.response.chunks;
  if (chunks.length === 0) return;
  section("Chunks of the answer");
  const last = Math.max(record.ended || 0, chunks[chunks.length - 1][0], 1);
  const line = make("div", undefined, "line");
  const mark = (at, title, className) => {
    const tick = make("span", undefined, className);
    tick.style.left = (100 * at / last).toFixed(3) + "%";
    tick.title = title;
    line.append(tick);
  };
  if (record.answered !== null) mark(record.answered, "head of the answer, " + ms(record.answered), "head");
  const step = Math.ceil(chunks.length / 2000);
  chunks.forEach(([at, bytes], index) => { if (index % step === 0) mark(at, bytes + " bytes, " + ms(at)); });
  detail.append(line, make("div", chunks.length + " chunks in " + ms(last), "dim"));
};
const side = (name, part, websocket) => {
  section(name);
  headers(part.headers);
  for (const gap of part.missing) {
    detail.append(make("p", gap.missing.bytes + " bytes are missing behind byte " + gap.offset + " (" + gap.missing.why + ")", "bad"));
  }
  const text = bodyText(part.body);
  if (text && !websocket) detail.append(make("pre", pretty(text)));
  if (part.stopped) detail.append(make("p", "Not all of it: " + part.stopped, "bad"));
};
const message = (said) => {
  section("Message of " + (said.model || "?"));
  const facts = [];
  if (said.usage.input !== null) facts.push(said.usage.input + " tokens in");
  if (said.usage.output !== null) facts.push(said.usage.output + " tokens out");
  if (said.ttft_us !== null) facts.push("first token after " + ms(said.ttft_us));
  if (said.tokens_per_second !== null) facts.push(said.tokens_per_second.toFixed(1) + " tokens/s");
  if (said.stop) facts.push("ended by " + said.stop);
  detail.append(make("p", facts.join(", "), "dim"));
  for (const part of said.parts) {
    const [kind, content] = Object.entries(part)[0];
    if (kind === "tool_call") detail.append(make("pre", content.name + "(" + content.arguments + ")"));
    else detail.append(make("pre", kind === "text" ? content : "[" + kind + "]\n" + content));
  }
};
const show = (record) => {
  detail.replaceChildren();
  detail.append(make("h1", (record.method || "?") + " " + (record.url || "")));
  detail.append(make("p", [record.time, record.id, record.status, record.how || "unfinished", ms(record.ended)].join("  "), "dim"));
  if (record.error) detail.append(make("p", "error: " + record.error, "bad"));
  if (!record.whole) detail.append(make("p", "This record is not whole.", "bad"));
  timeline(record);
  if (record.message) message(record.message);
  side("Request", record.request, record.websocket);
  side("Answer", record.response, record.websocket);
  if (record.websocket) {
    section("Messages of the WebSocket");
    const table = make("table");
    for (const said of record.websocket.slice(0, 5000)) {
      const row = make("tr");
      const text = said.text !== undefined ? said.text : "(base64) " + said.base64;
      row.append(make("td", ms(said.at), "dim"), make("td", (said.side === "request" ? "\u2192 " : "\u2190 ") + said.kind), make("td", text));
      if (said.stopped) row.append(make("td", "Not all of it: " + said.stopped, "bad"));
      table.append(row);
    }
    detail.append(table);
  }
  if (record.events.length > 0) {
    section("Events");
    const table = make("table");
    for (const event of record.events.slice(0, 5000)) {
      const row = make("tr");
      row.append(make("td", ms(event.at), "dim"), make("td", event.event), make("td", event.data));
      table.append(row);
    }
    detail.append(table);
  }
};
const texts = records.map(haystack);
const draw = () => {
  const wanted = search.value.toLowerCase();
  const found = records.filter((_, index) => texts[index].includes(wanted));
  count.textContent = found.length + " of " + records.length;
  list.replaceChildren(...found.slice(0, 5000).map((record) => {
    const item = make("li");
    const button = make("button");
    const bad = !record.whole || record.status === null || record.status >= 500;
    button.append(make("span", record.status === null ? "-" : record.status, bad ? "status bad" : "status"));
    button.append(make("span", (record.method || "?") + " " + (record.url || "")));
    button.append(make("div", [record.time, ms(record.ended)].join("  "), "dim"));
    button.addEventListener("click", () => {
      for (const other of list.querySelectorAll("button")) other.removeAttribute("aria-current");
      button.setAttribute("aria-current", "true");
      show(record);
    });
    item.append(button);
    return item;
  }));
};
search.addEventListener("input", draw);
draw();
if (records.length > 0) show(records[0]);
document.title = "Underpass: " + records.length + " records";
