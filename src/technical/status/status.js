// Shows what status/events says.

const EVENTS = 100, FEW = 15, POLL = 5000, RETRY_STREAM = 3, QUIET = 8000;
const SERIES = ["per_second", "failed_per_second", "p50_seconds", "p99_seconds"];
const PHASES = {
  limit: "waiting for a free connection", resolve: "looking for its address", dial: "connecting",
  send: "sending the request", await: "waiting for the answer", receive: "reading the answer",
};
const CAUSES = {
  limit: "too many in use", unresolved: "no address is known", ejected: "ejected meanwhile", deadline: "took too long", closed: "closed by the backend",
  io: "refused or reset", invalid: "not HTTP", unsendable: "cannot be sent", stale: "pooled connection was dead, sent again",
};
const OUT = new Set(["maintenance", "unresolved", "ejected"]);
// What stands for a state beside its colour and its word.
const SHAPES = {
  healthy: "M6 0a6 6 0 1 1 0 12a6 6 0 1 1 0-12z",
  maintenance: "M1 1h4v10h-4zM7 1h4v10h-4z",
  unresolved: "M6 0l6 6l-6 6l-6-6z",
  ejected: "M2 0l4 4l4-4l2 2l-4 4l4 4l-2 2l-4-4l-4 4l-2-2l4-4l-4-4z",
  probation: "M6 0l6 11.5h-12z",
};

// ---- what is known ----

let status = null, history = null, configuration = "", events = [], missing = 0;
let paused = false, all = false, asked = false, heard = 0;

function push(series, now) {
  for (const name of SERIES) {
    series[name].push(now[name] === undefined ? null : now[name]);
    if (series[name].length > POINTS) series[name].shift();
  }
}

const empty = () => Object.fromEntries(SERIES.map((name) => [name, []]));

function onWhole(known) {
  ({ history, configuration, events } = known);
  missing = 0;
  status = known;
  show();
}

function onStatus(now) {
  if (!history) return;
  status = now;
  push(history.requests, now.last.requests);
  const before = history.backends;
  history.backends = {};
  for (const backend of now.backends) {
    const series = before[backend.url] || empty();
    push(series, now.last.backends[backend.url] || {});
    history.backends[backend.url] = series;
  }
  show();
}

function onEvent(event) {
  const newest = events.length ? events[0].number : 0;
  if (event.number <= newest) return;
  missing += event.number - newest - 1;
  events.unshift(event);
  if (events.length > EVENTS) events.pop();
  announce();
  show();
}

// Said to who does not see the page, and not more often than it can be listened to.
let unsaid = 0, saying = null;
function announce() {
  unsaid += 1;
  if (saying) return;
  saying = setTimeout(() => {
    put($("news"), `${unsaid} more since ${new Date().toISOString().slice(11, 19)}`);
    unsaid = 0;
    saying = null;
  }, 5000);
}

// ---- showing it ----

function show() {
  if (asked || paused || !status) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    if (paused) return;
    showProcess();
    showTiles();
    showAttention();
    showRegions();
    showJournal();
    showErrors();
    showEvents();
    put($("configuration"), visible(configuration).replaceAll("\u27e8U+000A\u27e9", "\n"));
    const { window_seconds: window, period_seconds: period } = status;
    put($("legend"), `Rates and percentiles are of the last ${window} seconds, sparklines of the last five minutes with a point each ${period} seconds, counts since the start; those of the journal are what it has, and its rates of the last minute. Times are UTC, as in the logs.`);
  });
}

function showProcess() {
  const { process } = status;
  const badge = $("serving");
  put(badge, process.draining ? "draining" : "serving");
  attribute(badge, "class", process.draining ? "badge probation" : "badge healthy");
  const facts = [
    ["version", process.version],
    ["up", lasting(process.uptime_seconds)],
    ["since", `${process.started.slice(0, 10)} ${clock(process.started)}`],
    ["process", process.pid],
  ];
  keyed($("process"), facts, (fact) => fact[0],
    (fact) => make("div", {}, make("dt", {}, fact[0]), make("dd")),
    (node, fact) => put(node.lastChild, fact[1]));
}

function showAttention() {
  const out = status.backends.filter((backend) => OUT.has(backend.state));
  const parts = [];
  if (status.process.draining) parts.push("This process is ending: it takes no new connections and finishes what is under way.");
  if (out.length) {
    const which = out.slice(0, 4).map((backend) => `${visible(backend.url)} (${backend.state})`).join(", ");
    const more = out.length > 4 ? ` and ${out.length - 4} more` : "";
    parts.push(`${out.length} of ${status.backends.length} backends ${out.length === 1 ? "gets" : "get"} no requests: ${which}${more}.`);
  }
  if (status.journal && !status.journal.available) {
    parts.push("The journal cannot be written to: writes with Consistency strong are refused, and what backends miss waits in memory.");
  }
  $("attention").hidden = parts.length === 0;
  put($("attention"), parts.join(" "));
}

