// The journal's part: what waits to be repaired, and what a human may decide.

function showJournal() {
  const { journal } = status;
  $("journal").hidden = !journal;
  if (!journal) return;
  const stale = journal.trouble ? `. It does not answer since: ${visible(journal.trouble)}` : "";
  put($("journal-hint"), journal.looked ? `As of ${clock(journal.looked)}, of all gateways that share it${stale}.`
    : `It was not looked at yet${journal.trouble ? `: ${visible(journal.trouble)}` : ""}.`);
  showJournalTiles(journal);
  showBehind(journal);
  showAside(journal);
}

function drains(journal) {
  if (journal.seconds_to_drain !== null) return journal.open ? lasting(journal.seconds_to_drain) : "empty";
  if (journal.open_per_second === null) return "\u2013";
  return journal.open_per_second > 0 ? "growing" : "not draining";
}

function showJournalTiles(journal) {
  const known = journal.looked !== null;
  const shown = (value) => (known ? value : "\u2013");
  const perSecond = (n) => (n === null ? "\u2013" : rate(n));
  const rising = journal.open_per_second !== null && journal.open > 0 && journal.seconds_to_drain === null;
  const waits = journal.parked + journal.dead;
  const room = journal.remembered_whole ? "all there are" : `not all: room for ${count(journal.remembered_most)}`;
  const tiles = [
    { what: "To be repaired", value: shown(count(journal.open)),
      more: shown(`${count(journal.leased)} taken up${journal.oldest_seconds === null ? "" : `, oldest ${lasting(journal.oldest_seconds)}`}`) },
    { what: "Repaired", value: perSecond(journal.resolved_per_second), more: `${perSecond(journal.new_per_second)} new` },
    { what: "Time to drain", value: drains(journal), bad: rising,
      more: journal.open_per_second === null ? "" : `open objects: ${journal.open_per_second > 0 ? "+" : journal.open_per_second < 0 ? "\u2212" : ""}${rate(Math.abs(journal.open_per_second))}` },
    { what: "For a human", value: shown(count(waits)), bad: waits > 0, more: shown(`${count(journal.parked)} parked, ${count(journal.dead)} dead`) },
    { what: "Writes under way", value: shown(count(journal.intents)), more: `${rate(journal.records_per_second)} records by this process` },
    { what: "Steps that wait", value: count(journal.waiting), bad: !journal.available || journal.dropped > 0 || journal.refused > 0,
      more: `of ${count(journal.waiting_most)}; ${count(journal.dropped)} lost, ${several(journal.refused, "write")} refused` },
    { what: "Objects in memory", value: count(journal.remembered), more: room, bad: known && !journal.remembered_whole },
  ];
  keyed($("journal-tiles"), tiles, (t) => t.what, (t) => tile(t.what), (node, t) => {
    put(node.children[1], t.value);
    put(node.children[2], t.more);
    attribute(node.children[2], "class", t.bad ? "more bad" : "more");
  });
}

// ---- by backend ----

function showBehind(journal) {
  const parent = $("behind");
  if (!parent.firstChild) parent.append(createBehind());
  parent.note.hidden = journal.sampled === null;
  put(parent.note, journal.sampled === null ? "" : `An estimate, from ${count(journal.sampled)} objects of the journal.`);
  keyed(parent.body, journal.behind, (row) => row.backend, (row) => {
    const bar = make("span");
    const node = make("tr", { role: "row", "data-behind": row.backend }, make("th", { scope: "row", class: "left mono url", role: "rowheader" }, foreign(row.backend)),
      make("td", { role: "cell", "data-label": "To be repaired" }), make("td", { role: "cell", class: "c-bar", "data-label": "Of all" }, make("span", { class: "track", "aria-hidden": "true" }, bar)));
    node.bar = bar;
    return node;
  }, (node, row) => {
    put(node.children[1], count(row.open));
    node.bar.style.width = `${journal.open ? Math.min(100, row.open / journal.open * 100).toFixed(2) : 0}%`;
  });
}

