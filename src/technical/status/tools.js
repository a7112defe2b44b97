// What the page's script stands on: nodes, numbers, sparklines. Everything from outside becomes text of a text node;
// nothing is parsed as HTML. The three files are one function's body.

const POINTS = 150;
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

// ---- DOM ----

function put(node, value) {
  const now = String(value);
  if (node.textContent !== now) node.textContent = now;
  return node;
}

function attribute(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

function make(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// Keeps one child per item, in the items' order, and reuses what is there: focus and selection survive.
function keyed(parent, items, key, create, update) {
  const known = parent.known || (parent.known = new Map());
  const wanted = new Set(items.map(key));
  for (const [name, node] of known) {
    if (!wanted.has(name)) { node.remove(); known.delete(name); }
  }
  let place = parent.firstChild;
  for (const item of items) {
    const name = key(item);
    let node = known.get(name);
    if (!node) { node = create(item); known.set(name, node); }
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
    update(node, item);
  }
}

// Text of a client or a backend: what cannot be seen, or turns the direction of what follows, is spelled out.
function visible(text) {
  return String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\u27e8U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`);
}

function foreign(text, kind) {
  return make("bdi", { class: kind || "any" }, visible(text));
}

// ---- numbers ----

const whole = new Intl.NumberFormat("en");
const count = (n) => whole.format(n || 0);
const several = (n, one) => `${count(n)} ${one}${n === 1 ? "" : "s"}`;

function short(n) {
  if (!n) return "0";
  if (n >= 100) return whole.format(Math.round(n));
  return n >= 10 ? n.toFixed(1) : n.toFixed(2);
}

const rate = (n) => `${short(n)}/s`;

function time(seconds) {
  if (seconds === null || seconds === undefined) return "\u2013";
  const ms = seconds * 1000;
  if (ms >= 10000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  if (ms >= 100) return `${ms.toFixed(0)} ms`;
  return ms >= 10 ? `${ms.toFixed(1)} ms` : `${ms.toFixed(2)} ms`;
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return `${unit === 0 ? Math.round(n) : n.toFixed(n < 10 ? 2 : n < 100 ? 1 : 0)} ${units[unit]}`;
}

function lasting(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s % 60} s` : `${s} s`;
}

const clock = (iso) => iso.slice(11, 19);
const percent = (part) => `${part === 0 || part === 1 ? part * 100 : (part * 100).toFixed(part < 0.1 ? 2 : 1)} %`;

// ---- sparklines ----

function spark(kinds) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [name, value] of [["class", "spark"], ["role", "img"], ["viewBox", "0 0 149 30"], ["preserveAspectRatio", "none"]]) {
    svg.setAttribute(name, value);
  }
  for (const kind of ["base", ...kinds]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", kind);
    svg.append(path);
  }
  svg.firstChild.setAttribute("d", "M0 30H149");
  return svg;
}

// Newest point at the right end; where there is none there is a gap. An area goes down to the base line.
function outline(points, top, area) {
  const x = (at) => POINTS - points.length + at;
  let path = "", from = -1;
  points.forEach((point, at) => {
    if (point === null) return;
    const y = (30 - 28 * (point / top)).toFixed(1);
    const ends = at + 1 === points.length || points[at + 1] === null;
    if (from < 0) {
      from = at;
      path += area ? `M${x(at)} 30V${y}` : `M${x(at)} ${y}`;
    } else path += `L${x(at)} ${y}`;
    if (!ends) return;
    if (from === at) path += "h0.7";
    if (area) path += "V30Z";
    from = -1;
  });
  return path;
}

// The first series is an area, the second a line. Returns the highest point.
function draw(svg, series, label, unit) {
  const top = series.flat().reduce((most, n) => Math.max(most, n || 0), 0);
  series.forEach((points, at) => attribute(svg.children[at + 1], "d", outline(points, top || 1, at === 0)));
  attribute(svg, "aria-label", `${label} in the last five minutes, at most ${unit(top)}`);
  return top;
}

// No failure is no line.
const failures = (points) => points.map((point) => point || null);