function tile(what, kinds) {
  const node = make("li", { class: "tile" }, make("span", { class: "what" }, what), make("span", { class: "value" }), make("span", { class: "more" }));
  if (kinds) node.append(spark(kinds), make("span", { class: "peak" }));
  return node;
}

function showTiles() {
  const { requests, writes } = status;
  const past = history.requests;
  const tiles = [
    { what: "Requests", value: rate(requests.per_second), more: `${rate(requests.failed_per_second)} failed`,
      bad: requests.failed_per_second > 0, kinds: ["first", "bad"],
      plot: (svg) => rate(draw(svg, [past.per_second, failures(past.failed_per_second)], "Requests and failed ones", rate)) },
    { what: "Latency, p50", value: time(requests.p50_seconds), more: `p99 ${time(requests.p99_seconds)}`, kinds: ["first", "second"],
      plot: (svg) => time(draw(svg, [past.p50_seconds, past.p99_seconds], "Latency, p50 and p99", time)) },
    { what: "In flight", value: count(requests.in_flight), more: several(requests.connections, "connection") },
    { what: "Bodies received", value: `${bytes(requests.received_bytes_per_second)}/s`,
      more: `${bytes(requests.sent_bytes_per_second)}/s sent` },
    { what: "Background writes", value: count(writes.background_requests),
      more: `${bytes(writes.background_bytes)} to send, ${count(writes.unfinished)} unfinished` },
    { what: "Divergences", value: count(writes.divergences),
      more: several(writes.misplacements, "misplacement") + (status.journal ? "" : `, ${several(writes.missed, "object")} behind`) },
  ];
  keyed($("tiles"), tiles, (t) => t.what, (t) => tile(t.what, t.kinds), (node, t) => {
    put(node.children[1], t.value);
    put(node.children[2], t.more);
    attribute(node.children[2], "class", t.bad ? "more bad" : "more");
    if (t.plot) put(node.children[4], `peak ${t.plot(node.children[3])}`);
  });
}

// ---- regions, clusters, backends ----

const COLUMNS = [
  ["Backend", "left c-backend"], ["State", "left c-state"], ["In flight", ""], ["Requests", ""], ["p50", ""], ["p99", ""],
  ["Latency", "c-spark"], ["Failed", ""], ["Background", ""], ["Diverged", ""],
];

function showRegions() {
  const backends = new Map(status.backends.map((backend) => [backend.url, backend]));
  keyed($("regions"), status.regions, (region) => region.name, createRegion, (node, region) => {
    const hosts = [...region.domains, ...(region.default ? ["every other Host"] : [])];
    put(node.hosts, hosts.map(visible).join(", "));
    keyed(node.table, region.clusters, (cluster) => cluster.name, createCluster, (body, cluster) => {
      put(body.weight, `weight ${cluster.weight}`);
      put(body.share, `${percent(cluster.share)} of the ring`);
      body.bar.style.width = `${(cluster.share * 100).toFixed(2)}%`;
      const rows = cluster.backends.map((url) => backends.get(url)).filter((backend) => backend);
      keyed(body.backends, rows, (backend) => backend.url, createBackend, showBackend);
    });
  });
}

function createRegion(region) {
  const head = make("tr", { role: "row" }, ...COLUMNS.map(([name, kind]) => make("th", { scope: "col", class: kind, role: "columnheader" }, name)));
  const table = make("table", { role: "table" }, make("caption", { class: "unseen" }, foreign(`Backends of region ${region.name}`)));
  table.append(make("thead", { role: "rowgroup" }, head));
  const hosts = make("span", { class: "hosts any" });
  const node = make("section", {}, make("h2", {}, "Region ", foreign(region.name), " ", hosts), make("div", { class: "region" }, table));
  // What is kept in order is what comes behind the head.
  node.hosts = hosts;
  node.table = bodies(table);
  return node;
}

// A table as a parent of its bodies only.
function bodies(table) {
  return {
    get firstChild() { return table.tBodies[0] || null; },
    insertBefore: (node, place) => table.insertBefore(node, place),
  };
}