function createBehind() {
  const parent = $("behind");
  const head = make("tr", { role: "row" }, ...[["Backend", "left"], ["Behind in", ""], ["Of what is to be repaired", "c-bar"]]
    .map(([name, kind]) => make("th", { scope: "col", class: kind, role: "columnheader" }, name)));
  parent.body = make("tbody", { role: "rowgroup" });
  parent.note = make("p", { class: "plain soft" });
  return make("div", { class: "card" }, make("table", { role: "table" },
    make("caption", { class: "unseen" }, "Objects to be repaired of which a backend has not taken a write"),
    make("thead", { role: "rowgroup" }, head), parent.body), parent.note);
}

// ---- parked and dead ----

function showAside(journal) {
  const waits = journal.parked + journal.dead;
  $("aside-part").hidden = waits === 0 && !journal.aside.length;
  put($("aside-hint"), `${journal.aside.length < waits ? `The last ${count(journal.aside.length)} of ${count(waits)}` : "All of them"}, newest first. The next write to an object has it tried again, too.`);
  $("decide").hidden = !journal.decides;
  keyed($("aside"), journal.aside, (one) => `${one.cluster} ${one.path}`, createAside, (node, one) => {
    attribute(node, "class", one.standing);
    put(node.age, lasting((Date.parse(status.generated) - Date.parse(one.since)) / 1000));
    put(node.standing, one.standing);
    put(node.tries, one.tries === 1 ? "1 try" : `${count(one.tries)} tries`);
    for (const reason of node.reasons) put(reason, visible(one.reason));
    node.decisions.hidden = !journal.decides;
  });
}

// A word of a command line, whatever is in it.
const word = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

function createAside(one) {
  const name = `${one.cluster}:${one.path}`;
  const command = (action, rest) => `${status.journal.command} ${action} --cluster=${word(one.cluster)} ${rest}${word(one.path)}`;
  const reasons = [make("bdi", { class: "any" }), make("bdi", { class: "any" })];
  const age = make("time", { datetime: one.since }), standing = make("span", { class: "kind" }), tries = make("span");
  const summary = make("summary", {}, age, standing, tries, make("span", { class: "object mono" }, foreign(name)),
    make("span", { class: "where" }, reasons[0]));
  const fields = make("dl", { class: "fields" });
  for (const [label, value] of [["In the journal since", make("span", { class: "mono" }, one.since)], ["Reason", reasons[1]],
    ["First, if the file has ${NAME}", make("span", {}, "set -a; . /etc/akubra/environment; set +a")],
    ["Look at it", foreign(command("show", ""))], ["Try it again", foreign(command("retry", ""))],
    ["Leave it as it is", foreign(command("drop", "--reason '...' "))]]) {
    fields.append(make("dt", {}, label), make("dd", { class: label === "Reason" ? "" : "mono" }, value));
  }
  const reason = make("input", { type: "text", maxlength: 300, "aria-label": `Reason, for ${visible(name)}`, placeholder: "Reason" });
  const decisions = make("p", { class: "decisions" }, button("Try it again", () => decide(one, "retry", reason)), reason,
    button("Leave it as it is", () => decide(one, "drop", reason)));
  const node = make("li", { "data-aside": name }, make("details", {}, summary, fields, decisions));
  return Object.assign(node, { age, standing, tries, reasons, decisions });
}

function button(text, act) {
  const node = make("button", { type: "button" }, text);
  node.addEventListener("click", act);
  return node;
}

// Nothing is sent by the form itself.
$("decide").addEventListener("submit", (event) => event.preventDefault());

async function decide(one, action, reason) {
  const said = $("decided");
  if (!$("token").value) { put(said, "Give the token first: TechnicalEndpointToken of the configuration."); return; }
  if (action === "drop" && !reason.value.trim()) { put(said, "Say why it is right as it is: the reason is empty."); return; }
  put(said, "Asking\u2026");
  try {
    const body = JSON.stringify({ cluster: one.cluster, path: one.path, action, reason: reason.value });
    const headers = { "Content-Type": "application/json", Authorization: `Bearer ${$("token").value}` };
    const answer = await fetch("journal", { method: "POST", headers, body, cache: "no-store", credentials: "omit" });
    put(said, `${visible(`${one.cluster}:${one.path}`)}: ${visible((await answer.text()).trim())}`);
  } catch (error) {
    put(said, `Nothing was done as far as is known: ${visible(error.message)}`);
  }
}