function createCluster(cluster) {
  const bar = make("span");
  const weight = make("span", { class: "soft" }), share = make("span", { class: "soft" });
  const line = make("div", { class: "cluster-line" }, make("span", {}, "Cluster ", make("b", {}, foreign(cluster.name))), weight,
    make("span", { class: "share" }, make("span", { class: "track", "aria-hidden": "true" }, bar), share));
  const head = make("tr", { class: "cluster", role: "row" }, make("th", { scope: "rowgroup", colspan: COLUMNS.length, role: "rowheader" }, line));
  const body = make("tbody", { role: "rowgroup" }, head);
  Object.assign(body, { weight, share, bar });
  body.backends = {
    get firstChild() { return head.nextSibling; },
    insertBefore: (node, place) => body.insertBefore(node, place),
  };
  return body;
}

function createBackend(backend) {
  const row = make("tr", { role: "row", "data-backend": backend.url }, make("th", { scope: "row", class: "left mono url", role: "rowheader" }, foreign(backend.url)));
  for (const [name, kind] of COLUMNS.slice(1)) row.append(make("td", { class: kind, "data-label": name, role: "cell" }));
  const shape = document.createElementNS(SVG, "svg");
  shape.setAttribute("viewBox", "0 0 12 12");
  shape.setAttribute("aria-hidden", "true");
  shape.append(document.createElementNS(SVG, "path"));
  row.state = make("span", { class: "state" }, shape, make("span"));
  row.why = make("span", { class: "why any" });
  row.children[1].append(row.state, row.why);
  row.plot = spark(["first", "second"]);
  row.children[6].append(row.plot);
  return row;
}

function showBackend(row, backend) {
  attribute(row.state, "class", `state ${backend.state}`);
  attribute(row.state.firstChild.firstChild, "d", SHAPES[backend.state] || SHAPES.unresolved);
  put(row.state.lastChild, backend.state);
  const since = (Date.parse(status.generated) - Date.parse(backend.since)) / 1000;
  put(row.why, `${backend.reason ? `${visible(backend.reason)}, ` : ""}for ${lasting(since)}`);
  const cells = row.children;
  put(cells[2], count(backend.in_flight));
  // What would have gone to one that gets nothing is missed.
  const out = OUT.has(backend.state);
  put(cells[3], rate(Math.max(0, backend.per_second - (out ? backend.failed_per_second : 0))));
  put(cells[4], time(backend.p50_seconds));
  put(cells[5], time(backend.p99_seconds));
  put(cells[7], rate(backend.failed_per_second));
  cells[7].classList.toggle("alarm", !out && backend.failed_per_second > 0);
  put(cells[8], backend.background_requests ? `${count(backend.background_requests)} (${bytes(backend.background_bytes)})` : "0");
  put(cells[9], count(backend.divergences));
  const past = history.backends[backend.url];
  if (past) draw(row.plot, [past.p50_seconds, past.p99_seconds], "Latency", time);
}

// ---- errors ----

function showErrors() {
  const { requests } = status;
  const counts = [
    ["Answers to clients", requests.by_status], ["Refused by the gateway", requests.refused], ["Broken off by", requests.broken],
  ];
  const lines = counts.map(([what, of]) => [what, Object.entries(of).map(([name, n]) => `${name} ${count(n)}`).join(", ") || "none"]);
  const rows = status.backends.flatMap((backend) => {
    const failures = backend.errors.map((error) => ({ url: backend.url, name: `${error.phase}/${error.cause}`,
      what: `${PHASES[error.phase] || error.phase}: ${CAUSES[error.cause] || error.cause}`, recent: error.recent, count: error.count }));
    const answered = backend.by_status["5xx"];
    const cut = Object.entries(backend.cut).map(([reason, n]) => ({ url: backend.url, name: `cut/${reason}`, what: `ended by the gateway: ${reason}`, recent: null, count: n }));
    if (answered) failures.push({ url: backend.url, name: "5xx", what: "answered with 5xx", recent: null, count: answered });
    return failures.concat(cut);
  });
  const parent = $("errors");
  if (!parent.firstChild) parent.append(createErrors());
  keyed(parent.counts, lines, (l) => l[0], (l) => make("div", {}, make("dt", {}, l[0]), make("dd")), (node, l) => put(node.lastChild, l[1]));
  parent.none.hidden = rows.length > 0;
  parent.table.hidden = rows.length === 0;
  keyed(parent.body, rows, (row) => `${row.url} ${row.name}`, (row) => {
    const node = make("tr", { role: "row" }, make("th", { scope: "row", class: "left mono url", role: "rowheader" }, foreign(row.url)));
    node.append(make("td", { class: "left c-cause", role: "cell" }, row.what, " ", make("span", { class: "soft mono" }, row.name)));
    for (const label of [recently(), "Total"]) node.append(make("td", { "data-label": label, role: "cell" }));
    return node;
  }, (node, row) => {
    put(node.children[2], row.recent === null ? "\u2013" : count(row.recent));
    // A dead pooled connection costs nobody anything.
    node.children[2].classList.toggle("alarm", row.recent > 0 && !row.name.endsWith("/stale"));
    put(node.children[3], count(row.count));
  });
}

const recently = () => `Last ${status.window_seconds} s`;

function createErrors() {
  const parent = $("errors");
  const head = make("tr", { role: "row" }, ...[["Backend", "left"], ["Cause", "left c-cause"], [recently(), ""], ["Total", ""]]
    .map(([name, kind]) => make("th", { scope: "col", class: kind, role: "columnheader" }, name)));
  parent.counts = make("dl", { class: "counts" });
  parent.none = make("p", { class: "plain soft" }, "No exchange with a backend has failed.");
  parent.body = make("tbody", { role: "rowgroup" });
  parent.table = make("table", { role: "table" }, make("caption", { class: "unseen" }, "Failures of backends by cause"),
    make("thead", { role: "rowgroup" }, head), parent.body);
  return make("div", { class: "card" }, parent.counts, parent.none, parent.table);
}

// ---- events ----

function showEvents() {
  const total = events.length ? events[0].number : 0;
  const hint = !total ? "None since the start of this process."
    : `The last ${count(events.length)} of ${count(total)} since the start, newest first.${missing ? ` ${count(missing)} came too fast to be shown.` : ""}`;
  put($("events-hint"), hint);
  const shown = all ? events : events.slice(0, FEW);
  keyed($("events"), shown, (event) => event.number, createEvent, () => {});
  $("all").hidden = events.length <= FEW;
  put($("all"), all ? `Show the newest ${FEW}` : `Show all ${count(events.length)}`);
  attribute($("all"), "aria-expanded", all);
}

function createEvent(event) {
  const misplaced = event.kind === "misplacement";
  const object = misplaced ? event.key : `/${event.bucket}${event.key ? `/${event.key}` : ""}`;
  const summary = make("summary", {},
    make("time", { datetime: event.ts }, clock(event.ts)),
    make("span", { class: "kind" }, event.kind),
    make("span", { class: "mono" }, misplaced ? "" : visible(event.method)),
    make("span", { class: "object mono" }, foreign(object)),
    make("span", { class: "where mono" }, foreign(misplaced ? `on ${event.actual}` : event.failedhost)));
  const fields = misplaced
    ? [["Time", event.ts], ["Found on", event.actual], ["Its home", event.expected]]
    : [["Time", event.ts], ["Failed", event.failedhost], ["Good", event.successhost || "none"],
      ["Outcome", `${event.outcome}${event.status ? `, answered ${event.status}` : ", no answer"}`], ["Error", event.error],
      ["Region, cluster", `${event.region}, ${event.cluster}`], ["Request", event.reqID]];
  const list = make("dl", { class: "fields" });
  for (const [name, value] of fields) list.append(make("dt", {}, name), make("dd", { class: "mono" }, foreign(value)));
  if (event.cut) list.append(make("dt", {}, "Note"), make("dd", {}, "long texts are cut at 512 bytes; the log has all"));
  return make("li", { class: event.kind }, make("details", {}, summary, list));
}

// ---- the stream ----

function link(text, kind) {
  put($("link"), text);
  attribute($("link"), "class", kind);
}

function hear(handle) {
  return (message) => {
    heard = Date.now();
    if (!paused) link("Live", "live");
    handle(JSON.parse(message.data));
  };
}

function connect() {
  const stream = new EventSource("status/events");
  stream.addEventListener("whole", hear(onWhole));
  stream.addEventListener("status", hear(onStatus));
  stream.addEventListener("configuration", hear((text) => { configuration = text; }));
  for (const kind of ["divergence", "misplacement"]) stream.addEventListener(kind, hear(onEvent));
  stream.onerror = () => {
    // A stream that ends is asked for again by the browser; one that is refused is not.
    if (stream.readyState === EventSource.CLOSED) poll(RETRY_STREAM);
  };
}

async function poll(left) {
  if (left === 0) { connect(); return; }
  try {
    const answer = await fetch("status.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    const known = await answer.json();
    heard = Date.now();
    if (!paused) link("No live updates, too many viewers perhaps: asking every 5 s", "");
    onWhole(known);
  } catch {
    link("No connection", "lost");
  }
  setTimeout(poll, POLL, left - 1);
}

setInterval(() => {
  if (heard && Date.now() - heard > QUIET) link(`No news since ${clock(new Date(heard).toISOString())}`, "lost");
}, 1000);

$("pause").addEventListener("click", () => {
  paused = !paused;
  attribute($("pause"), "aria-pressed", paused);
  put($("pause"), paused ? "Resume" : "Pause");
  if (paused) link("Paused", "");
  else show();
});

$("all").addEventListener("click", () => {
  all = !all;
  show();
});

connect();
